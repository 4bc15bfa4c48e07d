"""The work on one scan: once captured there is one result, whatever crashes; before that there is nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest

from firmware.capture.client import CaptureFault
from firmware.line.stamps import UvAllowance
from hardware.board import BOARDS, load_board
from hardware.capture import Capture
from kiosk_app import serve_cli
from kiosk_app.kept.keyring import KeyringBusy
from kiosk_app.kept.records_file import RecordsFull, RecordsHeld, RecordsUnusable
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultError, VaultFull
from kiosk_app.patient import sentences
from kiosk_app.scanning import scan_work
from kiosk_app.scanning.analyst import AnalysisFailed, Outcome
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


def test_a_patient_who_leaves_before_the_pictures_leaves_nothing(bench: Bench) -> None:
    scan, progress = consented(bench), Progress()
    bench.camera.hold.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, progress)
    wait_until(lambda: progress.done == 4)
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
    wait_until(lambda: state_of(bench, scan) == ScanState.CAPTURED)
    bench.kiosk.work.leave(scan)
    bench.analyst.go.set()
    thread.join(60)
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def asked(bench: Bench, scan: UUID) -> tuple[Progress, threading.Thread]:
    """A scan whose lit pictures are there, and that waits for the patient's word."""
    progress = Progress()
    thread = bench.kiosk.work.start(scan, STAMP, True, progress)
    wait_until(lambda: progress.state == "asking")
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

    def noting(capture: Capture, *more: Any) -> Outcome:
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
    wait_until(lambda: state_of(bench, scan) == ScanState.CAPTURED)
    other = threading.Thread(target=bench.kiosk.work.go_on)
    other.start()
    other.join(60)
    bench.analyst.go.set()
    thread.join(60)
    assert bench.analyst.measured == [scan]


def unforeseen(*_args: object, **_kwargs: object) -> None:
    raise ZeroDivisionError("a freckle of 41.25 mm2")


def test_an_unforeseen_error_before_the_pictures_are_kept_ends_the_spinner_and_keeps_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.camera, "capture", unforeseen)
    scan = consented(bench)
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "not_measurable")
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)


def test_an_unforeseen_error_in_the_analysis_ends_the_spinner_and_names_its_type_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = consented(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.analyst, "measure", unforeseen)
        progress = do(bench, scan)
        assert bench.kiosk.work.go_on() == 0
    assert (progress.state, progress.reason) == ("failed", "analysis_failed")
    assert state_of(bench, scan) == ScanState.CAPTURED
    logged = "".join(capsys.readouterr())
    assert "ZeroDivisionError" in logged
    assert "freckle" not in logged
    bench.kiosk.work._failed.clear()  # it waits before the next try
    assert bench.kiosk.work.go_on() == 1


@pytest.mark.parametrize("fault", [VaultFull("full"), VaultError("broken")])
def test_pictures_are_said_to_be_kept_where_only_what_was_measured_of_them_could_not_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: VaultError
) -> None:
    def refuse(*_args: object) -> int:
        raise fault

    scan = consented(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.vault, "add", refuse)
        assert do(bench, scan).reason == "analysis_failed"
    assert state_of(bench, scan) == ScanState.CAPTURED
    bench.again().work.go_on()
    assert state_of(bench, scan) == ScanState.HANDED_OVER


@pytest.mark.parametrize("kept", [True, False])
def test_where_nobody_can_tell_whether_pictures_are_kept_neither_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    note = bench.kiosk.records.advance
    scan = consented(bench)
    with monkeypatch.context() as patch:

        def breaks(*args: Any, **figures: Any) -> None:
            if kept:
                note(*args, **figures)
            patch.setattr(bench.kiosk.records, "_one", held)
            held()

        patch.setattr(bench.kiosk.records, "advance", breaks)
        progress = do(bench, scan)
    said = sentences.trouble(progress.reason)
    assert "cannot tell just now whether your pictures were put away" in str(said.happened)
    assert not said.again
    bench.kiosk.work.go_on()
    assert state_of(bench, scan) == (ScanState.HANDED_OVER if kept else ScanState.ABANDONED)


def test_a_scan_that_is_at_work_already_says_so(bench: Bench) -> None:
    scan, first = consented(bench), Progress()
    bench.analyst.go.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, first)
    wait_until(lambda: state_of(bench, scan) == ScanState.CAPTURED)
    assert do(bench, scan).reason == "busy"
    bench.analyst.go.set()
    thread.join(60)
    assert first.state == "ready"


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        (RecordsHeld("held"), "storage"),
        (KeyringBusy("held"), "storage"),
        (RecordsFull("full"), "storage_full"),
        (VaultError("unreadable"), "storage"),
        (VaultFull("full"), "storage_full"),
    ],
)
def test_only_a_full_disk_is_said_to_be_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: Exception, reason: str
) -> None:
    def fail(*_args: object) -> int:
        raise fails

    monkeypatch.setattr(bench.kiosk.vault, "put_capture", fail)
    assert do(bench, consented(bench)).reason == reason
    full = "no room" in str(sentences.trouble(reason).happened)
    assert (full, sentences.trouble(reason).again) == (reason == "storage_full", reason != "storage_full")


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
