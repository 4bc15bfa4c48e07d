"""The `board` command: look at board profiles."""

from __future__ import annotations

from pathlib import Path

import click

from hardware.board import BoardError, load_board


@click.group()
def board() -> None:
    """Check a board profile."""


@board.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Read the board profile FILE: list its lights, or name each wrong key with the reason."""
    try:
        profile = load_board(file)
    except BoardError as error:
        for problem in error.problems:
            click.echo(f"{file}: {problem}", err=True)
        raise click.exceptions.Exit(1) from error
    simulated = ", SIMULATED" if profile.simulated else ""
    click.echo(
        f"{profile.name}{simulated}: camera {profile.camera.driver}, engine {profile.engine}, ", nl=False
    )
    click.echo(f"keys in {profile.key_store}, eyes: {profile.eye_protection.replace('_', ' ')}")
    click.echo(f"{'light':<10}{'pin':>4}{'nm':>6}{'W/m²':>8}  calibrated")
    for name, light in profile.lights.items():
        irradiance = "" if light.irradiance_w_m2 is None else f"{light.irradiance_w_m2:g}"
        row = f"{name:<10}{light.pin:>4}{light.wavelength_nm or '':>6}{irradiance:>8}"
        click.echo(f"{row}  {light.calibrated_on or ''}".rstrip())
        if light.is_uv and (light.irradiance_w_m2 or 0) > profile.limits.uv_design_w_m2:
            design = profile.limits.uv_design_w_m2
            click.echo(
                f"{file}: lights.{name} is brighter than the design value of {design:g} W/m².", err=True
            )
