"""What the clinic is told of a deleted scan: nothing of it is sent, or it is withdrawn once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any
from uuid import UUID, uuid5

import pytest

from firmware.capture.client import CaptureFault
from kiosk_app.kept.messages import Message
from kiosk_app.kept.states import GONE, ScanState
from kiosk_app.scanning.delivery import Delivery
from sync.wire.messages import WithdrawMessages
from tests.support.kiosk_bench import Bench
from tests.support.scanning import (
    consented,
    do,
    nothing_is_kept,
    shred_it,
    state_of,
)


def test_shredding_an_unsent_scan_takes_it_out_of_the_outbox(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT
    assert state_of(bench, scan) == ScanState.SHREDDED
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


def test_who_waits_for_a_deletion_does_not_wait_for_the_messages_of_others(bench: Bench) -> None:
    other, scan = consented(bench), consented(bench)
    do(bench, other)
    do(bench, scan)
    [of_the_other] = bench.kiosk.records.messages.carriers(other)
    bench.outbox.states[of_the_other] = "stored"
    shred_it(bench, scan)
    assert state_of(bench, other) == ScanState.HANDED_OVER
    bench.kiosk.courier.run_once()
    assert state_of(bench, other) == ScanState.STORED


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


@pytest.mark.parametrize("restarted", [False, True])
def test_nothing_is_withdrawn_of_a_scan_that_was_never_sealed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """It is deleted without an outbox, which is asked for its result after a restart: it may know of one."""
    scan = consented(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.analyst, "fail", OSError("no memory"))
        do(bench, scan)
    assert state_of(bench, scan) == ScanState.CAPTURED
    if restarted:
        bench.again()
    bench.outbox.there = False
    assert shred_it(bench, scan) is (Delivery.UNTOLD if restarted else Delivery.NOTHING_SENT)
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


@pytest.mark.parametrize("given_up", [True, False])
def test_nothing_is_sent_of_a_scan_without_pictures_whether_there_is_an_outbox_or_not(
    bench: Bench, given_up: bool
) -> None:
    bench.outbox.there = False
    scan = consented(bench)
    if given_up:
        bench.camera.fault = CaptureFault("camera_frozen", "It gave no picture.")
        do(bench, scan)
        assert state_of(bench, scan) == ScanState.ABANDONED
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}


@pytest.mark.parametrize("state", GONE)
def test_the_outbox_is_asked_for_the_result_of_a_scan_that_is_gone_and_nobody_asked_for_before(
    bench: Bench, state: ScanState
) -> None:
    scan = consented(bench)
    with closing(sqlite3.connect(bench.kiosk.records.path)) as db, db:
        db.execute("UPDATE scans SET state = ?", (state,))
    bench.again()
    bench.outbox.states[uuid5(scan, "result 0")] = "stored"
    assert shred_it(bench, scan) is Delivery.TELLING
    assert [kind for kind, _ in bench.outbox.submitted.values()] == ["withdraw"]


def test_a_scan_that_is_deleted_while_it_is_being_sealed_is_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, add = bench.kiosk.records, bench.kiosk.records.messages.add

    def deleted_meanwhile(scan: UUID, *rest: Any, **after: Any) -> Message:
        bench.kiosk.shred(scan)
        return add(scan, *rest, **after)

    monkeypatch.setattr(records.messages, "add", deleted_meanwhile)
    scan = consented(bench)
    do(bench, scan)
    bench.kiosk.courier.run_once()
    assert (records.scan(scan).state, bench.outbox.submitted) == (ScanState.SHREDDED, {})
    assert records.messages.in_states() == []
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


def test_a_result_to_be_sealed_again_of_a_scan_that_an_earlier_version_deleted_is_withdrawn(
    bench: Bench,
) -> None:
    scan = consented(bench)
    do(bench, scan)
    with sqlite3.connect(bench.kiosk.records.path) as db:
        db.execute("UPDATE scans SET state = 'shredded', wrapped_dek = NULL")
        db.execute("UPDATE messages SET state = 'reseal'")
        db.execute("DROP INDEX messages_by_scan")
        db.execute("PRAGMA user_version = 2")
    [message] = bench.again().records.messages.in_states()
    assert (message.scan, message.state) == (scan, "discarding")
