"""The commands of the kiosk's two hardware daemons, with what staff asks of the lights."""

from __future__ import annotations

import contextlib
import json
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hardware.board import load_board

if TYPE_CHECKING:
    from firmware.lights import Lights


def _uids(ctx: click.Context, param: click.Parameter, users: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of `users`, each a name or already a number."""
    found = []
    for user in users:
        try:
            found.append(int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise click.BadParameter(f"this machine has no user {user!r}.", ctx, param) from None
    return tuple(found)


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
    callback=_uids,
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

    LightDaemon(load_board(board), state, peers).run()


@click.command()
@_board
@_state
@_peer
@click.option(
    "--portrait",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Picture of the simulated patient; simulated boards only.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated patient's skin.")
@click.pass_context
def captured(
    ctx: click.Context, board: Path, state: Path, peers: tuple[int, ...], portrait: Path | None, seed: int
) -> None:
    """Run the capture daemon: owner of the camera, preview and capture sequence."""
    from firmware.captured import CaptureDaemon

    profile = load_board(board)
    if portrait is not None and not profile.simulated:
        raise click.UsageError("--portrait is for simulated boards; this board has a real camera.")
    find_face = ctx.obj["face_finder"](state)
    patients: list[Any] = []

    def patient() -> Any:
        """The same patient each time the camera is opened."""
        from firmware.guidance import look_for_face
        from hardware.simulated.patient import Patient, default_portrait, read_portrait

        if not patients:
            picture = default_portrait() if portrait is None else read_portrait(portrait)
            face, _ = look_for_face(find_face, picture, profile.engine)
            landmarks = None if face is None else face.landmarks
            patients.append(Patient(profile, picture, landmarks, seed))
        return patients[0]

    CaptureDaemon(profile, state, find_face, patient, peers).run()


@click.group()
def lights() -> None:
    """Ask the light daemon for its state; clear a fault that locks the lights."""


@lights.command()
@_state
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON.")
def status(state: Path, as_json: bool) -> None:
    """Say what is lit and which fault is latched; exit 1 when there is one."""
    with _talking_to(state) as daemon:
        said = daemon.status()
    if as_json:
        click.echo(json.dumps(said))
    else:
        lit = ", ".join(f"{name} {level:.0%}" for name, level in said["lit"].items())
        click.echo(f"lit     {lit or 'nothing'}")
        click.echo(f"leased  {'yes' if said['leased'] else 'no'}")
        click.echo(f"fault   {said['fault'] or 'none'}")
    if said["fault"]:
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
    nobody is in the hood. Run this as the light daemon's user.
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
