"""The courier: every message has its turn, whatever befalls another one, the records or the outbox."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection
from typing import Any
from uuid import UUID

import pytest

from kiosk_app.kept import records_file
from kiosk_app.kept.messages import Message
from kiosk_app.kept.records_file import RecordsError, RecordsFull, RecordsHeld, RecordsUnusable
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning import courier
from kiosk_app.scanning.delivery import Delivery
from sync.kiosk.client import OutboxRefused
from tests.support.kiosk_bench import Bench, FakeOutbox
from tests.support.scanning import consented, do, held, state_of


def test_the_receipt_is_what_makes_a_scan_stored(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    (message,) = bench.outbox.submitted
    for said in ("waiting", "sent"):
        bench.outbox.states[message] = said
        bench.kiosk.courier.run_once()
        assert state_of(bench, scan) == ScanState.HANDED_OVER
    bench.outbox.states[message] = "stored"
    bench.kiosk.courier.run_once()
    assert state_of(bench, scan) == ScanState.STORED


def test_without_an_outbox_the_result_waits_in_the_records(bench: Bench) -> None:
    scan = consented(bench)
    bench.outbox.there = False
    assert do(bench, scan).state == "ready"
    assert state_of(bench, scan) == ScanState.SEALED
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def test_a_full_outbox_is_made_room_in_by_a_scan_that_was_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, deleted = [consented(bench) for _ in range(2)]
    do(bench, deleted)
    bench.outbox.there = False
    do(bench, kept)
    bench.outbox.there = True
    bench.kiosk.records.forget(deleted, ScanState.SHREDDED, "patient")
    submit = bench.outbox.submit

    def full(message: UUID, kind: str, envelope: bytes, **_: object) -> None:
        if "waiting" in bench.outbox.states.values():
            raise OutboxRefused("full", "The outbox is full.")
        submit(message, kind, envelope)

    monkeypatch.setattr(bench.outbox, "submit", full)
    assert bench.kiosk.courier.run_once()
    assert state_of(bench, kept) == ScanState.HANDED_OVER


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
            bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
    else:
        bench.outbox.states |= {message: "stored" for message in bench.outbox.submitted}
    poison, ask = bench.kiosk.records.messages.in_states()[0].id, getattr(bench.outbox, step)

    def trip(message: UUID, *more: Any, **options: Any) -> object:
        if message == poison:
            raise ZeroDivisionError("ref-secret")
        return ask(message, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, step, trip)
        assert bench.kiosk.courier.run_once()
    moved = {
        "submit": MessageState.SUBMITTED,
        "state": MessageState.STORED,
        "discard": MessageState.DISCARDED,
    }[step]
    before, after = bench.kiosk.records.messages.in_states()
    assert (before.state == moved, after.state == moved) == (False, True)
    said = "".join(capsys.readouterr())
    assert "ZeroDivisionError" in said and "ref-secret" not in said
    assert bench.kiosk.courier.run_once()
    assert bench.kiosk.records.messages.in_states()[0].state == moved


def sealed(bench: Bench, number: int) -> list[UUID]:
    """So many scans whose results still wait for the outbox."""
    bench.outbox.there = False
    scans = [consented(bench) for _ in range(number)]
    for scan in scans:
        do(bench, scan)
    bench.outbox.there = True
    return scans


def test_records_that_another_process_holds_end_the_round_and_are_waited_for_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, path = sealed(bench, 3), bench.kiosk.records.path
    monkeypatch.setattr(records_file, "LOCKED_S", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        capsys.readouterr()
        assert not bench.kiosk.courier.run_once()
        assert len(bench.outbox.submitted) == 1
    said = "".join(capsys.readouterr())
    assert said.count("another process holds it") == said.count("round_ended") == 1
    assert bench.kiosk.courier.run_once()
    assert [state_of(bench, scan) for scan in scans] == [ScanState.HANDED_OVER] * 3


def test_a_message_whose_records_fail_again_and_again_keeps_no_other_from_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, records = sealed(bench, 3), bench.kiosk.records
    poison, settle = records.messages.in_states()[0].id, records.messages.settle

    def damaged(message: Message, *more: str) -> None:
        if message.id == poison:
            raise RecordsUnusable("The kiosk's records cannot be used: the file is damaged.")
        settle(message, *more)

    monkeypatch.setattr(records.messages, "settle", damaged)
    assert [bench.kiosk.courier.run_once() for _ in range(3)] == [False] * 3
    assert [state_of(bench, scan) for scan in scans] == [ScanState.SEALED] + [ScanState.HANDED_OVER] * 2


def test_a_change_that_one_row_does_not_take_is_no_failure_of_the_records(bench: Bench) -> None:
    with pytest.raises(RecordsError) as refused, bench.kiosk.records._file.transaction() as db:
        db.execute("INSERT INTO messages (id, scan) VALUES ('ref-secret', 'x')")
    assert not isinstance(refused.value, RecordsUnusable) and "secret" not in str(refused.value)


@pytest.mark.parametrize("fault", [RecordsUnusable("damaged"), RecordsFull("full")])
def test_a_message_whose_records_fail_again_and_again_keeps_no_other_stage_from_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    unsent, sent, followed = [consented(bench) for _ in range(3)]
    for scan in (unsent, sent, followed):
        do(bench, scan)
    (poison,), records = sealed(bench, 1), bench.kiosk.records
    found = {scan: records.messages.of(scan) for scan in (poison, unsent, sent, followed)}
    messages = {scan: message.id for scan, message in found.items() if message is not None}
    bench.outbox.states |= {messages[sent]: "sent", messages[followed]: "stored"}
    for scan in (unsent, sent):
        records.forget(scan, ScanState.SHREDDED, "patient")
    settle = records.messages.settle

    def damaged(message: Message, *more: str) -> None:
        if message.id == messages[poison]:
            raise fault
        settle(message, *more)

    monkeypatch.setattr(records.messages, "settle", damaged)
    assert [bench.kiosk.courier.run_once() for _ in range(3)] == [False] * 3
    assert messages[unsent] not in bench.outbox.submitted
    assert [kind for kind, _ in bench.outbox.submitted.values()].count("withdraw") == 1
    assert state_of(bench, followed) == ScanState.STORED


def test_a_deleted_result_is_taken_out_of_the_outbox_also_where_nothing_can_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = consented(bench)
    do(bench, deleted)
    sealed(bench, 1)
    bench.kiosk.records.forget(deleted, ScanState.SHREDDED, "patient")
    gone = bench.kiosk.records.messages.of(deleted)
    assert gone is not None and gone.id in bench.outbox.submitted
    monkeypatch.setattr(bench.kiosk.records.messages, "settle", held)
    assert not bench.kiosk.courier.run_once()
    assert gone.id not in bench.outbox.submitted


def test_a_round_that_does_not_end_is_not_waited_for_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TURN_S", 0.05)
    with bench.kiosk.courier._turn:
        assert not bench.kiosk.courier.run_once()
    assert bench.kiosk.courier.run_once()


def test_a_scan_that_is_deleted_while_others_are_handed_over_is_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = sealed(bench, 2)
    submit, records, given = bench.outbox.submit, bench.kiosk.records, []

    def deleted_meanwhile(*message: Any, **options: Any) -> None:
        submit(*message, **options)
        given.append(message[0])
        if records.scan(last).state != ScanState.SHREDDED:
            records.forget(last, ScanState.SHREDDED, "patient")

    monkeypatch.setattr(bench.outbox, "submit", deleted_meanwhile)
    sent = records.messages.of(first)
    assert [bench.kiosk.courier.run_once() for _ in range(2)] == [True, True]
    assert sent is not None and given == [sent.id]
    assert state_of(bench, first) == ScanState.HANDED_OVER


@pytest.mark.parametrize("submitted", [False, True])
def test_a_deletion_that_is_repeated_withdraws_nothing_that_never_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, submitted: bool
) -> None:
    """The outbox discards, and the word of it is lost."""
    (scan,) = sealed(bench, 1)
    if submitted:
        bench.kiosk.courier.run_once()
    bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records.messages, "settle", held)
        assert not bench.kiosk.courier.run_once()
    assert bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


def test_a_trouble_is_told_when_it_begins_and_when_it_comes_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed(bench, 1)
    told = []
    for broken in (True, False, True):
        capsys.readouterr()
        with monkeypatch.context() as patch:
            if broken:
                patch.setattr(bench.kiosk.records.messages, "in_states", held)
            for _ in range(3):
                assert bench.kiosk.courier.run_once() != broken
        told.append("".join(capsys.readouterr()).count("round_ended"))
    assert told == [1, 0, 1]


def test_what_an_agent_finds_is_vouched_for_but_for_what_is_over(bench: Bench) -> None:
    """What the records do not know is another one's, or newer than they are: it is sent."""
    scans = [consented(bench) for _ in range(4)]
    for scan in scans:
        do(bench, scan)
    waiting, stored, resealed, deleted = [message.id for message in bench.kiosk.records.messages.in_states()]
    bench.outbox.states |= {stored: "stored", resealed: "reseal"}
    bench.kiosk.courier.run_once()
    bench.kiosk.shred(scans[-1])
    unknown, older = UUID(int=7), FakeOutbox()
    older.found = [waiting, stored, resealed, deleted, unknown]
    older.states = dict.fromkeys(older.found, "sent")
    bench.outbox = older
    bench.again().courier.run_once()
    assert set(older.discarded) == {resealed, deleted}
    assert older.found == []


