"""The work on one scan: once captured there is one result, whatever crashes; before that there is nothing."""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest

from firmware.capture.client import CaptureFault
from hardware.board import BOARDS, load_board
from hardware.capture import Capture
from kiosk_app import serve_cli
from kiosk_app.kept.records_file import RecordsUnusable
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultFull
from kiosk_app.scanning import scan_work
from kiosk_app.scanning.analyst import AnalysisFailed, AnalysisOutcome
from kiosk_app.scanning.finishing import CLOCK_UNSURE
from kiosk_app.scanning.progress import Progress
from sync.clinic.web import words
from sync.wire.messages import Result
from tests.support.kiosk_bench import Bench
from tests.support.scanning import STAMP, consented, do, held, nothing_is_kept, state_of
from tests.support.waiting import wait_until


def test_a_scan_ends_as_an_envelope_that_only_the_clinic_opens(bench: Bench) -> None:
    scan = consented(bench)
    assert do(bench, scan).state == "ready"
    assert state_of(bench, scan) == ScanState.HANDED_OVER
    ((kind, envelope),) = bench.outbox.submitted.values()
    message = bench.clinic.open(envelope)
    assert kind == "result"
    assert isinstance(message, Result)
    assert (message.scan, message.patient_reference, message.simulated) == (scan, "demo-1", True)
    assert message.consent.language == "en"
    assert len(message.findings.findings) == 27
    assert "frame.white" in bench.kiosk.vault.items(scan)
    summary = bench.kiosk.records.summary(scan)
    assert {"capture", "vault", "analysis", "seal", "submit"} <= set(summary["seconds"])
    assert summary["sealed_bytes"] == len(envelope)


def test_a_result_says_when_its_pictures_were_taken_not_when_the_patient_agreed(bench: Bench) -> None:
    scan = consented(bench)
    agreed = datetime.now(timezone.utc)
    do(bench, scan)
    ((_, envelope),) = bench.outbox.submitted.values()
    message = bench.clinic.open(envelope)
    assert isinstance(message, Result)
    assert message.consent.at <= agreed <= message.captured_at <= datetime.now(timezone.utc)


@pytest.mark.parametrize("knows", [True, False])
def test_a_result_says_where_nothing_vouched_for_the_time_of_its_pictures(bench: Bench, knows: bool) -> None:
    bench.kiosk.work._taking._knows_the_time = lambda: knows
    scan = consented(bench)
    do(bench, scan)
    [(_, envelope)] = bench.outbox.submitted.values()
    message = bench.clinic.open(envelope)
    assert isinstance(message, Result)
    assert (CLOCK_UNSURE in message.findings.quality) is not knows
    assert CLOCK_UNSURE in words.QUALITY


def test_only_a_simulated_board_takes_its_clock_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_cli, "vouched_by", lambda _wall: None)
    assert not serve_cli.knows_the_time(load_board(BOARDS / "laptop.toml"))()
    assert serve_cli.knows_the_time(load_board(BOARDS / "simulated.toml"))()


def test_a_camera_fault_keeps_nothing(bench: Bench) -> None:
    scan = consented(bench)
    bench.camera.fault = CaptureFault("camera_frozen", "frozen")
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "camera_frozen")
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)


def test_a_full_disk_keeps_nothing_and_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise VaultFull("full")

    scan = consented(bench)
    monkeypatch.setattr(bench.kiosk.vault, "put_capture", full)
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "storage_full")
    assert nothing_is_kept(bench, scan)


def test_a_refused_capture_is_destroyed(bench: Bench) -> None:
    scan = consented(bench)
    bench.analyst.refuse = "no_face"
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "no_face")
    assert bench.kiosk.records.scan(scan).reason == "no_face"
    assert nothing_is_kept(bench, scan)


class Watched(Progress):
    """Progress that notes what a page could read as the reason at the moment of a failure."""

    reasons: list[str | None]

    def __setattr__(self, name: str, value: object) -> None:
        if (name, value) == ("state", "failed"):
            self.reasons.append(self.reason)
        super().__setattr__(name, value)


