"""The capture daemon between the two phases of a session: where the face was, and how long that is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware.capture.client import CaptureClient
from firmware.capture.daemon import CaptureDaemon
from firmware.capture.frame_checks import MOVED_MM
from hardware.board import load_board
from hardware.face_mesh import FACE_WIDTH_MM
from hardware.simulated.patient import Patient
from tests.support.kiosk_daemons import EVERY_LIGHT, Daemon, consent, small_board, uv_allowance
from tests.support.stand_in_face import StandInFace, find_stand_in, landmarks, portrait


class Aside:
    """Finds the stand-in's face, `mm` aside of where it is."""

    mm = 0.0

    def __call__(self, picture, engine) -> StandInFace:
        face = find_stand_in(picture, engine)
        face.landmarks[:, 0] += self.mm / FACE_WIDTH_MM * 0.52 * picture.shape[1]
        return face


@pytest.fixture
def aside() -> Aside:
    return Aside()


@pytest.fixture
def missing(tmp_path: Path, aside: Aside) -> Iterator[Callable[[str, str], dict[str, str]]]:
    """`missing(session, phase)`: what a phase's Capture lacks, and why."""
    profile = small_board(tmp_path)
    board = load_board(profile)
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    lightd = Daemon("lightd", profile, tmp_path / "k")
    daemon = CaptureDaemon(board, tmp_path / "k", aside, lambda: patient)
    thread = threading.Thread(target=daemon.serve)
    thread.start()
    client = CaptureClient(tmp_path / "k" / "run" / "capture.sock", timeout=60)

    def take(session, phase) -> dict[str, str]:
        allowance = uv_allowance(session) if phase == "uv" else None
        return dict(client.capture(session, consent(), EVERY_LIGHT, allowance, None, phase=phase).missing)

    take.preview = lambda session: client.preview(session, consent())
    yield take
    daemon.stop()
    thread.join(60)
    lightd.end()


def test_a_patient_who_moved_between_the_phases_has_no_uv_picture_of_another_place(
    missing: Callable[[str, str], dict[str, str]], aside: Aside
) -> None:
    assert missing("s1", "lit") == {}
    aside.mm = 2 * MOVED_MM
    assert missing("s1", "uv") == {"uv365": "moved"}
    aside.mm = 0.0
    assert missing("s1", "uv") == {}


def test_a_preview_between_the_phases_does_not_forget_where_the_face_was(
    missing: Callable[[str, str], dict[str, str]], aside: Aside
) -> None:
    assert missing("s1", "lit") == {}
    missing.preview("s1")
    aside.mm = 2 * MOVED_MM
    assert missing("s1", "uv") == {"uv365": "moved"}
    missing.preview("s2")
    assert missing("s2", "uv") == {}


def test_nobody_is_compared_with_the_patient_before(
    missing: Callable[[str, str], dict[str, str]], aside: Aside
) -> None:
    assert missing("s1", "lit") == {}
    aside.mm = 2 * MOVED_MM
    assert missing("s2", "uv") == {}
    assert missing("s2", "lit") == {}
    assert missing("s2", "uv") == {}
