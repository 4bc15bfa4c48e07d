"""Many messages at once: a few statements however many they are, and nobody waits while one is checked."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.ingest import Arrival, IngestWorker
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.receipts import mark_sent, unsent
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import Envelope, FindingRow, Kiosk, Poison, ReceiptRow, ReminderRow, Scan
from sync.wire import envelope, topics
from sync.wire.messages import ReminderDue
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat
from tests.support.effort import statements
from tests.support.ingesting import Clinic
from tests.support.withdrawing import withdraw


@pytest.fixture
def worker(database: Database, clinic: Clinic) -> IngestWorker:
    """A worker of `database` that no broker sends anything."""
    folder = clinic.state / "ingest"
    return IngestWorker(database, folder, Address.read(folder))


def arrived(kiosk: SealingKiosk, data: bytes, kind: topics.UpKind = "result") -> Arrival:
    """What a connection that is gone has brought, so that nobody acknowledges it."""
    return Arrival(-1, 0, 1, topics.parse(topics.up(kiosk.id, kind)), data, False)


def count(database: Database, table: Any) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


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


def test_twenty_results_are_opened_by_as_many_statements_as_five(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    opener = Opener(database, [kiosk.opening])
    needed = []
    for size in (1, 5, 20):
        worker._store([arrived(kiosk, kiosk.seal()) for _ in range(size)])
        with statements(database) as said:
            assert opener.open_next(size)
        needed.append(len(said))
    assert needed[1] == needed[2] < 20
    assert (count(database, Scan), count(database, FindingRow)) == (26, 26 * 18)


def test_signatures_are_checked_and_seals_opened_while_others_may_write(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, open_envelope, written = envelope.verify, envelope.open_envelope, list[UUID]()

    def somebody_writes() -> None:
        """In another thread, since the one that checks may hold a lock: then this would wait for ever."""

        def write() -> None:
            with database.writing() as session:
                row = Kiosk(id=uuid4(), name="meanwhile", registered_at=now())
                session.add(row)
            written.append(row.id)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "whoever writes waits for a signature to be checked"

    def checked(*given: Any) -> Any:
        somebody_writes()
        return verify(*given)

    def opened(*given: Any) -> Any:
        somebody_writes()
        return open_envelope(*given)

    monkeypatch.setattr(envelope, "verify", checked)
    monkeypatch.setattr(envelope, "open_envelope", opened)
    scan = uuid4()
    worker._store(
        [arrived(kiosk, kiosk.seal(message)) for message in (kiosk.result(scan), withdraw(uuid4()))]
    )
    opener = Opener(database, [kiosk.opening])
    assert opener.open_next(2)
    assert count(database, Scan) == 1
    assert len(written) >= 6


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
    keep = opener_module.keep_results

    def trip(session: Any, results: Any) -> None:
        if "ref-bad" in [result.patient_reference for _, result in results]:
            raise ValueError("this one")
        keep(session, results)

    batch = [kiosk.result(), kiosk.result(patient_reference="ref-bad"), kiosk.result()]
    worker._store([arrived(kiosk, kiosk.seal(message)) for message in batch])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opener_module, "keep_results", trip)
        assert Opener(database, [kiosk.opening]).open_next(10)
    with database.reading() as session:
        assert sorted(session.scalars(select(Envelope.state))) == ["opened", "opened", "quarantined"]
    assert count(database, Scan) == 2
