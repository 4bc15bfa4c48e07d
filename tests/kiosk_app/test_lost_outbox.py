"""An outbox that is lost loses nothing: what it had is handed over again, and the clinic takes it once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from kiosk_app.kept.messages import Message
from kiosk_app.kept.records_file import RecordsFull
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning import courier
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.shred import shred
from sync.clinic.receiving.ingest import IngestWorker
from sync.clinic.store.tables import OPENED, Envelope, Scan, Withdrawal
from sync.kiosk.client import OutboxRefused, OutboxUnavailable
from sync.wire.messages import Result, WithdrawMessages
from tests.support.kiosk_bench import Bench
from tests.support.scanning import consented, do, state_of
from tests.support.waiting import wait_until
from tests.support.whole_way import Way


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()


def moved_aside(outbox: Path) -> None:
    elsewhere = outbox.parent.parent / "elsewhere"
    elsewhere.mkdir()
    for file in list(outbox.parent.glob(f"{outbox.name}*")):
        file.rename(elsewhere / file.name)


def emptied(outbox: Path) -> None:
    outbox.write_bytes(b"")


LOSSES = [moved_aside, emptied]


def never_left(way: Way, message: UUID) -> None:
    """The broker is away when it is handed over, and when the outbox is lost."""
    assert way.agent.client.state(message) == "waiting"
    way.agent.kill()


def stored_and_the_receipt_is_lost(way: Way, message: UUID) -> None:
    """It comes to an outbox that is lost by then."""
    before = way.clinic.stored()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IngestWorker, "_send_receipts", lambda _: None)
        with way.clinic.worker():
            wait_until(lambda: way.clinic.stored() > before, "a stored envelope")
            assert way.agent.client.state(message) == "sent"
            way.agent.kill()
    way.open_all()


MOMENTS = [never_left, stored_and_the_receipt_is_lost]


def handed_over(way: Way, moment: Callable[[Way, UUID], None], kind: str) -> UUID:
    """A scan whose message of this kind has come as far as `moment` says when the agent is killed."""
    way.agent.start()
    if kind == "withdraw" or moment is stored_and_the_receipt_is_lost:
        way.broker.start()
    scan = consented(way.bench)
    do(way.bench, scan)
    if kind == "withdraw":
        way.reaches_the_clinic()
        assert way.count(Scan) == 1
        if moment is never_left:
            way.broker.stop()
            wait_until(lambda: not way.agent.status()["connected"], "an agent that knows of it")
        way.delete(scan)
    moment(way, way.message(scan, kind))
    return scan


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_no_result_is_lost(
    way: Way, moment: Callable[[Way, UUID], None], lose: Callable[[Path], None]
) -> None:
    scan = handed_over(way, moment, "result")
    lose(way.outbox_file)
    way.agent.start()
    if moment is never_left:
        way.broker.start()
    way.reaches_the_clinic()
    assert state_of(way.bench, scan) == ScanState.STORED
    assert way.bench.kiosk.delivery(scan) is Delivery.RECEIVED
    with way.database.reading() as session:
        assert session.scalars(select(Scan.id)).all() == [scan]
        assert set(session.scalars(select(Envelope.state))) == {OPENED}
    assert way.nobody_has_to_look()


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_no_deletion_is_lost(
    way: Way, moment: Callable[[Way, UUID], None], lose: Callable[[Path], None]
) -> None:
    scan = handed_over(way, moment, "withdraw")
    lose(way.outbox_file)
    way.agent.start()
    if moment is never_left:
        way.broker.start()
    way.reaches_the_clinic()
    assert way.bench.kiosk.delivery(scan) is Delivery.TOLD
    assert (way.count(Scan), way.count(Withdrawal)) == (0, 1)
    assert way.nobody_has_to_look()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_result_that_an_earlier_version_did_not_keep_reaches_the_clinic_once(
    way: Way, moment: Callable[[Way, UUID], None]
) -> None:
    scan = handed_over(way, moment, "result")
    keep_no_envelope(way.bench)
    moved_aside(way.outbox_file)
    way.agent.start()
    if moment is never_left:
        way.broker.start()
    way.reaches_the_clinic()
    assert state_of(way.bench, scan) == ScanState.STORED
    with way.database.reading() as session:
        assert session.scalars(select(Scan.id)).all() == [scan]
        assert set(session.scalars(select(Envelope.state))) == {OPENED}


def keep_no_envelope(bench: Bench) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute("UPDATE messages SET envelope = NULL")


def given(bench: Bench, kind: str) -> tuple[UUID, UUID]:
    """A scan, and its message of this kind, which the outbox has."""
    scan = consented(bench)
    do(bench, scan)
    if kind == "withdraw":
        result = the_message(bench, scan, "result")
        bench.outbox.states[result.id] = "sent"
        deleted(bench, scan)
    message = the_message(bench, scan, kind)
    assert message.state == MessageState.SUBMITTED
    return scan, message.id


def the_message(bench: Bench, scan: UUID, kind: str) -> Message:
    message = bench.kiosk.records.messages.of(scan, kind)
    assert message is not None
    return message


def deleted(bench: Bench, scan: UUID) -> Delivery:
    """What the patient is told right after."""
    kiosk = bench.kiosk
    return shred(scan, kiosk.records, kiosk.vault, kiosk.courier.run_once, kiosk.outbox, "patient").clinic


def told(capsys: pytest.CaptureFixture[str]) -> int:
    said = "".join(capsys.readouterr())
    assert "demo-1" not in said
    return said.count("handed_over_again")


@pytest.mark.parametrize("kind", ["result", "withdraw"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_lost_outbox_had_is_handed_over_again_as_it_was_and_told_once(
    bench: Bench, capsys: pytest.CaptureFixture[str], kind: str, restarted: bool
) -> None:
    _, message = given(bench, kind)
    before = bench.outbox.submitted[message]
    bench.outbox.lose()
    if restarted:
        bench.again()
    for _ in range(3):
        bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {message: before}
    assert bench.outbox.states == {message: "sent"}, "it may have left from the outbox that is lost"
    assert told(capsys) == 1
    bench.outbox.lose()
    bench.again().courier.run_once()
    assert (bench.outbox.submitted, told(capsys)) == ({message: before}, 1)


def test_an_outbox_that_loses_all_that_it_takes_is_given_it_again_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, message = given(bench, "result")
    given_again = []
    monkeypatch.setattr(bench.outbox, "submit", lambda *it, **_: given_again.append(it[0]))
    bench.outbox.lose()
    for _ in range(5):
        assert bench.kiosk.courier.run_once()
    assert given_again == [message]
    monkeypatch.setattr(courier, "AGAIN_S", 0.0)
    bench.again()
    for _ in range(5):
        assert bench.kiosk.courier.run_once()
    assert given_again == [message] * 6
    assert told(capsys) == 2, "once by each of the two that had the messages"


def unreadable(_: UUID) -> str:
    raise OutboxRefused("storage", "The outbox does not take it: the file is damaged: move it aside.")


def away(_: UUID) -> str:
    raise OutboxUnavailable("The outbox does not answer.")


@pytest.mark.parametrize("answer", [unreadable, away])
def test_an_outbox_that_cannot_say_what_it_has_is_not_one_that_has_lost_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Callable[[UUID], str]
) -> None:
    scan, message = given(bench, "result")
    bench.outbox.lose()
    monkeypatch.setattr(bench.outbox, "state", answer)
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}
    assert the_message(bench, scan, "result").id == message
    assert bench.kiosk.delivery(scan) is Delivery.KEPT


@pytest.mark.parametrize("handed_over_again", [False, True])
@pytest.mark.parametrize(("connected", "says"), [(True, Delivery.TELLING), (False, Delivery.UNTOLD)])
def test_of_what_a_lost_outbox_had_nobody_is_told_that_nothing_was_sent(
    bench: Bench, handed_over_again: bool, connected: bool, says: Delivery
) -> None:
    scan, result = given(bench, "result")
    bench.outbox.lose()
    bench.outbox.connected = connected
    assert bench.kiosk.delivery(scan) is Delivery.KEPT
    if handed_over_again:
        bench.kiosk.courier.run_once()
        assert bench.kiosk.delivery(scan) is (Delivery.UNDER_WAY if connected else Delivery.KEPT)
    deleted(bench, scan)
    word = the_message(bench, scan, "withdraw")
    assert set(bench.outbox.submitted) == {word.id}
    bench.outbox.states[word.id] = "sent"
    assert bench.kiosk.delivery(scan) is says
    assert result not in bench.outbox.submitted


def test_a_result_that_is_deleted_while_the_outbox_is_asked_is_not_handed_over_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, result = given(bench, "result")
    bench.outbox.lose()

    def deleted_meanwhile(_: UUID) -> str:
        bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
        return "unknown"

    monkeypatch.setattr(bench.outbox, "state", deleted_meanwhile)
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}
    assert the_message(bench, scan, "result").state == MessageState.DISCARDING


@pytest.mark.parametrize("kind", ["result", "withdraw"])
def test_what_an_earlier_version_handed_over_and_did_not_keep_is_sealed_again(
    bench: Bench, kind: str
) -> None:
    scan, first = given(bench, kind)
    keep_no_envelope(bench)
    bench.outbox.lose()
    for _ in range(4):
        bench.kiosk.courier.run_once()
        bench.kiosk.work.go_on()
    second = the_message(bench, scan, kind).id
    assert second != first and set(bench.outbox.submitted) == {second}
    message = bench.clinic.open(bench.outbox.submitted[second][1])
    if kind == "result":
        assert isinstance(message, Result) and (message.scan, message.supersedes) == (scan, first)
        assert state_of(bench, scan) == ScanState.HANDED_OVER
    else:
        assert isinstance(message, WithdrawMessages) and message.scan == scan


@pytest.mark.parametrize("kind", ["result", "withdraw"])
def test_what_is_to_be_sealed_again_is_that_also_after_the_records_took_no_change(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes it for a message whose scan was deleted before it left."""
    scan, first = given(bench, kind)
    keep_no_envelope(bench)
    bench.outbox.lose()

    def full(*_: object, **__: object) -> None:
        raise RecordsFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records.messages, "settle", full)
        patch.setattr(bench.kiosk.records.messages, "withdraw_again", full)
        bench.kiosk.courier.run_once()
    for _ in range(4):
        bench.kiosk.courier.run_once()
        bench.kiosk.work.go_on()
    second = the_message(bench, scan, kind)
    assert second.id != first and second.state == MessageState.SUBMITTED
    assert set(bench.outbox.submitted) == {second.id}