@pytest.mark.parametrize(
    ("befalls", "reason"),
    [
        ({"refuse": "no_face"}, "no_face"),
        ({"fail": AnalysisFailed("ended")}, "analysis_failed"),
        ({"fail": RuntimeError("bug")}, "analysis_failed"),
    ],
)
def test_a_failed_scan_never_shows_itself_without_its_reason(
    bench: Bench, befalls: dict[str, object], reason: str
) -> None:
    vars(bench.analyst).update(befalls)
    progress = Watched()
    progress.reasons = []
    bench.kiosk.work.do(consented(bench), STAMP, False, progress)
    assert progress.reasons == [reason]


def test_a_crash_before_the_pictures_are_kept_leaves_nothing(bench: Bench) -> None:
    scan = consented(bench)
    kiosk = bench.again()
    kiosk.work.recover()
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        ("analyst", "measure"),
        ("vault", "add"),
        ("records", "keep_findings"),
        ("messages", "add"),
        ("outbox", "submit"),
        ("messages", "settle"),
    ],
)
def test_after_a_crash_there_is_exactly_one_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: str, step: str
) -> None:
    scan = consented(bench)
    owners = {"messages": bench.kiosk.records, "analyst": bench, "outbox": bench}
    part = getattr(owners.get(owner, bench.kiosk), owner)

    def power_loss(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(part, step, power_loss)
        with pytest.raises(KeyboardInterrupt):
            do(bench, scan)
    kiosk = bench.again()
    kiosk.work.recover()
    kiosk.work.go_on()
    kiosk.courier.run_once()
    assert state_of(bench, scan) == ScanState.HANDED_OVER
    assert len(bench.outbox.submitted) == 1
    assert len(kiosk.records.messages.in_states()) == 1


def test_a_failed_analysis_is_tried_again_and_not_for_ever(bench: Bench) -> None:
    scan = consented(bench)
    bench.analyst.fail = AnalysisFailed("died")
    assert do(bench, scan).reason == "analysis_failed"
    assert state_of(bench, scan) == ScanState.CAPTURED
    assert [bench.kiosk.work.go_on() for _ in range(5)] == [0] * 5
    bench.analyst.fail = None
    assert bench.kiosk.work.go_on() == 0  # three tries were had in this run
    bench.again().work.go_on()
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def test_a_result_sealed_to_a_retired_key_is_sealed_again(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    (first,) = bench.outbox.submitted
    bench.outbox.states[first] = "reseal"
    bench.kiosk.courier.run_once()
    bench.kiosk.work.go_on()
    second = next(known for known in bench.outbox.submitted if known != first)
    message = bench.clinic.open(bench.outbox.submitted[second][1])
    assert isinstance(message, Result)
    assert message.supersedes == first
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def test_a_scan_is_measured_as_of_the_time_of_its_pictures_however_late(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Capture] = []
    measure = bench.analyst.measure

    def noting(capture: Capture, *more: Any) -> AnalysisOutcome:
        given.append(capture)
        return measure(capture, *more)

    monkeypatch.setattr(bench.analyst, "measure", noting)
    scan = consented(bench)
    bench.analyst.fail = AnalysisFailed("the kiosk was switched off")
    do(bench, scan)
    bench.analyst.fail = None
    bench.again().work.go_on()
    noted = datetime.fromisoformat(bench.kiosk.records.scan(scan).figures["captured_at"])
    assert [capture.captured_at for capture in given] == [noted] * 2


def test_an_old_key_set_does_not_come_back(bench: Bench) -> None:
    bench.clinic.publish(bench.state, 5)
    first = consented(bench)
    do(bench, first)
    bench.clinic.publish(bench.state, 4)
    second = consented(bench)
    assert do(bench, second).state == "ready"
    assert state_of(bench, second) == ScanState.ANALYSED  # kept, not sealed to a retired key
    bench.clinic.publish(bench.state, 6)
    bench.kiosk.work.go_on()
    assert state_of(bench, second) == ScanState.HANDED_OVER


def test_a_scan_is_worked_on_by_one_thread_only(bench: Bench) -> None:
    scan, progress = consented(bench), Progress()
    bench.analyst.go.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, progress)
    wait_until(lambda: state_of(bench, scan) == ScanState.CAPTURED, "the pictures kept")
    other = threading.Thread(target=bench.kiosk.work.go_on)
    other.start()
    other.join(60)
    bench.analyst.go.set()
    thread.join(60)
    assert bench.analyst.measured == [scan]


def test_a_scan_that_is_at_work_already_says_so(bench: Bench) -> None:
    scan, first = consented(bench), Progress()
    bench.analyst.go.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, first)
    wait_until(lambda: state_of(bench, scan) == ScanState.CAPTURED, "the pictures kept")
    assert do(bench, scan).reason == "busy"
    bench.analyst.go.set()
    thread.join(60)
    assert first.state == "ready"


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("held_by", ["keys", "records"])
def test_waiting_for_another_process_counts_no_try_and_ends_the_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], held_by: str
) -> None:
    scans = [consented(bench) for _ in range(2)]
    bench.analyst.fail = AnalysisFailed("died")
    for scan in scans:
        do(bench, scan)
    bench.analyst.fail = None
    capsys.readouterr()
    with monkeypatch.context() as patch:
        keys = bench.kiosk.records.keyring.lock() if held_by == "keys" else contextlib.nullcontext()
        if held_by == "records":
            patch.setattr(bench.kiosk.records, "keep_findings", held)
        with keys:
            assert [bench.kiosk.work.go_on() for _ in range(4)] == [0] * 4
    assert "".join(capsys.readouterr()).count("round_ended") == 1, "it is told once"
    assert bench.kiosk.work.go_on() == 2
    assert [state_of(bench, scan) for scan in scans] == [ScanState.HANDED_OVER] * 2


