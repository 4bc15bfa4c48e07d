"""A patient who leaves before, at or after the question about UV, and what is left of the scan."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

import pytest

from firmware.capture.client import CaptureFault
from firmware.line.stamps import UvAllowance
from kiosk_app.kept.states import ScanState
from kiosk_app.scanning.progress import Progress
from tests.support.kiosk_bench import Bench
from tests.support.scanning import STAMP, consented, do, nothing_is_kept, state_of
from tests.support.waiting import wait_until


def test_a_patient_who_leaves_before_the_pictures_leaves_nothing(bench: Bench) -> None:
    scan, progress = consented(bench), Progress()
    bench.camera.hold.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, progress)
    wait_until(lambda: progress.done == 4, "four pictures taken")
    bench.kiosk.work.leave(scan)
    bench.camera.hold.set()
    thread.join(60)
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)


def test_a_patient_who_leaves_while_the_pictures_are_being_kept_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, vault = consented(bench), bench.kiosk.vault
    keep = vault.put_capture

    def leaves_meanwhile(*capture: Any) -> int:
        size = keep(*capture)
        bench.kiosk.work.leave(scan)
        return size

    monkeypatch.setattr(vault, "put_capture", leaves_meanwhile)
    do(bench, scan)
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)
    assert bench.outbox.submitted == {}


def test_a_patient_who_leaves_after_the_pictures_still_has_a_result(bench: Bench) -> None:
    scan, progress = consented(bench), Progress()
    bench.analyst.go.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, progress)
    wait_until(lambda: state_of(bench, scan) == ScanState.CAPTURED, "the pictures kept")
    bench.kiosk.work.leave(scan)
    bench.analyst.go.set()
    thread.join(60)
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def asked(bench: Bench, scan: UUID) -> tuple[Progress, threading.Thread]:
    """A scan whose lit pictures are there, and that waits for the patient's word."""
    progress = Progress()
    thread = bench.kiosk.work.start(scan, STAMP, True, progress)
    wait_until(lambda: progress.state == "asking", "the patient asked about the eyes")
    return progress, thread


@pytest.mark.parametrize(
    "code", ["unavailable", "camera_frozen", "light_fault", "light_lost", "deadline", "busy"]
)
def test_a_camera_lost_after_the_lit_pictures_costs_the_uv_picture_only(bench: Bench, code: str) -> None:
    scan = consented(bench)
    progress, thread = asked(bench, scan)
    bench.camera.uv_fault = CaptureFault(code, "gone")
    progress.answer(UvAllowance("demo-1", True, time.time()))
    thread.join(60)
    assert progress.state == "ready"
    assert state_of(bench, scan) == ScanState.HANDED_OVER
    assert bench.kiosk.records.scan(scan).figures["missing"] == {"uv365": code}
    assert "frame.white" in bench.kiosk.vault.items(scan)


def test_uv_that_the_lights_refuse_is_not_asked_for_again(bench: Bench) -> None:
    scan = consented(bench)
    progress, thread = asked(bench, scan)
    bench.camera.uv_says = ["dose_per_day"]
    progress.answer(UvAllowance("demo-1", True, time.time()))
    thread.join(60)
    assert bench.camera.phases() == [("lit", False), ("uv", True)]
    assert bench.kiosk.records.scan(scan).figures["missing"] == {"uv365": "dose_per_day"}


def test_a_question_that_nobody_answers_ends_in_a_scan_without_uv(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiosk_app.scanning.taking.ASK_S", 0.0)
    scan, progress = consented(bench), Progress()
    bench.kiosk.work.do(scan, STAMP, True, progress)
    assert progress.state == "ready"
    assert bench.camera.phases() == [("lit", False)]


def test_a_patient_who_leaves_at_the_question_leaves_nothing(bench: Bench) -> None:
    scan = consented(bench)
    _, thread = asked(bench, scan)
    bench.kiosk.work.leave(scan)
    thread.join(60)
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)
