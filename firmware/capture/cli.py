"""The command of the capture daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from firmware.cli_options import board_option, peer_option, state_option
from hardware.board import load_board
from hardware.host.peers import USER
from hardware.host.secrecy import keep_memory_to_ourselves
from hardware.simulated.patient_options import SimulatedPatient, patient_options


@click.command()
@board_option
@state_option
@peer_option
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
    from firmware.capture.daemon import CaptureDaemon

    keep_memory_to_ourselves()
    profile = load_board(board)
    patient.check(profile)
    find_face = ctx.obj["face_finder"](state)
    patients: list[Any] = []

    def in_front() -> Any:
        """The same patient each time the camera is opened."""
        from firmware.capture.guidance import look_for_face
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