def test_a_round_that_has_been_long_begins_no_other_scan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many that wait after a crash, each measured for a minute, the watchdog would think that it hangs."""
    monkeypatch.setattr(scan_work, "ENOUGH_S", 0.0)
    bench.analyst.fail = AnalysisFailed("died")
    scans = [consented(bench) for _ in range(3)]
    for scan in scans:
        do(bench, scan)
    bench.analyst.fail = None
    assert [bench.kiosk.work.go_on() for _ in range(4)] == [1, 1, 1, 0]
    assert [state_of(bench, scan) for scan in scans] == [ScanState.HANDED_OVER] * 3


@pytest.mark.parametrize("wait_s", [0.0, 600.0])
def test_a_scan_whose_records_fail_again_and_again_keeps_no_other_from_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_s: float
) -> None:
    """And measured at each round it would keep the processor from the next patient."""
    monkeypatch.setattr(scan_work, "FIRST_AGAIN_S", wait_s)
    poison, other = [consented(bench) for _ in range(2)]
    bench.analyst.fail = AnalysisFailed("died")
    for scan in (poison, other):
        do(bench, scan)
    bench.analyst.fail, keep, tries = None, bench.kiosk.records.keep_findings, []

    def damaged(scan: UUID, *findings: Any, **figures: Any) -> None:
        if scan == poison:
            tries.append(scan)
            raise RecordsUnusable("The kiosk's records cannot be used: the file is damaged.")
        keep(scan, *findings, **figures)

    monkeypatch.setattr(bench.kiosk.records, "keep_findings", damaged)
    assert sum(bench.kiosk.work.go_on() for _ in range(5)) == 1
    assert (state_of(bench, poison), state_of(bench, other)) == (ScanState.CAPTURED, ScanState.HANDED_OVER)
    assert len(tries) == (1 if wait_s else 5)


def test_what_could_not_be_kept_is_not_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = consented(bench)
    bench.analyst.fail = AnalysisFailed("died")
    do(bench, scan)
    bench.analyst.fail = None
    monkeypatch.setattr(bench.kiosk.records, "note", held)
    assert [bench.kiosk.work.go_on() for _ in range(3)] == [0, 0, 0]
    assert bench.analyst.measured == []
