"""The `board` commands: what board profiles say."""

from __future__ import annotations

from pathlib import Path

import click

from hardware.board import Board, BoardError, Light, load_board

_PROFILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def board() -> None:
    """Check board profiles, draw their wiring."""


@board.command()
@click.argument("files", metavar="FILE...", type=_PROFILE, nargs=-1, required=True)
def check(files: tuple[Path, ...]) -> None:
    """Read each board profile FILE: list its lights, or name each wrong key with the reason."""
    wrong = 0
    for n, file in enumerate(files):
        try:
            profile = load_board(file)
        except BoardError as error:
            wrong += 1
            for problem in error.problems:
                click.echo(f"{file}: {problem}", err=True)
            continue
        if n:
            click.echo()
        _describe(profile)
        for warning in warnings(profile):
            click.echo(f"{file}: {warning}", err=True)
    if wrong:
        raise click.exceptions.Exit(1)


@board.command()
@click.argument("file", type=_PROFILE)
@click.option("--out", required=True, type=_PROFILE, metavar="SVG", help="Where the drawing goes.")
def wiring(file: Path, out: Path) -> None:
    """Draw what the profile FILE says is wired where."""
    from hardware.wiring import draw_wiring

    drawing = draw_wiring(load_board(file))
    try:
        out.write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(
            f"{out} cannot be written ({error.strerror}).", param_hint="--out"
        ) from error
    click.echo(f"{out}: the wiring of {file}.")


def warnings(profile: Board) -> list[str]:
    """What a usable profile still lacks, one sentence each."""
    said = []
    for name, light in profile.lights.items():
        if not light.is_uv:
            continue
        design = profile.limits.uv_design_w_m2
        if (light.irradiance_w_m2 or 0) > design:
            said.append(f"lights.{name} is brighter than the design value of {design:g} W/m².")
        if light.calibrated_on is None:
            said.append(
                f"lights.{name}.calibrated_on is missing: this lamp stays locked until it is measured."
            )
    if profile.room_lit:
        said.append("there are no lamps: white-light measures only, in the light of the room.")
    return said


def _describe(profile: Board) -> None:
    simulated = ", SIMULATED" if profile.simulated else ""
    eyes = profile.eye_protection.replace("_", " ")
    click.echo(
        f"{profile.name}{simulated}: camera {profile.camera.driver}, engine {profile.engine}, "
        f"keys in {profile.key_store}, eyes: {eyes}"
    )
    click.echo(f"{'light':<10}{'pin':>5}{'mA':>6}{'nm':>6}{'W/m²':>8}  calibrated")
    for name, light in profile.lights.items():
        click.echo(f"{name:<10}{_row(light)}".rstrip())


def _row(light: Light) -> str:
    """Pin, current, wavelength, irradiance and its date; blank where the profile says nothing."""
    pin = "room" if light.pin is None else light.pin
    numbers = f"{pin:>5}{light.current_ma or '':>6}{light.wavelength_nm or '':>6}"
    irradiance = "" if light.irradiance_w_m2 is None else f"{light.irradiance_w_m2:g}"
    return f"{numbers}{irradiance:>8}  {light.calibrated_on or ''}"