@pytest.mark.parametrize("fault", [RecordsUnusable("damaged"), RecordsHeld("held")])
def test_nothing_is_vouched_for_while_the_records_cannot_be_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    bench.outbox.found = [UUID(int=7)]

    def fails(_: object) -> list[UUID]:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records.messages, "are_over", fails)
        assert not bench.kiosk.courier.run_once()
    assert bench.outbox.found == [UUID(int=7)]
    assert bench.kiosk.courier.run_once()
    assert bench.outbox.found == []


def test_what_is_over_and_could_not_be_discarded_is_all_that_nobody_vouches_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scan,) = sealed(bench, 1)
    bench.kiosk.courier.run_once()
    bench.kiosk.shred(scan)
    over = bench.kiosk.records.messages.in_states()[0].id

    def full(_: UUID) -> str:
        raise OutboxRefused("storage", "The outbox does not take it.")

    innocent = UUID(int=7)
    bench.outbox.found = [over, innocent]
    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, "discard", full)
        bench.kiosk.courier.run_once()
    assert bench.outbox.found == [over]


class ImpatientOutbox(FakeOutbox):
    """An older copy whose agent's hour is over when it is asked `at`: it sends what it still has."""

    def __init__(self, found: UUID, at: str) -> None:
        super().__init__()
        self.found, self.states, self.sent, self._at = [found], {found: "sent"}, list[UUID](), at

    def _asked(self, what: str) -> None:
        if what == self._at:
            self.sent += [each for each in self.found if each in self.states]

    def vouch(self, messages: Collection[UUID]) -> None:
        self._asked("vouch")
        super().vouch(messages)

    def discard(self, message_id: UUID) -> str:
        self._asked("discard")
        return super().discard(message_id)

    def sent_unvouched(self) -> list[UUID]:
        self._asked("sent_unvouched")
        return self.sent


