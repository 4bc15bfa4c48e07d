"""Many messages at once: a few statements however many they are, and nobody waits while one is checked."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text
from structlog.testing import capture_logs

from sync.clinic.receiving import results as results_module
from sync.clinic.receiving import withdrawals
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
from tests.support.waiting import wait_until
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


def test_the_opener_asks_as_little_as_its_work_needs(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    """Each statement is a way to the server and back; COPY is none of those that are counted."""
    opener = Opener(database, [kiosk.opening])
    worker._store([arrived(kiosk, kiosk.seal()) for _ in range(2)])
    assert opener.open_next()
    with statements(database) as said:
        assert opener.open_next(20)
    kinds = [statement.split()[0] for statement, _ in said]
    shared = ["SELECT", "SELECT", "SELECT", "SELECT", "SELECT"]
    if database.engine.dialect.name == "postgresql":
        assert kinds == [*shared, "INSERT", "UPDATE", "UPDATE"]
        assert "FOR UPDATE SKIP LOCKED" in said[0][0] and "unnest" in said[-2][0]
    else:
        assert kinds == [*shared, "INSERT", "INSERT", "UPDATE", "UPDATE"]


def on_postgresql(database: Database) -> bool:
    """Whether there can be two writers at once."""
    return database.engine.dialect.name == "postgresql"


def test_openers_that_run_at_once_look_into_different_envelopes(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not on_postgresql(database):
        return
    worker._store([arrived(kiosk, kiosk.seal()) for _ in range(6)])
    looked, open_envelope = Counter[UUID](), envelope.open_envelope
    first, second = (Opener(database, [kiosk.opening]) for _ in range(2))

    def look(verified: envelope.Verified, keys: Any) -> Any:
        looked[verified.header.message_id] += 1
        if looked.total() == 1:
            assert second.open_next(100)
        return open_envelope(verified, keys)

    monkeypatch.setattr(envelope, "open_envelope", look)
    assert first.open_next(2)
    assert (len(looked), set(looked.values())) == (6, {1})
    assert count(database, Scan) == 6


def test_whoever_has_claimed_a_result_does_not_wait_for_who_withdraws_its_scan(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who withdraws has the scan, and waits for the result: in a ring the database would end one of them."""
    if not on_postgresql(database):
        return
    scan, result = uuid4(), uuid4()
    worker._store([arrived(kiosk, kiosk.seal(kiosk.result(scan), message_id=result))])
    first, second = (Opener(database, [kiosk.opening]) for _ in range(2))
    lock_those_free, erase = withdrawals.lock_those_free, withdrawals.erase
    has_scan, failed = threading.Event(), list[str]()

    def claimed(session: Any, scans: Any) -> Any:
        monkeypatch.setattr(withdrawals, "lock_those_free", lock_those_free)
        other.start()
        assert has_scan.wait(10)
        return lock_those_free(session, scans)

    def erasing(*given: Any) -> Any:
        has_scan.set()
        return erase(*given)

    def withdraw_it() -> None:
        worker._store([arrived(kiosk, kiosk.seal(withdraw(scan, result)))])
        with capture_logs() as said:
            second.open_next(1)
        failed.extend(line["event"] for line in said if line["event"] in ("one_by_one", "quarantined"))

    other = threading.Thread(target=withdraw_it)
    monkeypatch.setattr(withdrawals, "lock_those_free", claimed)
    monkeypatch.setattr(withdrawals, "erase", erasing)
    first.open_next(1)
    other.join(30)
    assert (failed, count(database, Scan)) == ([], 0)
    with database.reading() as session:
        assert sorted(session.scalars(select(Envelope.state))) == ["erased", "opened"]


def test_a_message_that_was_named_waits_for_its_scan_before_anybody_waits_for_it(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker
) -> None:
    if not on_postgresql(database):
        return
    scan, result = uuid4(), uuid4()
    opener = Opener(database, [kiosk.opening])
    worker._store([arrived(kiosk, kiosk.seal(withdraw(scan, result)))])
    assert opener.open_next()
    worker._store([arrived(kiosk, kiosk.seal(kiosk.result(scan), message_id=result))])
    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    thread = threading.Thread(target=opener.open_next)
    with database.writing() as session:
        withdrawals.lock(session, [scan])
        thread.start()
        wait_until(lambda: session.scalar(waits) == 1)
        withdrawals.erase(session, kiosk.id, scan, [result])
    thread.join(30)
    with database.reading() as session:
        assert sorted(session.scalars(select(Envelope.state))) == ["erased", "opened"]


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
