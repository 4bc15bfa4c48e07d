"""Several that open, withdraw and take in at once: none waits for another longer than it has to."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from sync.clinic.receiving import erasing, withdrawals
from sync.clinic.receiving import results as results_module
from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.ingest import IngestWorker
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import (
    Envelope,
    Kiosk,
    Scan,
)
from sync.wire import envelope
from tests.support.clinic import SealingKiosk
from tests.support.ingesting import Clinic, arrived
from tests.support.intake import count
from tests.support.waiting import wait_until
from tests.support.withdrawing import withdraw


@pytest.fixture
def worker(database: Database, clinic: Clinic) -> IngestWorker:
    """A worker of `database` that no broker sends anything."""
    folder = clinic.state / "ingest"
    return IngestWorker(database, folder, Address.read(folder))


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


def test_an_opener_whose_batch_fails_opens_that_batch_one_by_one_and_waits_for_no_other_opener(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not on_postgresql(database):
        return
    worker._store([arrived(kiosk, kiosk.seal()) for _ in range(4)])
    first, second = (Opener(database, [kiosk.opening]) for _ in range(2))
    keep, kept = results_module.keep_results, list[int]()

    def keep_or_fail(session: Any, results: Any) -> None:
        kept.append(len(results))
        if len(kept) == 1:
            assert second.open_next(2)
        elif len(kept) == 2:
            raise ValueError("a batch that fails")
        keep(session, results)

    monkeypatch.setattr(results_module, "keep_results", keep_or_fail)
    assert first.open_next(2)
    assert (kept, count(database, Scan)) == ([2, 2, 1, 1], 4)


def test_whoever_has_claimed_a_result_does_not_wait_for_who_withdraws_its_scan(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who withdraws has the scan, and waits for the result: in a ring the database would end one of them."""
    if not on_postgresql(database):
        return
    scan, result = uuid4(), uuid4()
    worker._store([arrived(kiosk, kiosk.seal(kiosk.result(scan), message_id=result))])
    first, second = (Opener(database, [kiosk.opening]) for _ in range(2))
    lock_those_free, erase = withdrawals.lock_those_free, erasing.erase
    has_scan, failed = threading.Event(), list[str]()

    def claimed(session: Any, scans: Any) -> Any:
        monkeypatch.setattr(withdrawals, "lock_those_free", lock_those_free)
        other.start()
        assert has_scan.wait(60)
        return lock_those_free(session, scans)

    def erase_now(*given: Any) -> Any:
        has_scan.set()
        return erase(*given)

    def withdraw_it() -> None:
        worker._store([arrived(kiosk, kiosk.seal(withdraw(scan, result)))])
        with capture_logs() as said:
            second.open_next(1)
        failed.extend(line["event"] for line in said if line["event"] in ("one_by_one", "quarantined"))

    other = threading.Thread(target=withdraw_it)
    monkeypatch.setattr(withdrawals, "lock_those_free", claimed)
    monkeypatch.setattr(erasing, "erase", erase_now)
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
        wait_until(lambda: session.scalar(waits) == 1, "one session waiting for a lock")
        erasing.erase(session, kiosk.id, scan, [result])
    thread.join(30)
    with database.reading() as session:
        assert sorted(session.scalars(select(Envelope.state))) == ["erased", "opened"]


def test_signatures_are_checked_and_seals_opened_while_others_may_write(
    database: Database, kiosk: SealingKiosk, worker: IngestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, open_envelope = envelope.verify, envelope.open_envelope
    looked = list[str]()

    def another_writes() -> None:
        with database.writing() as session:
            session.execute(update(Kiosk).values(name=f"renamed {len(looked)}"))

    def checked(*given: Any) -> Any:
        looked.append("signature")
        another_writes()
        return verify(*given)

    def opened(*given: Any) -> Any:
        looked.append("seal")
        another_writes()
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
    assert Counter(looked) >= Counter(signature=4, seal=2)
