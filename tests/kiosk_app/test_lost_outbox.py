"""An outbox that is lost loses nothing: what it had is handed over again, and the clinic takes it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from kiosk_app.kept.records_file import RecordsFull
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.scanning import courier
from kiosk_app.scanning.delivery import Delivery
from sync.clinic.receiving.ingest import IngestWorker
from sync.clinic.store.tables import OPENED, Envelope, Scan, Withdrawal
from sync.kiosk.client import OutboxRefused, OutboxUnavailable
from sync.wire.messages import Result, WithdrawMessages
from tests.support.kiosk_bench import Bench
from tests.support.messages import deleted, given, keep_no_envelope, the_message
from tests.support.scanning import consented, do, state_of
from tests.support.waiting import wait_until
from tests.support.whole_way import Way


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
