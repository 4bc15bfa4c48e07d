"""The work on one scan: once captured there is one result, whatever crashes; before that there is nothing."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest

from firmware.capture_client import CaptureFault
from firmware.stamps import ConsentStamp, UvAllowance
from kiosk_app import records as states
from kiosk_app.analyst import AnalysisFailed
from kiosk_app.delivery import Delivery
from kiosk_app.journey import Progress
from kiosk_app.keyring import KeyGone
from kiosk_app.shred import shred
from kiosk_app.vault import VaultError, VaultFull
from sync.kiosk.client import OutboxRefused
from sync.wire.messages import Result, WithdrawMessages
from tests.support.kiosk_bench import Bench
from tests.support.waiting import wait_until

STAMP = ConsentStamp("1", "en", datetime.now(timezone.utc))


def consented(bench: Bench) -> UUID:
    return bench.kiosk.records.create(STAMP.to_dict(), "demo-1")


def do(bench: Bench, scan: UUID) -> Progress:
    progress = Progress()
    bench.kiosk.work.do(scan, STAMP, False, progress)
    return progress


def state_of(bench: Bench, scan: UUID) -> str:
    return bench.kiosk.records.scan(scan).state


def nothing_is_kept(bench: Bench, scan: UUID) -> bool:
    with pytest.raises(KeyGone):
        bench.kiosk.records.dek(scan)
    return bench.kiosk.vault.items(scan) == [] and not bench.outbox.submitted


def test_a_scan_ends_as_an_envelope_that_only_the_clinic_opens(bench: Bench) -> None:
    scan = consented(bench)
    assert do(bench, scan).state == "ready"
    assert state_of(bench, scan) == states.HANDED_OVER
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


def test_the_receipt_is_what_makes_a_scan_stored(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    (message,) = bench.outbox.submitted
    for said in ("waiting", "sent"):
        bench.outbox.states[message] = said
        bench.kiosk.courier.run_once()
        assert state_of(bench, scan) == states.HANDED_OVER
    bench.outbox.states[message] = "stored"
    bench.kiosk.courier.run_once()
    assert state_of(bench, scan) == states.STORED


def test_a_camera_fault_keeps_nothing(bench: Bench) -> None:
    scan = consented(bench)
    bench.camera.fault = CaptureFault("camera_frozen", "frozen")
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "camera_frozen")
    assert state_of(bench, scan) == states.ABANDONED
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
    thread.join(10)
    assert state_of(bench, scan) == states.ABANDONED
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
    assert state_of(bench, scan) == states.ABANDONED
    assert nothing_is_kept(bench, scan)
    assert bench.outbox.submitted == {}


def test_a_patient_who_leaves_after_the_pictures_still_has_a_result(bench: Bench) -> None:
    scan, progress = consented(bench), Progress()
    bench.analyst.go.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, progress)
    wait_until(lambda: state_of(bench, scan) == states.CAPTURED)
    bench.kiosk.work.leave(scan)
    bench.analyst.go.set()
    thread.join(10)
    assert state_of(bench, scan) == states.HANDED_OVER


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
    thread.join(10)
    assert progress.state == "ready"
    assert state_of(bench, scan) == states.HANDED_OVER
    assert bench.kiosk.records.scan(scan).figures["missing"] == {"uv365": code}
    assert "frame.white" in bench.kiosk.vault.items(scan)


def test_uv_that_the_lights_refuse_is_not_asked_for_again(bench: Bench) -> None:
    scan = consented(bench)
    progress, thread = asked(bench, scan)
    bench.camera.uv_says = ["dose_per_day"]
    progress.answer(UvAllowance("demo-1", True, time.time()))
    thread.join(10)
    assert bench.camera.phases() == [("lit", False), ("uv", True)]
    assert bench.kiosk.records.scan(scan).figures["missing"] == {"uv365": "dose_per_day"}


def test_a_question_that_nobody_answers_ends_in_a_scan_without_uv(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiosk_app.scan_work.ASK_S", 0.0)
    scan, progress = consented(bench), Progress()
    bench.kiosk.work.do(scan, STAMP, True, progress)
    assert progress.state == "ready"
    assert bench.camera.phases() == [("lit", False)]


def test_a_patient_who_leaves_at_the_question_leaves_nothing(bench: Bench) -> None:
    scan = consented(bench)
    _, thread = asked(bench, scan)
    bench.kiosk.work.leave(scan)
    thread.join(10)
    assert state_of(bench, scan) == states.ABANDONED
    assert nothing_is_kept(bench, scan)


def test_a_crash_before_the_pictures_are_kept_leaves_nothing(bench: Bench) -> None:
    scan = consented(bench)
    kiosk = bench.again()
    kiosk.work.recover()
    assert state_of(bench, scan) == states.ABANDONED
    assert nothing_is_kept(bench, scan)


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        ("analyst", "measure"),
        ("vault", "add"),
        ("records", "keep_findings"),
        ("records", "add_message"),
        ("outbox", "submit"),
        ("records", "settle"),
    ],
)
def test_after_a_crash_there_is_exactly_one_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: str, step: str
) -> None:
    scan = consented(bench)
    part = getattr(bench if owner in ("analyst", "outbox") else bench.kiosk, owner)

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
    assert state_of(bench, scan) == states.HANDED_OVER
    assert len(bench.outbox.submitted) == 1
    assert len(kiosk.records.messages()) == 1


def test_a_failed_analysis_is_tried_again_and_not_for_ever(bench: Bench) -> None:
    scan = consented(bench)
    bench.analyst.fail = AnalysisFailed("died")
    assert do(bench, scan).reason == "analysis_failed"
    assert state_of(bench, scan) == states.CAPTURED
    assert [bench.kiosk.work.go_on() for _ in range(5)] == [0] * 5
    bench.analyst.fail = None
    assert bench.kiosk.work.go_on() == 0  # three tries were had in this run
    bench.again().work.go_on()
    assert state_of(bench, scan) == states.HANDED_OVER


def test_without_an_outbox_the_result_waits_in_the_records(bench: Bench) -> None:
    scan = consented(bench)
    bench.outbox.there = False
    assert do(bench, scan).state == "ready"
    assert state_of(bench, scan) == states.SEALED
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert state_of(bench, scan) == states.HANDED_OVER


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
    assert state_of(bench, scan) == states.HANDED_OVER


def test_an_old_key_set_does_not_come_back(bench: Bench) -> None:
    bench.clinic.publish(bench.state, 5)
    first = consented(bench)
    do(bench, first)
    bench.clinic.publish(bench.state, 4)
    second = consented(bench)
    assert do(bench, second).state == "ready"
    assert state_of(bench, second) == states.ANALYSED  # kept, not sealed to a retired key
    bench.clinic.publish(bench.state, 6)
    bench.kiosk.work.go_on()
    assert state_of(bench, second) == states.HANDED_OVER


def shred_it(bench: Bench, scan: UUID) -> Delivery:
    kiosk = bench.kiosk
    return shred(scan, kiosk.records, kiosk.vault, kiosk.courier, bench.outbox, by="staff").clinic  # type: ignore[arg-type]


def test_shredding_an_unsent_scan_takes_it_out_of_the_outbox(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT
    assert state_of(bench, scan) == states.SHREDDED
    assert nothing_is_kept(bench, scan)
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT  # again changes nothing


@pytest.mark.parametrize("said", ["sent", "stored", "unknown"])
def test_shredding_a_sent_scan_withdraws_it_once(bench: Bench, said: str) -> None:
    scan = consented(bench)
    do(bench, scan)
    (first,) = bench.outbox.submitted
    bench.outbox.states[first] = said
    if said == "unknown":
        del bench.outbox.states[first]
    assert shred_it(bench, scan) is Delivery.TELLING
    assert shred_it(bench, scan) is Delivery.TELLING
    ((kind, envelope),) = (sent for known, sent in bench.outbox.submitted.items() if known != first)
    message = bench.clinic.open(envelope)
    assert kind == "withdraw"
    assert isinstance(message, WithdrawMessages)
    assert (message.scan, message.reason, message.messages) == (scan, "staff", (first,))


def test_shredding_without_an_outbox_is_finished_later(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    bench.outbox.there = False
    assert shred_it(bench, scan) is Delivery.UNTOLD
    assert bench.kiosk.vault.items(scan) == []
    bench.outbox.there = True
    bench.again().courier.run_once()
    assert not bench.outbox.submitted
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


def test_a_scan_is_worked_on_by_one_thread_only(bench: Bench) -> None:
    scan, progress = consented(bench), Progress()
    bench.analyst.go.clear()
    thread = bench.kiosk.work.start(scan, STAMP, False, progress)
    wait_until(lambda: state_of(bench, scan) == states.CAPTURED)
    other = threading.Thread(target=bench.kiosk.work.go_on)
    other.start()
    other.join(10)
    bench.analyst.go.set()
    thread.join(10)
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
    assert state_of(bench, scan) == states.ABANDONED
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
    assert state_of(bench, scan) == states.CAPTURED
    logged = "".join(capsys.readouterr())
    assert "ZeroDivisionError" in logged
    assert "freckle" not in logged
    assert bench.kiosk.work.go_on() == 1


def test_pictures_that_cannot_be_read_back_are_said_to_be_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_args: object) -> None:
        raise VaultError("unreadable")

    monkeypatch.setattr(bench.kiosk.vault, "get_capture", unreadable)
    assert do(bench, consented(bench)).reason == "analysis_failed"


def test_a_full_outbox_is_made_room_in_by_a_scan_that_was_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, deleted = [consented(bench) for _ in range(2)]
    do(bench, deleted)
    bench.outbox.there = False
    do(bench, kept)
    bench.outbox.there = True
    bench.kiosk.records.forget(deleted, states.SHREDDED, "patient")
    submit = bench.outbox.submit

    def full(message: UUID, kind: str, envelope: bytes) -> None:
        if "waiting" in bench.outbox.states.values():
            raise OutboxRefused("full", "The outbox is full.")
        submit(message, kind, envelope)

    monkeypatch.setattr(bench.outbox, "submit", full)
    assert bench.kiosk.courier.run_once()
    assert "waiting" not in bench.outbox.states.values()
    assert bench.kiosk.courier.run_once()
    assert state_of(bench, kept) == states.HANDED_OVER


@pytest.mark.parametrize("step", ["submit", "state", "discard"])
def test_a_message_that_raises_whatever_it_is_keeps_no_other_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    bench.outbox.there = step != "submit"
    scans = [consented(bench) for _ in range(2)]
    for scan in scans:
        do(bench, scan)
    bench.outbox.there = True
    if step == "discard":
        for scan in scans:
            bench.kiosk.records.forget(scan, states.SHREDDED, "patient")
    else:
        bench.outbox.states |= {message: "stored" for message in bench.outbox.submitted}
    poison, ask = bench.kiosk.records.messages()[0].id, getattr(bench.outbox, step)

    def trip(message: UUID, *more: object) -> object:
        if message == poison:
            raise ZeroDivisionError("ref-secret")
        return ask(message, *more)

    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, step, trip)
        assert bench.kiosk.courier.run_once()
    moved = {"submit": states.SUBMITTED, "state": states.STORED, "discard": states.DISCARDED}[step]
    before, after = bench.kiosk.records.messages()
    assert (before.state == moved, after.state == moved) == (False, True)
    said = "".join(capsys.readouterr())
    assert "ZeroDivisionError" in said and "ref-secret" not in said
    assert bench.kiosk.courier.run_once()
    assert bench.kiosk.records.messages()[0].state == moved