STEPS = [("result", "settle"), ("result", "discard"), ("withdraw", "withdraw_again"), ("withdraw", "discard")]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(("kind", "step"), STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_the_clinic_asks_to_seal_again_is_that_wherever_the_application_is_killed(
    bench: Bench, kind: str, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, first = given(bench, kind)
    bench.outbox.states[first] = "reseal"
    owner = bench.outbox if step == "discard" else bench.kiosk.records.messages
    does = getattr(owner, step)

    def killed(*its: Any, **more: Any) -> None:
        if when == "after":
            does(*its, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(Killed):
            bench.kiosk.courier.run_once()
    bench.again().work.recover()
    for _ in range(4):
        bench.kiosk.courier.run_once()
        bench.kiosk.work.go_on()
    second = the_message(bench, scan, kind)
    assert second.id != first and second.state == MessageState.SUBMITTED
    assert second.id in bench.outbox.submitted
    assert bench.outbox.state(first) == "discarded"


def discards(bench: Bench, patch: pytest.MonkeyPatch, fault: BaseException) -> None:
    def fails(_: UUID) -> str:
        raise fault

    patch.setattr(bench.outbox, "discard", fails)


NOT_DISCARDED = [
    OutboxRefused("storage", "The disk is full."),
    OutboxUnavailable("The outbox does not answer."),
    Killed(),
]


@pytest.mark.parametrize("kind", ["result", "withdraw"])
@pytest.mark.parametrize("fault", NOT_DISCARDED, ids=["full", "away", "killed"])
def test_what_was_sealed_again_does_not_stay_in_the_outbox(
    bench: Bench, kind: str, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later round takes it out, and the next ones leave the outbox alone."""
    _, first = given(bench, kind)
    bench.outbox.states[first] = "reseal"
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        discards(bench, patch, fault)
        bench.kiosk.courier.run_once()
    assert first in bench.outbox.submitted
    if isinstance(fault, Killed):
        bench.again()
    bench.kiosk.courier.run_once()
    assert bench.outbox.state(first) == "discarded" and first not in bench.outbox.submitted
    discards(bench, monkeypatch, AssertionError("for nothing"))
    bench.kiosk.courier.run_once()
    bench.again().courier.run_once()
    monkeypatch.undo()
    assert bench.outbox.state(first) == "discarded"


@pytest.mark.parametrize("sealed_again", [False, True])
def test_of_a_deleted_scan_no_envelope_stays_in_the_outbox(
    bench: Bench, sealed_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said to be deleted there before all are gone, those of which another took the place too."""
    scan, first = given(bench, "result")
    bench.outbox.states[first] = "reseal"
    fault = OutboxRefused("storage", "The disk is full.")
    with monkeypatch.context() as patch:
        discards(bench, patch, fault)
        bench.kiosk.courier.run_once()
        if sealed_again:
            bench.kiosk.work.go_on()
    carriers = bench.kiosk.records.messages.carriers(scan)
    assert set(bench.outbox.submitted) == set(carriers) and len(carriers) == 1 + sealed_again
    discard = bench.outbox.discard

    def all_but_the_first(message: UUID) -> str:
        if message == first:
            raise fault
        return discard(message)

    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, "discard", all_but_the_first)
        assert deleted(bench, scan) is Delivery.UNTOLD
    bench.kiosk.courier.run_once(scan)
    assert set(bench.outbox.submitted) == {the_message(bench, scan, "withdraw").id}
    assert bench.kiosk.delivery(scan) is Delivery.TELLING


def killed_before_it_is_noted(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    patch.setattr(bench.kiosk.records.messages, "settle", killed)


def full_when_it_is_noted(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RecordsFull("full")

    patch.setattr(bench.kiosk.records.messages, "settle", full)


def taken_and_answers(bench: Bench, patch: pytest.MonkeyPatch, answer: OutboxUnavailable) -> None:
    """The outbox takes it, and the answer is another."""
    submit = bench.outbox.submit

    def taken(*its: Any, **more: Any) -> None:
        submit(*its, **more)
        raise answer

    patch.setattr(bench.outbox, "submit", taken)


def answered_too_late(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    taken_and_answers(bench, patch, OutboxUnavailable("The outbox does not answer."))


def unreadable_once_it_has_it(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    taken_and_answers(bench, patch, OutboxRefused("storage", "The disk reports an error."))


def had_and_full_when_that_is_noted(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    taken_and_answers(bench, patch, OutboxRefused("conflict", "The id was used for another envelope."))
    full_when_it_is_noted(bench, patch)


HAD_UNNOTED = [
    killed_before_it_is_noted,
    full_when_it_is_noted,
    answered_too_late,
    unreadable_once_it_has_it,
    had_and_full_when_that_is_noted,
]


@pytest.mark.parametrize("handed_over_again", [False, True])
@pytest.mark.parametrize("fault", HAD_UNNOTED)
def test_of_what_an_outbox_had_before_the_records_said_so_nobody_is_told_that_nothing_was_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None], handed_over_again: bool
) -> None:
    """It is handed over, sent and stored, and then the outbox is lost."""
    scan = consented(bench)
    with monkeypatch.context() as patch:
        fault(bench, patch)
        with contextlib.suppress(Killed):
            do(bench, scan)
    assert set(bench.outbox.submitted) == {the_message(bench, scan, "result").id}
    assert state_of(bench, scan) == ScanState.SEALED
    bench.outbox.lose()
    if fault is killed_before_it_is_noted:
        bench.again().work.recover()
    if handed_over_again:
        bench.kiosk.courier.run_once()
    assert deleted(bench, scan) is not Delivery.NOTHING_SENT
    assert set(bench.outbox.submitted) == {the_message(bench, scan, "withdraw").id}


@pytest.mark.parametrize("code", ["full", "used", "bad_request"])
def test_what_the_outbox_did_not_take_is_said_to_have_never_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OutboxRefused(code, "It is not taken.")

    scan = consented(bench)
    monkeypatch.setattr(bench.outbox, "submit", refused)
    do(bench, scan)
    assert deleted(bench, scan) is Delivery.NOTHING_SENT
    assert bench.kiosk.records.messages.of(scan, "withdraw") is None


@pytest.mark.parametrize("kind", ["result", "withdraw"])
@pytest.mark.parametrize("said", ["stored", "reseal"])
def test_an_envelope_is_kept_until_the_clinic_has_said_what_became_of_it(
    bench: Bench, kind: str, said: str
) -> None:
    _, message = given(bench, kind)
    assert message in kept_envelopes(bench)
    bench.outbox.states[message] = said
    bench.kiosk.courier.run_once()
    assert message not in kept_envelopes(bench)


@pytest.mark.parametrize("kind", ["result", "withdraw"])
def test_a_copy_of_what_the_clinic_set_aside_is_kept_until_it_could_read_that(
    bench: Bench, kind: str
) -> None:
    """Its outbox may be lost too, and whoever looks at it at the clinic counts on this copy."""
    _, message = given(bench, kind)
    bench.outbox.states[message] = "quarantined"
    for _ in range(2):
        bench.kiosk.courier.run_once()
    assert message in kept_envelopes(bench)
    before = bench.outbox.submitted[message]
    bench.outbox.lose()
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {message: before}
    bench.outbox.states[message] = "stored"
    bench.kiosk.courier.run_once()
    assert message not in kept_envelopes(bench)
    assert bench.kiosk.records.messages.in_states(MessageState.QUARANTINED) == []


def test_what_an_earlier_version_did_not_keep_of_what_was_set_aside_is_not_sealed_again(bench: Bench) -> None:
    scan, message = given(bench, "result")
    bench.outbox.states[message] = "quarantined"
    bench.kiosk.courier.run_once()
    keep_no_envelope(bench)
    bench.outbox.lose()
    for _ in range(3):
        bench.kiosk.courier.run_once()
        bench.kiosk.work.go_on()
    assert (bench.outbox.submitted, the_message(bench, scan, "result").id) == ({}, message)
    assert bench.kiosk.delivery(scan) is Delivery.HELD


@pytest.mark.parametrize("said", ["sent", "quarantined"])
def test_no_envelope_of_a_deleted_scan_is_kept(bench: Bench, said: str) -> None:
    scan, result = given(bench, "result")
    bench.outbox.states[result] = said
    bench.kiosk.courier.run_once()
    assert kept_envelopes(bench) == {result}
    bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
    assert kept_envelopes(bench) == set()


def kept_envelopes(bench: Bench) -> set[UUID]:
    with bench.kiosk.records._file.connection() as db:
        return {UUID(row["id"]) for row in db.execute("SELECT id FROM messages WHERE envelope IS NOT NULL")}
