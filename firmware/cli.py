"""The commands of the kiosk's two hardware daemons, with what staff asks of the lights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hardware.board import load_board
from hardware.host.peers import USER
from hardware.host.secrecy import keep_memory_to_ourselves
from hardware.simulated.patient_options import SimulatedPatient, patient_options

if TYPE_CHECKING:
    from firmware.lights import Lights


_board = click.option(
    "--board",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Board profile (TOML).",
)
_state = click.option(
    "--state",
    required=True,
    envvar="DERMAKIOSK_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="The kiosk's state folder (or DERMAKIOSK_STATE).",
)
_peer = click.option(
    "--peer",
    "peers",
    multiple=True,
    type=USER,
    metavar="USER",
    help="User (name or id) that may connect, besides our own. Repeat for several.",
)


@click.command()
@_board
@_state
@_peer
def lightd(board: Path, state: Path, peers: tuple[int, ...]) -> None:
    """Run the light daemon: sole owner of every light pin, keeper of the dose ledger."""
    from firmware.lightd import LightDaemon

    keep_memory_to_ourselves()
    LightDaemon(load_board(board), state, peers).run()


@click.command()
@_board
@_state
@_peer
@click.option(
    "--light-user",
    type=USER,
    help="User (name or id) whose process may be the light daemon (default: our own, or who owns its state).",
)
@patient_options
@click.pass_context
def captured(
    ctx: click.Context,
    board: Path,
    state: Path,
    peers: tuple[int, ...],
    light_user: int | None,
    patient: SimulatedPatient,
) -> None:
    """Run the capture daemon: owner of the camera, preview and capture sequence."""
    from firmware.captured import CaptureDaemon

    keep_memory_to_ourselves()
    profile = load_board(board)
    patient.check(profile)
    find_face = ctx.obj["face_finder"](state)
    patients: list[Any] = []

    def in_front() -> Any:
        """The same patient each time the camera is opened."""
        from firmware.guidance import look_for_face
        from hardware.simulated.patient import Patient, default_portrait

        if not patients and patient.phantom is not None:
            from hardware.simulated.phantom.face import Phantom, PhantomPatient

            face = Phantom(profile, ctx.obj["anatomy"](), patient.phantom, patient.tone)
            patients.append(PhantomPatient(profile, face.scene))
        elif not patients:
            portrait = patient.portrait_picture()
            picture = default_portrait() if portrait is None else portrait
            found, _ = look_for_face(find_face, picture, profile.engine)
            landmarks = None if found is None else found.landmarks
            patients.append(Patient(profile, picture, landmarks, patient.seed))
        return patients[0]

    close_up = patient.close_up_picture()
    CaptureDaemon(profile, state, find_face, in_front, peers, close_up, light_user).run()


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
@_state
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
def status(state: Path, as_json: bool) -> None:
    """Say what is lit, sensed and latched, and the lamps' hours; exit 1 when a fault is latched."""
    from firmware.latch import FAULT_WORDS, UV_ONLY

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
        rows |= _at_uv_lamp(said) if said["has_uv"] else {"UV lamp": "none on this board"}
        rows |= {f"hours of {name}": f"{hours:.2f}" for name, hours in said["lamp_hours"].items()}
        for name, words in rows.items():
            click.echo(f"{name:<20}{words}")
        if fault is not None:
            click.echo(
                "Once that is mended: dermakiosk lights clear --staff NAME, as the light daemon's user."
            )
    if fault is not None:
        raise click.exceptions.Exit(1)


@lights.command()
@_state
@click.option("--staff", required=True, metavar="NAME", help="Who looked at the lamp; it is kept.")
@click.confirmation_option(
    "--hood-is-empty", prompt="UV will shine for a tenth of a second. Is nobody in the hood?"
)
def clear(state: Path, staff: str) -> None:
    """Clear the latched fault, if the light check passes.

    The lamp has to show at the photodiode when it is on, and be gone 50 ms after; the shroud is closed and
    nobody is in the hood. Run this as the light daemon's user, dk-light on an installed kiosk.
    """
    with _talking_to(state) as daemon:
        fault = daemon.status()["fault"]
        passed = daemon.clear(staff)
        now = daemon.status()["fault"]
    if not passed:
        raise CheckFailed(
            f"The light check failed, so the lights stay locked ({now}): the lamp was not seen, or did not go"
            " dark. Look at lamp, photodiode and wiring, then try again."
        )
    click.echo(f"The light check passed; the fault {fault} is cleared.")


@lights.command("new-lamp")
@_state
@click.option("--light", required=True, metavar="LIGHT", help="Whose lamp it is, as the board names it.")
@click.option("--staff", required=True, metavar="NAME", help="Who put it in; it goes to the log.")
def new_lamp(state: Path, light: str, staff: str) -> None:
    """Begin a lamp's hours at 0. Run this as the light daemon's user, dk-light on an installed kiosk; then
    calibrate.

    A new UV lamp stays locked until its irradiance was measured.
    """
    with _talking_to(state) as daemon:
        measure = daemon.new_lamp(light, staff)
    if measure:
        click.echo(
            f"{light} begins at 0 h, and UV is locked. Measure the new lamp's irradiance at the eye plane,"
            f" write it and today's date into lights.{light}.irradiance_w_m2 and calibrated_on of the board"
            " profile, restart the light daemon, and run 'dermakiosk lights clear'."
            " Then run 'dermakiosk calibrate'."
        )
    else:
        click.echo(f"{light} begins at 0 h. Run 'dermakiosk calibrate' now.")


class CheckFailed(Exception):
    """The light check found the fault still there."""

    exit_status = 1


@contextlib.contextmanager
def _talking_to(state: Path) -> Iterator[Lights]:
    from firmware.lights import Lights

    daemon = Lights(state / "run" / "light.sock")
    try:
        yield daemon
    finally:
        daemon.close()
