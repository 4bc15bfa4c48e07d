"""The `board` commands: what board profiles say."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import click

from hardware.board import Board, BoardError, load_board
from hardware.counts import counted
from hardware.host.one_line import one_line
from hardware.host.output_file import STANDARD_OUTPUT, OutputFile, opened_output, require_apart
from hardware.profile import Light, Limits

# Staff are told of a lamp that has to be measured so many days before it locks.
_SOON_DAYS = 30
_PROFILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def board() -> None:
    """Check board profiles, draw their wiring."""


@board.command()
@click.argument("files", metavar="FILE...", type=_PROFILE, nargs=-1, required=True)
def check(files: tuple[Path, ...]) -> None:
    """Say of each board profile FILE its lights, or what is wrong.

    Each wrong key is named with the reason and what to write.
    """
    wrong = 0
    for n, file in enumerate(files):
        try:
            profile = load_board(file)
        except BoardError as error:
            wrong += 1
            for problem in error.problems:
                click.echo(one_line(f"{file}: {problem}"), err=True)
            continue
        if n:
            click.echo()
        _describe(profile)
        for warning in warnings(profile):
            click.echo(one_line(f"{file}: {warning}"), err=True)
    if wrong:
        raise click.exceptions.Exit(1)


@board.command()
@click.argument("file", type=_PROFILE)
@click.option(
    "--out",
    required=True,
    type=OutputFile(),
    metavar="SVG",
    help="Where the drawing goes; '-' is standard output.",
)
def wiring(file: Path, out: str) -> None:
    """Draw what the profile FILE says is wired where."""
    from hardware.wiring import draw_wiring

    require_apart(out, file)
    drawing = draw_wiring(load_board(file))
    with opened_output(out) as svg:
        svg.write(drawing)
    if out != STANDARD_OUTPUT:
        click.echo(one_line(f"{out}: the wiring of {file}."))


def warnings(profile: Board) -> list[str]:
    """What a usable profile still lacks, one sentence each."""
    today = datetime.now(timezone.utc).date()
    said = [
        f"lights.{name}{why}"
        for name, light in profile.lights.items()
        if light.is_uv and (why := _why_locked(light, profile.limits, today)) is not None
    ]
    if profile.room_lit:
        said.append("there are no lamps: white-light measures only, in the light of the room.")
    return said


def _why_locked(light: Light, limits: Limits, today: date) -> str | None:
    """Why the UV lamp `light` is locked, will be soon, or is brighter than it should be; else None."""
    irradiance, design, lockout = light.irradiance_w_m2 or 0.0, limits.uv_design_w_m2, limits.uv_lockout_w_m2
    measured = light.calibrated_on
    if irradiance > lockout:
        return f".irradiance_w_m2 is above the lock-out of {lockout:g} W/m²: this lamp stays locked."
    if measured is None:
        return ".calibrated_on is missing: this lamp stays locked until it is measured."
    if isinstance(measured, date):
        age = (today - measured).days
        ago = f"{counted(age, 'day')} ago" if age else "of today"
        left = limits.uv_calibration_days + 1 - age
        if age < 0:
            return f".calibrated_on lies in the future: this lamp stays locked until {measured} (UTC)."
        if left <= 0:
            since = today + timedelta(days=left)
            return f".calibrated_on is {ago}: this lamp is locked since {since}. Measure it again."
        if left <= _SOON_DAYS:
            days = counted(left, "day")
            return f".calibrated_on is {ago}: this lamp is locked in {days}. Measure it again."
    if irradiance > design:
        return f" is brighter than the design value of {design:g} W/m²."
    return None


def _describe(profile: Board) -> None:
    simulated = ", SIMULATED" if profile.simulated else ""
    eyes = profile.eye_protection.replace("_", " ")
    click.echo(
        f"{profile.name}{simulated}: camera {profile.camera.driver}, engine {profile.engine}, "
        f"keys in {profile.key_store}, eye protection: {eyes}"
    )
    click.echo(f"{'':<16}{'GPIO':>5}{'header':>8}{'mA':>6}{'nm':>6}{'W/m²':>8}  measured on")
    for name, light in profile.lights.items():
        click.echo(f"{name:<16}{_row(light, profile)}".rstrip())
    if profile.interlocks is not None:
        for n, pin in enumerate(profile.interlocks.shroud_pins, 1):
            click.echo(f"shroud switch {n:<2}{pin:>5}{_header_pin(pin, profile):>8}".rstrip())


def _row(light: Light, profile: Board) -> str:
    """Line, header pin, current, wavelength, irradiance, its date; blank where the profile says nothing."""
    if light.pin is None:
        return f"{'room':>5}"
    numbers = f"{light.pin:>5}{_header_pin(light.pin, profile):>8}"
    numbers += f"{light.current_ma or '':>6}{light.wavelength_nm or '':>6}"
    irradiance = "" if light.irradiance_w_m2 is None else f"{light.irradiance_w_m2:g}"
    never = "never: locked" if light.is_uv else ""
    return f"{numbers}{irradiance:>8}  {light.calibrated_on or never}"


def _header_pin(line: int, profile: Board) -> int | str:
    return "" if profile.connector is None else profile.connector.at[line]
