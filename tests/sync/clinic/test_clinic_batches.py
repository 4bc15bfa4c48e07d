"""Many messages at once: a few statements however many they are, and nobody waits while one is checked."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import LargeBinary, Uuid, select
from sqlalchemy.dialects import postgresql as postgresql_dialect
from structlog.testing import capture_logs

from sync.clinic.receiving import ingest
from sync.clinic.receiving import results as results_module
from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.broker_refusals import Refusals
from sync.clinic.receiving.ingest import NOT_AUTHORISED, RECEIPT_WINDOW, IngestWorker
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.receipts import Owed, mark_sent, owe, unsent
from sync.clinic.store.database import Database, now
from sync.clinic.store.rows import _AsColumn, listed
from sync.clinic.store.tables import (
    Envelope,
    FindingRow,
    Kiosk,
    Poison,
    ReceiptRow,
    ReminderRow,
    Scan,
    UtcDateTime,
)
from sync.wire import topics
from sync.wire.messages import ReminderDue
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat
from tests.support.effort import statements
from tests.support.ingesting import Clinic, arrived
from tests.support.intake import count
from tests.support.withdrawing import withdraw


@pytest.fixture
def worker(database: Database, clinic: Clinic) -> IngestWorker:
    """A worker of `database` that no broker sends anything."""
    folder = clinic.state / "ingest"
    return IngestWorker(database, folder, Address.read(folder))


def test_a_hundred_envelopes_are_as_many_statements_as_ten(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    worker._store([arrived(kiosk, kiosk.seal())])  # the kiosk's key is known from here
    needed = []
    for size in (10, 100):
        batch = [arrived(kiosk, kiosk.seal()) for _ in range(size)]
        with statements(database) as said:
            worker._store(batch)
        needed.append(len(said))
    assert needed[0] == needed[1] < 10
    assert count(database, Envelope) == count(database, ReceiptRow) == 111


def test_a_hundred_receipts_are_noted_as_sent_by_one_statement(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    worker._store([arrived(kiosk, kiosk.seal()) for _ in range(100)])
    with database.writing() as session, statements(database) as said:
        mark_sent(session, unsent(session, worker.name, now(), 100), now())
    assert len(said) == 2
    with database.reading() as session:
        assert unsent(session, worker.name, now(), 100) == []


def test_a_list_of_one_kind_and_a_list_of_another_are_two_parameters_to_what_keeps_statements() -> None:
    kinds = (Uuid(), LargeBinary(), UtcDateTime())
    kept = [_AsColumn(kind)._static_cache_key for kind in kinds]
    assert len(set(kept)) == len(kinds)
    assert _AsColumn(Uuid())._static_cache_key == kept[0]
    assert "AS listed(" in str(select(listed({"name": Uuid()})).compile(dialect=postgresql_dialect.dialect()))


def test_all_receipts_of_a_batch_are_owed_by_one_statement_in_one_order(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    """Good ones, spoilt ones, and those whose number was used: or two workers wait in a ring."""
    good, place = [kiosk.seal() for _ in range(20)], kiosk.sequence + 50
    spoilt = [data[:-1] + bytes([data[-1] ^ 1]) for data in (kiosk.seal() for _ in range(20))]
    twice = [kiosk.seal(sequence=place) for _ in range(2)]
    with statements(database) as said:
        worker._store([arrived(kiosk, data) for data in (*good, *spoilt, *twice)])
    (owed,) = [values for statement, values in said if "INTO receipts" in statement]
    # SQLite is given rows, PostgreSQL columns.
    keys = owed["message_id"] if isinstance(owed, dict) else [values[1] for values in owed]
    assert len(keys) == 42
    assert keys == sorted(keys)


def refusing(worker: IngestWorker, refused: UUID, monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Have a broker take each receipt at once but for those to one kiosk; to whom it was offered one."""
    offered: list[UUID] = []

    class Broker:
        def is_connected(self) -> bool:
            return True

        def publish(self, topic: str, *_: object, **__: object) -> SimpleNamespace:
            offered.append(topics.parse(topic).kiosk)
            reason = NOT_AUTHORISED if offered[-1] == refused else 0
            worker._acknowledged.put((len(offered), reason))
            return SimpleNamespace(mid=len(offered))

    monkeypatch.setattr(worker, "_client", Broker())
    return offered


