"""Open eyes, then closed ones: what a patient's whole visit leaves, on the simulated kiosk."""

from __future__ import annotations

import numpy as np
import pytest

from firmware.cameras.reflectance import to_srgb
from firmware.capture.eyes import CLOSED_ABOVE, lid_brightness
from hardware.capture import Capture
from kiosk_app.demo.patient import DemoPatient
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import Vault
from models.analysis.face import find_face
from tests.support.system import RunningSystem
from tests.support.visits import Asked, everything_arrived_once, records_of


@pytest.fixture(scope="module")
def running(running_with_uv: RunningSystem) -> RunningSystem:
    """With UV: it is what the second phase is for."""
    return running_with_uv


def newest_capture(running: RunningSystem) -> Capture:
    records = records_of(running)
    newest = records.latest()
    assert newest is not None
    vault = Vault(running.system.kiosk / "app" / "vault")
    return vault.get_capture(newest.id, records.dek(newest.id))


def test_eyes_are_open_in_every_picture_but_the_one_under_uv(running: RunningSystem) -> None:
    assert "eyes" in DemoPatient(running.system.kiosk_url).walk()
    capture = newest_capture(running)
    white = capture.frame("white")
    assert white is not None
    face = find_face(to_srgb(white.pixels), "ai-edge-litert")
    between_lids = {
        frame.light: lid_brightness(np.asarray(frame.pixels), face)
        for frame in capture.frames
        if frame.light != "dark"
    }
    closed = {light for light, brightness in between_lids.items() if brightness > CLOSED_ABOVE}
    assert closed == {"uv365"}, between_lids


def test_a_camera_killed_at_the_question_about_the_eyes_costs_the_uv_picture_only(
    running: RunningSystem,
) -> None:
    everything_arrived_once(running)
    before = len(running.clinic_scans())
    assert Asked(running, lambda: running.supervisor.kill("captured")).walk()[-1] == "done"
    running.start("captured")
    records = records_of(running)
    newest = records.latest()
    assert newest is not None
    assert newest.figures["missing"] == {"uv365": "unavailable"}
    everything_arrived_once(running)
    assert records.scan(newest.id).state == ScanState.STORED
    assert len(running.clinic_scans()) == before + 1