@pytest.mark.parametrize(
    ("at", "is_sent"), [("vouch", True), ("discard", True), ("sent_unvouched", False), ("never", False)]
)
def test_what_is_over_and_sent_while_it_is_looked_through_is_withdrawn(
    bench: Bench, at: str, is_sent: bool
) -> None:
    (scan,) = sealed(bench, 1)
    bench.kiosk.courier.run_once()
    assert bench.kiosk.shred(scan).clinic is Delivery.NOTHING_SENT
    (over,) = bench.kiosk.records.messages.in_states()
    bench.outbox = outbox = ImpatientOutbox(over.id, at)
    bench.again().courier.run_once()
    assert (bool(outbox.sent), outbox.found) == (is_sent, [])
    assert bench.kiosk.delivery(scan) is (Delivery.TELLING if is_sent else Delivery.NOTHING_SENT)


def test_an_outbox_that_refuses_to_be_looked_through_holds_up_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as an agent of an earlier version, before it is started anew."""
    (waiting,) = sealed(bench, 1)

    def refuses() -> list[UUID]:
        raise OutboxRefused("bad_request", "The outbox does not know this question.")

    monkeypatch.setattr(bench.outbox, "unvouched", refuses)
    for _ in range(2):
        bench.kiosk.courier.run_once()
    assert state_of(bench, waiting) == ScanState.HANDED_OVER
    assert "".join(capsys.readouterr()).count("not_looked_through") == 1


def test_a_scan_that_is_deleted_while_its_number_is_found_to_be_used_is_not_sealed_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scan,) = sealed(bench, 1)

    def used(*_: object, **__: object) -> None:
        bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
        refused = OutboxRefused("used", "Another message had this sequence number before.")
        refused.highest = 12
        raise refused

    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, "submit", used)
        bench.kiosk.courier.run_once()
    bench.kiosk.work.go_on()
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT
