"""A stage for capture sequences: the simulated board, made quick, with a patient before its camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware.capture.sequence import Sequence
from hardware.board import BOARDS, Board, load_board
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.patient import Patient
from tests.support.direct_lights import DirectLights
from tests.support.kiosk_daemons import small_board
from tests.support.stand_in_face import find_stand_in, landmarks, portrait


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """The simulated board with small pictures at 60 frames a second, no settling, and patience."""
    board = load_board(small_board(tmp_path_factory.mktemp("board")))
    still = board.camera.still.model_copy(update={"fps": 60.0})
    changes = {"still": still, "settle_ms": 5, "deadline_s": 60.0}
    return board.model_copy(update={"camera": board.camera.model_copy(update=changes)})


@pytest.fixture(scope="module")
def patient(plain: Board) -> Patient:
    return Patient(plain, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))


@pytest.fixture
def stage(
    plain: Board, patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Sequence]]:
    """`stage(…)`: a Sequence in front of the patient, on a board whose simulation is as given."""
    opened = []
    # What becomes of UV is not to depend on how busy this computer is.
    monkeypatch.setattr("firmware.capture.sequence._SEEN_CLOSED_S", 60.0)

    def build(find_face=find_stand_in, **simulation) -> Sequence:
        patient.eyes_closed = False
        board = plain.model_copy(update={"simulation": plain.simulation.model_copy(update=simulation)})
        lights = DirectLights(board, tmp_path)
        camera = SimulatedCamera(board, patient, tmp_path / "pins.page")
        opened.extend([lights, camera])
        return Sequence(board, camera, lights, lambda: None, find_face)

    yield build
    for item in reversed(opened):
        item.close()


@pytest.fixture
def board() -> Board:
    """The simulated board with the smallest pictures, whose camera lies on its side."""
    board = load_board(BOARDS / "simulated.toml")
    still = board.camera.still.model_copy(update={"width": 48, "height": 64, "fps": 50.0})
    preview = board.camera.preview.model_copy(update={"width": 24, "height": 32})
    changes = {"still": still, "preview": preview, "rotate_deg": 90, "deadline_s": 60.0}
    return board.model_copy(update={"camera": board.camera.model_copy(update=changes)})


@pytest.fixture
def impatient(board: Board) -> Board:
    """The same board, whose camera is given up soon."""
    return board.model_copy(update={"camera": board.camera.model_copy(update={"deadline_s": 0.4})})