def test_receipts_that_the_broker_refuses_keep_no_other_kiosk_waiting(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = uuid4()
    offered = refusing(worker, refused, monkeypatch)
    owed = [Owed(refused, uuid4(), b"x" * 32, "stored", MOMENT) for _ in range(3 * RECEIPT_WINDOW)]
    owed.append(Owed(kiosk.id, uuid4(), b"y" * 32, "stored", now()))
    with database.writing() as session:
        owe(session, owed, worker.name)
    for _ in range(5):
        worker._look_for_receipts = 0.0
        worker._send_receipts()
        worker._note_sent(idle=True)
    assert offered == [refused] * RECEIPT_WINDOW + [kiosk.id]
    with database.reading() as session:
        assert {one.kiosk for one in unsent(session, worker.name, now(), 1000)} == {refused}


def test_what_the_broker_took_is_noted_whatever_becomes_of_the_batch(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker._store([arrived(kiosk, kiosk.seal())])
    with database.reading() as session:
        worker._sent = unsent(session, worker.name, now(), 10)

    def trip(*_: object) -> list[str]:
        raise ValueError("each of them")

    monkeypatch.setattr(worker, "_take", trip)
    with statements(database, writing=True) as said, capture_logs() as told:
        worker._store([arrived(kiosk, data) for data in (kiosk.seal(), kiosk.seal())])
    assert not any("UPDATE receipts" in statement for statement, _ in said)
    assert [line["exc_info"].args for line in told if line["event"] == "one_by_one"] == [("each of them",)]
    worker._note_sent(idle=True)
    with database.reading() as session:
        known = session.execute(select(ReceiptRow.status, ReceiptRow.sent_at.is_not(None))).all()
    assert sorted(tuple(row) for row in known) == [("quarantined", False)] * 2 + [("stored", True)]


def test_receipts_that_cannot_be_noted_as_sent_are_told_of_and_let_go(
    sqlite: Database, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = IngestWorker(sqlite, clinic.state / "ingest", Address.read(clinic.state / "ingest"))
    worker._sent = [Owed(uuid4(), uuid4(), b"x" * 32, "stored", MOMENT)]

    def trip(*_: object) -> None:
        raise ValueError("this one")

    monkeypatch.setattr(ingest, "mark_sent", trip)
    with capture_logs() as told:
        worker._note_sent(idle=True)
    assert [(line["event"], line["receipts"]) for line in told] == [("not_noted", 1)]
    assert worker._sent == []


def test_receipts_are_noted_as_sent_soon_though_more_comes_all_the_time_and_at_a_stop(
    kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []
    monkeypatch.setattr(ingest, "mark_sent", lambda _session, sent, _now: noted.append(len(sent)))

    def taken_by_the_broker() -> None:
        worker._in_flight[1] = Owed(kiosk.id, uuid4(), b"x" * 32, "stored", MOMENT), time.monotonic()
        worker._acknowledged.put((1, 0))

    taken_by_the_broker()
    worker._note_sent(idle=False)
    assert noted == []
    monkeypatch.setattr(ingest, "NOTE_S", 0.0)
    worker._note_sent(idle=False)
    assert noted == [1]
    taken_by_the_broker()
    stop = threading.Event()
    stop.set()
    monkeypatch.setattr(ingest, "connect", lambda *_, **__: None)
    worker.run(stop)
    assert noted == [1, 1]


def test_a_kiosk_that_is_refused_waits_longer_each_time_until_the_broker_takes_one() -> None:
    refusals, kiosk, moment, waits = Refusals(), uuid4(), 0.0, list[float]()
    for _ in range(8):
        for _ in range(100):  # those that were on their way together count as one
            refusals.note(kiosk, moment)
        begin = moment
        while kiosk in refusals.put_off(moment):
            moment += 15.0
        waits.append(moment - begin)
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]
    refusals.note(kiosk, moment)
    refusals.over(kiosk)
    assert refusals.put_off(moment) == set()


def test_twenty_results_are_opened_by_as_many_statements_as_five(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    opener = Opener(database, [kiosk.opening])
    opener.scrub()
    needed = []
    for size in (1, 5, 20):
        worker._store([arrived(kiosk, kiosk.seal()) for _ in range(size)])
        with statements(database) as said:
            assert opener.open_next(size)
        needed.append(len(said))
    assert needed[1] == needed[2] < 20
    assert (count(database, Scan), count(database, FindingRow)) == (26, 26 * 18)


def test_the_opener_asks_as_little_as_its_work_needs(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    """Each statement is a way to the server and back; COPY is none of those that are counted."""
    opener = Opener(database, [kiosk.opening])
    worker._store([arrived(kiosk, kiosk.seal()) for _ in range(2)])
    assert opener.open_next()
    opener.scrub()
    with statements(database) as said:
        assert opener.open_next(20)
    kinds = [statement.split()[0] for statement, _ in said]
    shared = ["SELECT", "SELECT", "SELECT", "SELECT", "SELECT"]
    if database.engine.dialect.name == "postgresql":
        assert kinds == [*shared, "INSERT", "UPDATE", "WITH"]
        assert "FOR UPDATE SKIP LOCKED" in said[0][0] and "unnest" in said[-2][0]
    else:
        assert kinds == [*shared, "INSERT", "INSERT", "UPDATE", "WITH"]


def test_a_batch_of_everything_becomes_what_each_would_become_alone(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    scan, gone, twice = uuid4(), uuid4(), uuid4()
    same = kiosk.seal()
    due = ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=MOMENT.date(), scan=scan)
    first, place = uuid4(), kiosk.sequence + 50
    worker._store(
        [
            arrived(kiosk, same),
            arrived(kiosk, heartbeat(kiosk).sign(kiosk.status), "status"),
            arrived(kiosk, same),
            arrived(kiosk, b"nothing of ours"),
            arrived(kiosk, kiosk.seal(kiosk.result(scan))),
            arrived(kiosk, kiosk.seal(due), "reminder"),
            arrived(kiosk, kiosk.seal(kiosk.result(gone))),
            arrived(kiosk, kiosk.seal(withdraw(gone))),
            arrived(kiosk, kiosk.seal(kiosk.result(twice), message_id=first)),
            arrived(kiosk, kiosk.seal(kiosk.result(twice), message_id=first)),
            arrived(kiosk, kiosk.seal(kiosk.result(twice, supersedes=first))),
            arrived(kiosk, kiosk.seal(sequence=place)),
            arrived(kiosk, kiosk.seal(sequence=place)),
            arrived(kiosk, kiosk.seal_text(b"no message")),
        ]
    )
    with database.reading() as session:
        reasons = sorted(session.scalars(select(Poison.reason)))
        told = sorted(session.scalars(select(ReceiptRow.status)))
        assert session.get_one(Kiosk, kiosk.id).last_seen_at is not None
    assert reasons == ["malformed", "same_id_other_hash", "sequence_used_twice"]
    assert told == ["duplicate"] + ["quarantined"] * 2 + ["stored"] * 8
    opener = Opener(database, [kiosk.opening])
    assert opener.open_next(100)
    assert not opener.open_next(100)
    with database.reading() as session:
        found = {row.id: row for row in session.scalars(select(Scan))}
        assert {scan, twice} <= set(found) and gone not in found and len(found) == 4
        assert found[twice].supersedes == first
        assert session.scalars(select(ReminderRow.scan)).one() == scan
        states = sorted(session.scalars(select(Envelope.state)))
    assert states == ["erased"] + ["opened"] * 7 + ["quarantined"]


def test_a_batch_in_which_one_cannot_be_kept_costs_only_that_one(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    keep = results_module.keep_results

    def trip(session: Any, results: Any) -> None:
        if "ref-bad" in [result.patient_reference for _, result in results]:
            raise ValueError("this one")
        keep(session, results)

    batch = [kiosk.result(), kiosk.result(patient_reference="ref-bad"), kiosk.result()]
    worker._store([arrived(kiosk, kiosk.seal(message)) for message in batch])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_module, "keep_results", trip)
        assert Opener(database, [kiosk.opening]).open_next(10)
    with database.reading() as session:
        assert sorted(session.scalars(select(Envelope.state))) == ["opened", "opened", "quarantined"]
    assert count(database, Scan) == 2
