"""Movement and closed eyes as the real face networks see them, on a simulated patient."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from firmware.cameras.reflectance import reflectance, to_srgb
from firmware.capture.eyes import eyes_closed
from firmware.capture.frame_checks import FrameChecks
from hardware.board import BOARDS, Board, load_board
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.patient import Patient, default_portrait
from hardware.simulated.pins import PinPage
from models.analysis.face import find_face


@pytest.fixture(scope="module")
def board() -> Board:
    board = load_board(BOARDS / "simulated.toml")
    still = board.camera.still.model_copy(update={"width": 768, "height": 1024, "fps": 60.0})
    return board.model_copy(update={"camera": board.camera.model_copy(update={"still": still})})


@pytest.fixture(scope="module", params=[1.0, 0.15], ids=["fair", "dark"])
def patient(request: pytest.FixtureRequest, board: Board) -> Patient:
    """The default portrait, as it is and in a much darker skin."""
    portrait = default_portrait()
    landmarks = find_face(portrait, board.engine).landmarks
    darker = 255 * (portrait / 255) * request.param ** (np.array([0.7, 0.9, 1.0]) / 2.2)
    return Patient(board, darker.astype(np.uint8), landmarks)


def shoot(board, patient, folder, light, mode="still", **simulation) -> npt.NDArray[np.uint8]:
    board = board.model_copy(update={"simulation": board.simulation.model_copy(update=simulation)})
    page = PinPage(folder / "pins.page", list(board.lights))
    camera = SimulatedCamera(board, patient, folder / "pins.page")
    page.write(light, 1.0)
    profile = board.lights[light]
    exposure = camera.expose(mode, profile.exposure_us, profile.gain, time.monotonic_ns())
    picture = reflectance(board, light, exposure.counts(), exposure)
    camera.close()
    page.close()
    return picture


def test_a_still_face_has_not_moved_under_any_light_and_a_moved_one_has(
    board: Board, patient: Patient, tmp_path: Path
) -> None:
    checks = FrameChecks(board, find_face)
    seen = {light: checks.lit(light, shoot(board, patient, tmp_path, light)) for light in board.lights}
    assert set(seen.values()) == {None}, seen
    moved = shoot(board, patient, tmp_path, "cross", patient_moves_at=0, patient_moves_mm=12.0)
    assert checks.lit("cross", moved) == "moved"
    swayed = shoot(board, patient, tmp_path, "cross", patient_sways_mm=8.0)
    assert checks.lit("cross", swayed) == "blurred"
    nobody = shoot(board, patient, tmp_path, "cross", patient_leaves_at=0)
    assert checks.lit("cross", nobody) in ("too_dark", "moved")


@pytest.mark.parametrize("closed", [True, False])
def test_closed_eyes_are_told_from_open_ones(board: Board, patient: Patient, tmp_path: Path, closed) -> None:
    patient.eyes_closed = closed
    picture = shoot(board, patient, tmp_path, "white", "preview")
    patient.eyes_closed = False
    face = find_face(to_srgb(picture), board.engine)
    assert eyes_closed(picture, face) is closed
