"""Tombstones outlive an old copy of the database, a power cut and a full disk."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, insert, select, text, update
from structlog.testing import capture_logs

from sync.clinic.receiving import erasing, withdrawals
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import (
    AuditEvent,
    Envelope,
    Scan,
    Withdrawal,
    WithdrawnMessage,
)
from sync.clinic.store.tombstones import Tombstone, Tombstones, TombstonesUnusable
from sync.wire.keys import OpeningKey, dump_opening_keys
from tests.support.clinic import MOMENT, SealingKiosk, of_an_earlier_version, registered
from tests.support.effort import statements
from tests.support.withdrawing import (
    OTHER,
    REFERENCE,
    Newer,
    a_reminder,
    a_result,
    a_stone,
    arrive,
    count,
    envelope,
    everything,
    files_of,
    open_all,
    withdraw,
)


def copy_of(folder: Path, out: Path) -> Path:
    """A copy of a SQLite database that nobody writes, as a backup takes it."""
    out.mkdir()
    for path in folder.glob("clinic.sqlite*"):
        shutil.copy2(path, out)
    return out


def bring_back(copy: Path, folder: Path) -> None:
    for path in folder.glob("clinic.sqlite*"):
        path.unlink()
    for path in copy.iterdir():
        shutil.copy2(path, folder)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("command", ["open", "ingest", "serve", "status"])
def test_an_old_copy_of_the_database_is_erased_again_before_anything_opens(
    tmp_path: Path, opening_key: OpeningKey, command: str, opened: bool
) -> None:
    state = tmp_path / "clinic"
    database = Database.at(state)
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    scan, stays = uuid4(), uuid4()
    result = arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, stays, patient_reference=OTHER))
    if opened:
        open_all(database, opening_key)
    database.close()
    backup = copy_of(state, tmp_path / "backup")
    arrive(database, kiosk, withdraw(scan, result))
    open_all(database, opening_key)
    database.close()
    bring_back(backup, state)
    assert envelope(database, result).data != b""
    database.close()

    (state / "opener").mkdir()
    (state / "opener" / "opening.key").write_bytes(dump_opening_keys([opening_key]))
    argv = ["clinic", command, "--state", str(state)] + (["--port", "0"] if command == "serve" else [])
    process = subprocess.Popen(
        [sys.executable, "-c", "from kiosk_app.cli import main; main()", *argv],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        first = json.loads(process.stderr.readline())
        assert (first["event"], first["count"]) == ("withdrawals_applied_again", 1)
        assert envelope(database, result).state == "erased"
        assert REFERENCE not in everything(database)
        if opened:
            assert REFERENCE.encode() not in files_of(state)
            assert OTHER in everything(database)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        database.close()


def test_an_old_copy_is_erased_on_postgresql_too(
    postgresql_url: str, opening_key: OpeningKey, tmp_path: Path
) -> None:
    """The rows as they were, put back by hand: what a restored dump has."""
    database = Database.at(tmp_path / "clinic", postgresql_url)
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    scan = uuid4()
    message_id = uuid4()
    data = kiosk.seal(a_result(kiosk, scan), message_id=message_id)
    with database.writing() as session:
        take_envelope(session, kiosk.id, "result", data, "ingest-1")
    open_all(database, opening_key)
    arrive(database, kiosk, withdraw(scan))
    open_all(database, opening_key)
    with database.writing() as session:
        for table in ("withdrawn_messages", "withdrawals", "findings", "scans", "receipts", "envelopes"):
            session.execute(text(f"DELETE FROM {table}"))
        take_envelope(session, kiosk.id, "result", data, "ingest-1")
    erasing.reapply(database)
    assert count(database, Withdrawal) == 1
    open_all(database, opening_key)
    assert REFERENCE not in everything(database)
    assert envelope(database, message_id).state == "erased"
    database.close()


def test_a_tombstone_is_on_the_disk_before_anything_is_erased(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = uuid4()
    arrive(database, kiosk, a_result(kiosk, scan))
    open_all(database, kiosk.opening)
    word = arrive(database, kiosk, withdraw(scan))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert Opener(database, [kiosk.opening]).open_next()
    assert count(database, Scan) == 1
    assert envelope(database, word).state == "stored"  # it is not set aside: it is tried again
    open_all(database, kiosk.opening)
    assert count(database, Scan) == 0


def test_a_file_that_takes_no_tombstone_holds_up_withdrawals_only_and_nothing_of_their_scans_comes_in(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[Tombstone]()
    scans, named = [uuid4() for _ in range(5)], uuid4()
    words = [arrive(database, kiosk, withdraw(scan, named)) for scan in scans[:1]]
    words += [arrive(database, kiosk, withdraw(scan)) for scan in scans[1:]]
    arrive(database, kiosk, a_result(kiosk, uuid4(), patient_reference=OTHER))

    def unwritable(_: Tombstones, stone: Tombstone) -> None:
        tried.append(stone)
        raise TombstonesUnusable("not now")

    running = Opener(database, [kiosk.opening])
    with monkeypatch.context() as patch:
        patch.setattr(Tombstones, "add", unwritable)
        while running.open_next(3):
            pass
        assert (count(database, Scan), len(tried)) == (1, 1)
        # Another process knows it too.
        late = [arrive(database, kiosk, a_result(kiosk, scan)) for scan in scans]
        late.append(arrive(database, kiosk, a_result(kiosk, uuid4()), named))
        again = Opener(database, [kiosk.opening])
        while again.open_next(3):
            pass
    assert [envelope(database, word).state for word in words] == ["stored"] * 5
    assert {(envelope(database, one).state, envelope(database, one).data) for one in late} == {
        ("erased", b"")
    }
    assert REFERENCE not in everything(database) and count(database, Scan) == 1
    assert not running.open_next(3)
    running._alone._tombstones_rest_until = 0.0
    assert running.open_next(3) and running.open_next(3)
    assert {stone.scan for stone in database.tombstones.read()} == set(scans)


def test_a_scan_whose_erasure_was_cut_short_is_erased_at_the_next_start(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = uuid4()
    arrive(database, kiosk, a_result(kiosk, scan))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan))

    def power_loss(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "erase", power_loss)
        with pytest.raises(KeyboardInterrupt):
            Opener(database, [kiosk.opening]).open_next()
    erasing.reapply(database)
    assert count(database, Scan) == 0
    open_all(database, kiosk.opening)
    assert len(database.tombstones.read()) == 1


def test_the_file_and_the_database_tell_each_other_what_they_know(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, withdraw(scan))
    open_all(database, kiosk.opening)
    known = database.tombstones.read()
    database.tombstones.path.unlink()
    erasing.reapply(database)
    assert database.tombstones.read() == known
    with database.reading() as session:
        events = session.scalars(select(AuditEvent.event).where(AuditEvent.subject == str(scan))).all()
    assert events == ["scan_withdrawn"]


def test_a_second_withdrawal_of_a_scan_adds_the_messages_that_only_it_names_to_both(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan, named = uuid4(), [uuid4() for _ in range(2)]
    for messages in (named[:1], named[:1], named[1:]):
        arrive(database, kiosk, withdraw(scan, *messages))
        open_all(database, kiosk.opening)
    assert [stone.messages for stone in database.tombstones.read()] == [(named[0],), (named[1],)]
    for forgotten in (WithdrawnMessage.message_id == named[1], WithdrawnMessage.scan == scan):
        with database.writing() as session:
            session.execute(delete(WithdrawnMessage).where(forgotten))
        erasing.reapply(database)
        with database.reading() as session:
            assert set(session.scalars(select(WithdrawnMessage.message_id))) == set(named)
    late = arrive(database, kiosk, Newer.model_construct(**vars(a_result(kiosk, scan))), named[1])
    open_all(database, kiosk.opening)
    assert envelope(database, late).state == "erased"


def test_a_scan_that_is_withdrawn_again_and_again_fills_neither_file_nor_database(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawals, "MOST_OF_ONE_SCAN", 3)
    scan, named = uuid4(), [uuid4() for _ in range(5)]
    words = list[UUID]()
    for message in named:
        words.append(arrive(database, kiosk, withdraw(scan, message)))
        last = arrive(database, kiosk, a_result(kiosk, scan), message)
        with capture_logs() as said:
            open_all(database, kiosk.opening)
        assert envelope(database, last).state == "erased"
    assert {"event": "withdrawn_too_often", "log_level": "warning"}.items() <= said[0].items()
    assert [stone.messages for stone in database.tombstones.read()] == [(name,) for name in named[:3]]
    with database.reading() as session:
        assert set(session.scalars(select(WithdrawnMessage.message_id))) == set(named[:3])
    kept = [envelope(database, word) for word in words]
    assert [(row.state, bool(row.data)) for row in kept] == [("opened", row is kept[0]) for row in kept]


def test_a_start_looks_up_only_what_the_lines_of_the_file_name_and_by_index(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    for _ in range(5):
        stone = a_stone().model_copy(update={"kiosk": kiosk.id, "unseen": True})
        sqlite.tombstones.add(stone)
    with statements(sqlite) as said:
        erasing.reapply(sqlite)
    with sqlite.reading() as session:
        plans = [
            step
            for statement, values in said
            if statement.startswith("SELECT") and "IN (" in statement
            for (_, _, _, step) in session.connection().exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement}", values
            )
        ]
    of_lines = [step for step in plans if "message_id=?" in step]
    assert any("envelopes" in step and "kiosk=?" in step for step in of_lines), plans
    # By itself SQLite scans a table, or an index of it, from one end to the other.
    of_names = [step for step in plans if "withdrawn_messages" in step]
    assert of_names and all(step.startswith("SEARCH") for step in of_names), plans


def steps_of_a_start(folder: Path, kiosk: SealingKiosk, withdrawn: int) -> int:
    """Hundreds of steps that SQLite takes to look for what is left of so many scans, among ten times more."""
    database = Database.at(folder)
    database.migrate()
    registered(database, kiosk, folder)
    scans, messages = [uuid4() for _ in range(10 * withdrawn)], [uuid4() for _ in range(10 * withdrawn)]
    known: dict[str, Any] = {"kiosk": kiosk.id}
    sealed = known | {"epoch": 1, "type": "result", "schema_version": 1, "recipient": b"", "sha256": b""}
    sealed |= {"created_at": MOMENT, "received_at": MOMENT, "data": b""}
    with database.writing() as session:
        rows = [
            sealed | {"message_id": message, "sequence": number, "scan": scan, "state": "opened"}
            for number, (message, scan) in enumerate(zip(messages, scans, strict=True), 1)
        ]
        for row in rows[:withdrawn]:
            row["state"] = "erased"
        session.execute(insert(Envelope), rows)
        gone = list(zip(messages, scans, strict=True))[:withdrawn]
        buried = [
            known | {"scan": scan, "message_id": uuid4(), "at": MOMENT, "reason": "patient"}
            for _, scan in gone
        ]
        session.execute(insert(Withdrawal), buried)
        session.execute(
            insert(WithdrawnMessage), [known | {"message_id": one, "scan": scan} for one, scan in gone]
        )
    erasing.reapply(database)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(step, 100)
    erasing.reapply(database)
    database.close()
    return steps


def test_a_start_takes_no_longer_for_each_withdrawal_when_there_are_many(
    opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = SealingKiosk(opening_key)
    few, many = (steps_of_a_start(tmp_path / str(number), kiosk, number) for number in (50, 200))
    assert few < many < 6 * few


def test_a_withdrawal_that_the_database_does_not_take_is_one_line_however_often_it_is_tried(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    arrive(sqlite, kiosk, withdraw(uuid4()))
    open_all(sqlite, kiosk.opening)
    word = arrive(sqlite, kiosk, withdraw(uuid4()))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    opener = Opener(sqlite, [kiosk.opening])
    with monkeypatch.context() as patch:
        patch.setattr(erasing, "erase", full)
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError):
                opener.open_next()
    assert envelope(sqlite, word).state == "stored"
    assert len(sqlite.tombstones.read()) == 2
    arrive(sqlite, kiosk, withdraw(uuid4()))
    open_all(sqlite, kiosk.opening)
    assert envelope(sqlite, word).state == "opened"
    assert len(sqlite.tombstones.read()) == 3


def test_what_an_earlier_version_had_only_marked_is_erased_after_the_migration(
    empty_database: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    newer, database = Database.at(tmp_path / "newer"), empty_database
    newer.migrate()
    kiosk = registered(newer, SealingKiosk(opening_key), tmp_path)
    scan, stays = uuid4(), uuid4()
    first = arrive(newer, kiosk, a_result(kiosk, scan))
    result = arrive(newer, kiosk, a_result(kiosk, scan, supersedes=first))
    due = arrive(newer, kiosk, a_reminder(scan))
    arrive(newer, kiosk, a_result(kiosk, stays, patient_reference=OTHER))
    word = arrive(newer, kiosk, withdraw(uuid4()))
    open_all(newer, opening_key)
    of_an_earlier_version(newer, database, "0002")
    with database.writing() as session:
        session.execute(update(Withdrawal).values(scan=scan, reason="staff"))
    newer.close()
    database.migrate()
    erasing.reapply(database)
    assert REFERENCE not in everything(database)
    assert OTHER in everything(database)
    for message in (first, result, due):
        assert (envelope(database, message).state, envelope(database, message).data) == ("erased", b"")
    (stone,) = database.tombstones.read()
    assert (stone.scan, stone.kiosk, stone.message_id, stone.reason) == (scan, kiosk.id, word, "staff")
