"""`python -m tests.picamera`: our driver on the real Picamera2, as a table; 1 when a check failed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import click

from tests.picamera import chroot

_CHECKS, _LIMIT_S = "tests.picamera.checks", 180.0


@click.command()
@click.option("--root", type=click.Path(path_type=Path), default=Path("build/picamera"), show_default=True)
@click.option("--only", default="", help="Only the checks whose names hold these words.")
def main(root: Path, only: str) -> None:
    """The driver's life cycle against the real class and libcamera's virtual camera, in a Debian chroot."""
    begun = time.monotonic()
    try:
        built = chroot.build(root.resolve())
    except chroot.ChrootFailed as error:
        raise click.ClickException(str(error)) from error
    root = root.resolve()
    made = f"made in {time.monotonic() - begun:.0f} s" if built else "there already"
    click.echo(f"chroot {made}: {chroot.versions(root)}")
    listed = chroot.run(root, _CHECKS, "--list", _LIMIT_S)
    if listed.returncode:
        raise click.ClickException(f"The checks cannot be run in the chroot:\n{listed.stderr}")
    names = [name for name in listed.stdout.splitlines() if only in name]
    good = [_row(root, name) for name in names]
    click.echo(f"{sum(good)} of {len(good)} held")
    raise click.exceptions.Exit(0 if all(good) and good else 1)


def _row(root: Path, name: str) -> bool:
    begun = time.monotonic()
    try:
        done = chroot.run(root, _CHECKS, name, _LIMIT_S)
    except subprocess.TimeoutExpired:
        seen, good = f"its process did not end in {_LIMIT_S:g} s", False
    else:
        good = done.returncode == 0 and "Traceback" not in done.stderr
        seen = done.stdout.strip() if good else f"status {done.returncode}: {done.stderr.strip()}"
    mark = "" if good else "MISSED: "
    click.echo(f"{name:<48}{time.monotonic() - begun:>5.0f} s  {mark}{seen}")
    return good


if __name__ == "__main__":
    main()
