"""The commands of the kiosk's two hardware daemons."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any

import click

from hardware.board import load_board


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
    find_face = ctx.obj["face_finder"]()
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
