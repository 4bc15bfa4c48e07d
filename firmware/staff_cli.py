"""The commands with which staff calibrate and check a kiosk, and see to its lights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from firmware.cli_options import board_option, state_option
from hardware.board import Board, load_board
from hardware.counts import counted
from hardware.host.errors import PlainError
from hardware.host.regular_file import read_regular_text

if TYPE_CHECKING:
    from firmware.lights.client import Lights

_PUT = {
    "white": "Put the white card in the plane of the face, to fill the picture; close the shroud.",
    "chart": "Put the colour chart in the middle, facing the camera; close the shroud.",
    "sphere": "Put the matte ball in the middle, in the plane of the face, before the black cloth; close the"
    " shroud.",
    "grey": "Put the grey card in the plane of the face; close the shroud.",
    "paper": "Put plain white copy paper in the plane of the face, to fill the picture; close the shroud.",
    "shroud_open": "Open the shroud on all sides.",
    "shroud_closed": "Close the shroud.",
}


def _asked_of_staff(board: Board, state: Path) -> Callable[[str], None]:
    """What is called for each thing to do: says it, and waits. A simulated kiosk does it by itself."""

    def put(what: str) -> None:
        if not board.simulated:
            click.prompt(f"{_PUT[what]} Then press Enter", default="", show_default=False, err=True)
        elif what.startswith("shroud"):
            from hardware.simulated.senses import hold_shroud

            hold_shroud(state / "run" / "pins.page", is_open=what == "shroud_open")

    return put


@click.command()
@board_option
@state_option
@click.option(
    "--chart",
    "chart_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The chart's own colours (JSON: 24 of L*, a*, b* in D65); needed on a real kiosk.",
)
@click.option("--hood-empty", is_flag=True, help="Nobody is in the hood: UV may be measured, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
def calibrate(board: Path, state: Path, chart_file: Path | None, hood_empty: bool, as_json: bool) -> None:
    """Measure black, flat fields, colour, scale and lamp positions, and keep them as a new calibration.

    On an installed kiosk run this as dk-capture. The light daemon must run, the capture daemon must not
    hold a real camera meanwhile. Takes a white card, a colour chart, a matte ball and, for UV, white copy
    paper; a simulated kiosk has its own.
    """
    from firmware.bench.calibrate import calibrate as measure
    from firmware.bench.calibrate import led_and_sensor
    from firmware.bench.workbench import Workbench
    from firmware.cameras.calibration import write_calibration
    from hardware.targets import reference_chart

    profile = load_board(board)
    led_and_sensor(profile)
    if chart_file is None and not profile.simulated:
        raise click.UsageError("--chart is needed: the colours that the maker measured of this very chart.")
    chart = reference_chart() if chart_file is None else _read_chart_file(chart_file)
    with Workbench(profile, state, _asked_of_staff(profile, state), hood_empty) as bench:
        made = measure(bench, chart, lambda step: click.echo(f"{step} …", err=True))
    write_calibration(state, made)
    if as_json:
        click.echo(json.dumps({"calibration": made.id, "mm_per_px": made.mm_per_px, **made.scores}))
        return
    click.echo(f"calibration {made.id}")
    for light, residual in made.scores["flat_residual"].items():
        click.echo(f"{'flat field of ' + light:<26}uneven by {100 * residual:.2f} % after correction")
    chart_score, skin = made.scores["chart_de00"], made.scores["modelled_skin"]
    click.echo(f"{'colour chart':<26}ΔE00 {chart_score['mean']:.2f} mean, {chart_score['worst']:.2f} worst")
    click.echo(f"{'modelled skins':<26}ΔE00 {skin['de00_mean']:.2f} mean, {skin['de00_p95']:.2f} for 95 %")
    click.echo(f"{'scale':<26}{made.mm_per_px:.4f} mm a pixel")
    for light, off in made.scores.get("lamp_beside_profile_mm", {}).items():
        x, y, z = (round(value) for value in made.lamps_mm[light])
        click.echo(f"{light:<26}at {x}, {y}, {z} mm; {off:.0f} mm beside the profile")
    click.echo("It is kept, and every scan from now on uses it.")


def _read_chart_file(path: Path) -> Any:
    """The chart whose L*a*b* values are in the JSON file at `path`."""
    import numpy as np

    from firmware.cameras.calibration import CalibrationError
    from hardware.colour import from_lab
    from hardware.targets import Chart

    try:
        values = np.array(json.loads(read_regular_text(path)), np.float64)
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CalibrationError(f"{path} is no JSON list of 24 colours: L*, a*, b* of each.") from error
    if values.shape != (24, 3) or not np.isfinite(values).all():
        raise CalibrationError(f"{path} does not have 24 colours of three numbers: L*, a*, b*.")
    return Chart(from_lab(values))


@click.command()
@board_option
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
def greycard(board: Path, state: Path, as_json: bool) -> None:
    """Look at the grey card under every light; a failed check forbids scanning until one passes.

    On an installed kiosk run this as dk-capture. Exit status 1 when the check failed.
    """
    from firmware.bench.grey_card import check_grey_card
    from firmware.bench.workbench import Workbench
    from firmware.cameras.calibration import CalibrationError, lamps_aged, newest_calibration
    from firmware.cameras.grey_card_check import write_check

    profile = load_board(board)
    calibration = newest_calibration(state, profile)
    if calibration is None:
        raise CalibrationError("There is no calibration to check: run 'dermakiosk calibrate' first.")
    with Workbench(profile, state, _asked_of_staff(profile, state)) as bench:
        check = check_grey_card(bench, calibration)
        aged = lamps_aged(profile, calibration, bench.status())
    write_check(state, check)
    if as_json:
        found = {"level_off": check.level_off, "uneven": check.uneven, "failing": check.failing}
        click.echo(json.dumps({"calibration": check.calibration, "at": check.at.isoformat(), **found}))
    else:
        click.echo(f"{'light':<10}{'level':>9}{'uneven':>9}")
        for light, off in check.level_off.items():
            uneven = f"{100 * check.uneven[light]:.1f} %" if light in check.uneven else ""
            mark = "  FAILED" if light in check.failing else ""
            level = round(100 * off, 1) + 0.0  # no "-0.0"
            click.echo(f"{light:<10}{level:>+7.1f} %{uneven:>9}{mark}".rstrip())
        click.echo(_grey_verdict(check.failing))
    if aged is not None:
        click.echo(aged, err=True)
    if check.failing:
        raise click.exceptions.Exit(1)


def _grey_verdict(failing: tuple[str, ...]) -> str:
    from firmware.cameras.grey_card_check import LEVEL_LIMIT, UNEVEN_LIMIT

    limits = f"{100 * LEVEL_LIMIT:g} % in level, {100 * UNEVEN_LIMIT:g} % in evenness"
    if not failing:
        return f"Every light is within its limits ({limits}): the calibration is still true."
    return (
        f"Beyond the limits ({limits}): {', '.join(failing)}. Nobody can be scanned now. Clean lamps and lens"
        " and check again; if that does not help, run 'dermakiosk calibrate'."
    )


@click.command()
@board_option
@state_option
@click.option("--hood-empty", is_flag=True, help="Nobody is in the hood: UV may be tested, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per check.")
@click.pass_context
def selftest(context: click.Context, board: Path, state: Path, hood_empty: bool, as_json: bool) -> None:
    """Check lights, interlocks, storage, clock, power and networks; exit status 1 when anything failed.

    On an installed kiosk run this as dk-capture. The light daemon must run, the capture daemon must not
    hold a real camera meanwhile. When asked to, put a grey card where the face would be, and open and close
    the shroud.
    """
    from firmware.bench.interlock_check import CheckResult
    from firmware.bench.selftest import run_selftest

    profile = load_board(board)
    results = run_selftest(profile, state, _asked_of_staff(profile, state), hood_empty)
    right, found = context.obj["engine_checker"](profile.engine)
    results.append(CheckResult("networks", right, found))
    for result in results:
        if as_json:
            row = {"check": result.check, "ok": result.ok, "found": result.found}
            click.echo(json.dumps(row | ({"values": result.values} if result.values else {})))
        else:
            mark = {True: "ok", False: "FAILED", None: "not tested"}[result.ok]
            click.echo(f"{result.check:<26}{mark:<12}{result.found}")
    failed = [result.check for result in results if result.ok is False]
    if not as_json:
        well = sum(result.ok is True for result in results)
        untested = sum(result.ok is None for result in results)
        which = f" ({', '.join(failed)})" if failed else ""
        checks = counted(len(results), "check")
        click.echo(f"\n{checks}: {well} ok, {len(failed)} failed{which}, {untested} not tested.")
    if failed:
        raise click.exceptions.Exit(1)


_SENSORS = {
    "photodiode_w_m2": ("photodiode", "W/m²"),
    "lamp_current_a": ("lamp current", "A"),
    "lamp_temperature_c": ("lamp temperature", "°C"),
}


def _shroud_words(closed: list[bool] | None) -> str:
    if closed is None:
        return "cannot be read"
    first, second = ("closed" if one else "open" for one in closed)
    return first if first == second else f"switch 1 {first}, switch 2 {second}"


def _at_uv_lamp(said: dict[str, Any]) -> dict[str, str]:
    """What the interlocks and the sensors at the UV lamp say, by their names."""
    rows = {"shroud": _shroud_words(said["shroud_closed"])}
    for key, (name, unit) in _SENSORS.items():
        value = said["sensors"][key]
        # The sensor's noise around 0 is no negative light: + 0.0 takes the sign off a zero.
        rows[name] = "cannot be read" if value is None else f"{round(value, 2) + 0.0:.2f} {unit}"
    return rows


@click.group()
def lights() -> None:
    """Ask the light daemon for its state; clear a fault that locks the lights; name a lamp as new."""


@lights.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
def status(state: Path, as_json: bool) -> None:
    """Say what is lit, sensed and latched, and the lamps' hours.

    Exit status 1 when a fault is latched.
    """
    from firmware.lights.doses import UV_ONLY
    from firmware.lights.latch import FAULT_WORDS

    with _talking_to(state) as daemon:
        said = daemon.status()
    fault = said["fault"]
    if as_json:
        click.echo(json.dumps(said))
    else:
        lit = ", ".join(f"{name} {level:.0%}" for name, level in said["lit"].items())
        rows = {"lit now": lit or "nothing", "leased": "yes" if said["leased"] else "no"}
        locked = "UV is locked" if fault in UV_ONLY else "all lights are locked"
        words = f"{fault}, {locked}: {FAULT_WORDS.get(fault, 'unknown')}"
        rows["fault"] = "none" if fault is None else words
        unread = said["ledger_unread"]
        rows |= {} if unread is None else {"dose ledger": unread}
        rows |= _at_uv_lamp(said) if said["has_uv"] else {"UV lamp": "none on this board"}
        rows |= {f"hours of {name}": f"{hours:.2f}" for name, hours in said["lamp_hours"].items()}
        for name, words in rows.items():
            click.echo(f"{name:<20}{words}")
        if unread is not None:
            click.echo(
                "Every 5 s the light daemon reads it again, and then knows which fault there is, if any."
            )
        elif fault is not None:
            click.echo(
                "Once that is mended: dermakiosk lights clear --staff NAME, as the light daemon's user."
            )
    if fault is not None:
        raise click.exceptions.Exit(1)


@lights.command()
@state_option
@click.option("--staff", required=True, metavar="NAME", help="Who looked at the lamp; it is kept.")
@click.confirmation_option(
    "--hood-is-empty",
    prompt="UV will shine for a tenth of a second. Is nobody in the hood?",
    help="Nobody is in the hood: do not ask.",
)
def clear(state: Path, staff: str) -> None:
    """Clear the latched fault, if the light check passes.

    The lamp has to show at the photodiode when it is on, and be gone 50 ms after; the shroud is closed and
    nobody is in the hood. Run this as the light daemon's user, dk-light on an installed kiosk.
    """
    from firmware.lights.doses import UV_ONLY
    from firmware.lights.latch import CHECK_WORDS

    with _talking_to(state) as daemon:
        fault = daemon.status()["fault"]
        why_not = daemon.clear(staff)
        now = daemon.status()["fault"]
    if why_not is not None:
        stay = "UV stays" if now in UV_ONLY else "the lights stay"
        raise CheckFailed(
            f"The light check failed, so {stay} locked ({now}). {CHECK_WORDS.get(why_not, why_not)}."
        )
    more = "" if now is None else f" UV stays locked ({now}) until a UV pulse was seen: run this once more."
    click.echo(f"The light check passed; the fault {fault} is cleared.{more}")


@lights.command("new-lamp")
@state_option
@click.option("--light", required=True, metavar="LIGHT", help="Whose lamp it is, as the board names it.")
@click.option("--staff", required=True, metavar="NAME", help="Who put it in; it goes to the log.")
def new_lamp(state: Path, light: str, staff: str) -> None:
    """Begin a lamp's hours at 0. Run this as the light daemon's user, dk-light on an installed kiosk; then
    calibrate.

    A new UV lamp stays locked until its irradiance was measured.
    """
    with _talking_to(state) as daemon:
        new = daemon.new_lamp(light, staff)
    if not new.written:
        locked = " UV is locked all the same, until the new lamp was measured." if new.measure else ""
        raise NotWritten(
            f"That the hours of {light} begin at 0 could not be written down, and a restart forgets it: see"
            f" that the disk is neither full nor broken, then run this again.{locked}"
        )
    if new.measure:
        click.echo(
            f"{light} begins at 0 h, and UV is locked. Measure the new lamp's irradiance at the eye plane,"
            f" write it and today's date into lights.{light}.irradiance_w_m2 and calibrated_on of the board"
            " profile, restart the light daemon, and run 'dermakiosk lights clear'."
            " Then run 'dermakiosk calibrate'."
        )
    else:
        click.echo(f"{light} begins at 0 h. Run 'dermakiosk calibrate' now.")


class NotWritten(PlainError):
    """The light daemon knows something that it could not keep."""


class CheckFailed(PlainError):
    """The light check found the fault still there."""


@contextlib.contextmanager
def _talking_to(state: Path) -> Iterator[Lights]:
    from firmware.lights.client import Lights

    daemon = Lights(state / "run" / "light.sock")
    try:
        yield daemon
    finally:
        daemon.close()
