"""A withdrawal erases: in any order, from every file, and again after an old copy of the database."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, insert, select, text, update

from sync.clinic import withdrawals
from sync.clinic.database import Database
from sync.clinic.intake import take_envelope
from sync.clinic.opener import Opener
from sync.clinic.records import scan_page, scan_record, withdrawn
from sync.clinic.tables import (
    AuditEvent,
    Base,
    Envelope,
    FindingRow,
    Poison,
    ReminderRow,
    Scan,
    Withdrawal,
    WithdrawnMessage,
)
from sync.clinic.tombstones import Tombstone, Tombstones, TombstonesUnusable
from sync.wire import topics
from sync.wire.keys import OpeningKey, dump_opening_keys, generate_opening_key
from sync.wire.messages import Message, ReminderDue, Result, Withdraw, WithdrawMessages
from tests.support.clinic import MOMENT, SealingKiosk, findings, of_an_earlier_version, registered

REFERENCE = "ref-withdrawn-0001"
OTHER = "ref-who-stays-0002"


class Newer(Result):
    """A result of a version that the clinic's software does not know yet."""

    VERSION: ClassVar[int] = 99


def arrive(database: Database, kiosk: SealingKiosk, message: Message, message_id: UUID | None = None) -> UUID:
    message_id = message_id or uuid4()
    data = kiosk.seal(message, message_id=message_id)
    with database.writing() as session:
        take_envelope(session, kiosk.id, topics.up_kind(message.KIND), data, "ingest-1")
    return message_id


def open_all(database: Database, *keys: OpeningKey, export: Path | None = None, again: bool = False) -> None:
    opener = Opener(database, keys, export)
    opener.begin(again=again)
    while opener.open_next():
        pass


def withdraw(scan: UUID, *messages: UUID, reason: str = "patient") -> Withdraw:
    return WithdrawMessages.model_validate(
        {"scan": scan, "at": MOMENT, "reason": reason, "messages": messages, "schema": 2}
    )


def a_result(kiosk: SealingKiosk, scan: UUID, **changes: Any) -> Any:
    return kiosk.result(scan, **({"patient_reference": REFERENCE} | changes))


def a_reminder(about: UUID | None) -> ReminderDue:
    return ReminderDue(
        reminder=uuid4(), patient_reference=REFERENCE, rule="yearly", due_on=MOMENT.date(), scan=about
    )


def envelope(database: Database, message_id: UUID) -> Envelope:
    with database.reading() as session:
        return session.scalars(select(Envelope).where(Envelope.message_id == message_id)).one()


def count(database: Database, table: type[Base]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def everything(database: Database) -> str:
    """Every value of every table, as text."""
    lines = []
    with database.reading() as session:
        for table in Base.metadata.sorted_tables:
            lines += [repr(tuple(row)) for row in session.execute(select(table))]
    return "\n".join(lines)


def test_a_withdrawal_erases_all_but_a_tombstone(database: Database, kiosk: SealingKiosk) -> None:
    scan, stays = uuid4(), uuid4()
    result = arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, stays, patient_reference=OTHER))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan))
    open_all(database, kiosk.opening)
    with database.reading() as session:
        assert scan_record(session, scan) is None
        assert [line.id for line in scan_page(session).lines] == [stays]
        assert scan_page(session, REFERENCE).lines == []
        stone = withdrawn(session, scan)
        assert stone is not None
        assert (stone.kiosk, stone.at, stone.reason) == (kiosk.id, MOMENT, "patient")
        assert set(session.scalars(select(FindingRow.scan))) == {stays}
    row = envelope(database, result)
    assert (row.state, row.data, len(row.sha256)) == ("erased", b"", 32)
    assert REFERENCE not in everything(database)
    assert OTHER in everything(database)


def before(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    arrive(database, kiosk, a_result(kiosk, scan), result)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


def overtaking(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    arrive(database, kiosk, withdraw(scan, result))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, a_result(kiosk, scan), result)


def overtaking_without_a_name(
    kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path
) -> None:
    arrive(database, kiosk, Withdraw(scan=scan, at=MOMENT, reason="patient"))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, a_result(kiosk, scan), result)


def both_unopened(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    arrive(database, kiosk, a_result(kiosk, scan), result)
    arrive(database, kiosk, withdraw(scan, result))


def twice(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    before(kiosk, database, scan, result, tmp_path)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


def quarantined(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    """Both results of a scan that was sealed twice: the second was not taken."""
    arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, scan), result)
    open_all(database, kiosk.opening)
    assert envelope(database, result).reason == "second_result"
    arrive(database, kiosk, withdraw(scan))


def never_opened(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    newer = Newer.model_construct(**vars(a_result(kiosk, scan)))
    arrive(database, kiosk, newer, result)
    open_all(database, kiosk.opening)
    assert envelope(database, result).state == "quarantined"
    arrive(database, kiosk, withdraw(scan, result))


def without_a_key(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    ours, kiosk.opening = kiosk.opening, generate_opening_key()
    arrive(database, kiosk, a_result(kiosk, scan), result)
    kiosk.opening = ours
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


def sealed_again(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    """The first came after all, and so did the one that supersedes it, which the withdrawal does not know."""
    arrive(database, kiosk, a_result(kiosk, scan), result)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, a_result(kiosk, scan, supersedes=result))


def superseding(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    first = arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, scan, supersedes=first), result)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


@pytest.mark.parametrize(
    "order",
    [
        before,
        overtaking,
        overtaking_without_a_name,
        both_unopened,
        twice,
        quarantined,
        never_opened,
        without_a_key,
        sealed_again,
        superseding,
    ],
)
def test_a_withdrawal_wins_in_whatever_order_things_come(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, order: Any
) -> None:
    scan, result = uuid4(), uuid4()
    order(kiosk, database, scan, result, tmp_path)
    open_all(database, kiosk.opening)
    open_all(database, kiosk.opening, again=True)
    with database.reading() as session:
        results = session.scalars(select(Envelope).where(Envelope.type == "result")).all()
        assert {(row.state, bytes(row.data)) for row in results} == {("erased", b"")}
    assert (count(database, Scan), count(database, FindingRow), count(database, Withdrawal)) == (0, 0, 1)
    assert REFERENCE not in everything(database)


def test_the_same_result_coming_again_after_its_withdrawal_is_a_duplicate_and_stays_erased(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan, message_id = uuid4(), uuid4()
    data = kiosk.seal(a_result(kiosk, scan), message_id=message_id)
    outcomes = []
    for again in range(2):
        with database.writing() as session:
            outcomes.append(take_envelope(session, kiosk.id, "result", data, "ingest-1"))
        if not again:
            arrive(database, kiosk, withdraw(scan, message_id))
        open_all(database, kiosk.opening)
    assert outcomes == ["stored", "duplicate"]
    assert envelope(database, message_id).data == b""


def test_another_kiosk_can_neither_withdraw_a_scan_nor_be_withdrawn_by_it(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    taken, early = uuid4(), uuid4()
    result = arrive(database, kiosk, a_result(kiosk, taken))
    attempts = [arrive(database, other, withdraw(taken, result))]
    squat = arrive(database, other, withdraw(early, result))
    open_all(database, kiosk.opening)
    attempts.append(arrive(database, other, a_result(other, taken)))
    arrive(database, kiosk, a_result(kiosk, early))
    open_all(database, kiosk.opening)
    assert [envelope(database, one).reason for one in attempts] == ["scan_of_another_kiosk"] * 2
    assert envelope(database, squat).state == "opened"  # it is about a scan that nobody had sent
    with database.reading() as session:
        assert {line.id for line in scan_page(session).lines} == {taken, early}


def test_a_scan_that_was_erased_cannot_be_taken_over(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    scan = uuid4()
    arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, withdraw(scan))
    open_all(database, kiosk.opening)
    attempt = arrive(database, other, a_result(other, scan))
    open_all(database, kiosk.opening)
    assert envelope(database, attempt).reason == "scan_of_another_kiosk"
    assert count(database, Scan) == 0


def test_a_reminder_about_a_withdrawn_scan_goes_with_it(database: Database, kiosk: SealingKiosk) -> None:
    scan = uuid4()

    arrive(database, kiosk, a_result(kiosk, scan))
    early = arrive(database, kiosk, a_reminder(scan))
    arrive(database, kiosk, withdraw(scan))
    late = arrive(database, kiosk, a_reminder(scan))
    open_all(database, kiosk.opening)
    assert [envelope(database, one).data for one in (early, late)] == [b"", b""]
    assert count(database, ReminderRow) == 0
    arrive(database, kiosk, a_reminder(None))
    open_all(database, kiosk.opening)
    assert count(database, ReminderRow) == 1


def test_a_payload_in_quarantine_that_claims_to_be_the_result_goes_too(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan, message_id = uuid4(), uuid4()
    damaged = kiosk.seal(a_result(kiosk, scan), message_id=message_id)[:-1] + b"x"
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", damaged, "ingest-1") == "quarantined"
        assert take_envelope(session, kiosk.id, "result", b"something else", "ingest-1") == "quarantined"
    arrive(database, kiosk, withdraw(scan, message_id))
    open_all(database, kiosk.opening)
    with database.reading() as session:
        assert session.scalars(select(Poison.data)).all() == [b"something else"]


def files_of(folder: Path) -> bytes:
    """Every byte of the database, its write-ahead log and whatever else SQLite left."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("clinic.sqlite*")))


def test_no_byte_of_the_files_holds_the_reference_or_the_numbers_of_a_withdrawn_scan(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    gone: dict[UUID, tuple[str, UUID]] = {}
    for number in range(120):
        scan, reference = uuid4(), f"patient-{number:04d}-{uuid4().hex[:12]}"
        result = kiosk.result(
            scan,
            patient_reference=reference,
            findings=findings(scan, ita=1000.0 + number / 7, **{f"only_{number:04d}_here": 1.0}),
        )
        message_id = arrive(sqlite, kiosk, result)
        if number % 3 == 0:
            gone[scan] = (reference, message_id)
    open_all(sqlite, opening_key)
    needles = [needle.encode() for needle, _ in gone.values()]
    needles += [f"only_{number:04d}_here".encode() for number in range(0, 120, 3)]
    ciphertexts = [envelope(sqlite, message_id).data[200:260] for _, message_id in gone.values()]
    assert all(needle in files_of(tmp_path / "clinic") for needle in needles + ciphertexts)
    for scan, (_, message_id) in gone.items():
        arrive(sqlite, kiosk, withdraw(scan, message_id))
    open_all(sqlite, opening_key)
    left = files_of(tmp_path / "clinic")
    assert [needle for needle in needles + ciphertexts if needle in left] == []
    assert count(sqlite, Scan) == 80


def test_a_reader_in_the_way_only_puts_off_the_emptying_of_the_log_and_nobody_waits_for_it(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.clinic.database.BUSY_SECONDS", 1000)  # a wait for it would end the test
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    scan = uuid4()
    arrive(sqlite, kiosk, a_result(kiosk, scan))
    open_all(sqlite, opening_key)
    arrive(sqlite, kiosk, withdraw(scan))
    hasty = Database.at(tmp_path / "clinic")
    opener = Opener(hasty, [opening_key])
    with sqlite.reading() as session:
        session.execute(select(Scan)).all()
        assert opener.open_next()
        assert REFERENCE.encode() in files_of(tmp_path / "clinic")
    opener._scrub()
    assert REFERENCE.encode() not in files_of(tmp_path / "clinic")
    hasty.close()


def test_what_a_process_that_was_killed_had_not_emptied_the_next_one_empties(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    scan = uuid4()
    arrive(sqlite, kiosk, a_result(kiosk, scan))
    open_all(sqlite, opening_key)
    arrive(sqlite, kiosk, withdraw(scan))

    def killed(_: Database) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Database, "scrub", killed)
        with pytest.raises(KeyboardInterrupt):
            Opener(sqlite, [opening_key]).open_next()
    assert REFERENCE.encode() in files_of(tmp_path / "clinic")
    arrive(sqlite, kiosk, a_result(kiosk, uuid4(), patient_reference=OTHER))
    open_all(sqlite, opening_key)
    assert REFERENCE.encode() not in files_of(tmp_path / "clinic")


def test_postgresql_keeps_no_dead_row_of_a_withdrawn_scan(
    postgresql_url: str, opening_key: OpeningKey, tmp_path: Path
) -> None:
    database = Database.at(tmp_path / "clinic", postgresql_url)
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    scan = uuid4()
    arrive(database, kiosk, a_result(kiosk, scan))
    open_all(database, opening_key)
    arrive(database, kiosk, withdraw(scan))
    open_all(database, opening_key)
    with database.reading() as session:
        session.execute(text("CREATE EXTENSION IF NOT EXISTS pgstattuple"))
        for table in ("scans", "findings"):
            dead = session.scalar(text("SELECT dead_tuple_count FROM pgstattuple(:table)"), {"table": table})
            assert dead == 0, table
    database.close()


def test_what_was_exported_of_a_withdrawn_scan_is_deleted(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    scan, out = uuid4(), tmp_path / "opened"
    result = arrive(sqlite, kiosk, a_result(kiosk, scan))
    open_all(sqlite, opening_key, export=out)
    assert REFERENCE in (out / f"{kiosk.id}.{result}.json").read_text()
    (out / f"{kiosk.id}.{result}.part").write_text("half of it")
    word = arrive(sqlite, kiosk, withdraw(scan))
    open_all(sqlite, opening_key, export=out)
    assert [path.name for path in out.iterdir()] == [f"{kiosk.id}.{word}.json"]


def test_what_was_exported_of_another_kiosks_message_of_the_same_id_stays(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk, other = (registered(sqlite, SealingKiosk(opening_key), tmp_path) for _ in range(2))
    scan, message_id, out = uuid4(), uuid4(), tmp_path / "opened"
    arrive(sqlite, kiosk, a_result(kiosk, uuid4()), message_id)
    arrive(sqlite, other, a_result(other, scan), message_id)
    arrive(sqlite, other, withdraw(scan, message_id))
    open_all(sqlite, opening_key, export=out)
    open_all(sqlite, opening_key, export=out)
    assert REFERENCE in (out / f"{kiosk.id}.{message_id}.json").read_text()


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
        assert (first["event"], first["count"]) == ("withdrawals-applied-again", 1)
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
    withdrawals.reapply(database)
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
        with pytest.raises(TombstonesUnusable, match="No space left"):
            Opener(database, [kiosk.opening]).open_next()
    assert count(database, Scan) == 1
    assert envelope(database, word).state == "stored"  # it is not set aside: it is tried again
    open_all(database, kiosk.opening)
    assert count(database, Scan) == 0


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
        patch.setattr(withdrawals, "erase", power_loss)
        with pytest.raises(KeyboardInterrupt):
            Opener(database, [kiosk.opening]).open_next()
    withdrawals.reapply(database)
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
    withdrawals.reapply(database)
    assert database.tombstones.read() == known
    with database.reading() as session:
        events = session.scalars(select(AuditEvent.event).where(AuditEvent.subject == str(scan))).all()
    assert events == ["scan-withdrawn"]


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
    withdrawals.reapply(database)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(step, 100)
    withdrawals.reapply(database)
    database.close()
    return steps


def test_a_start_takes_no_longer_for_each_withdrawal_when_there_are_many(
    opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = SealingKiosk(opening_key)
    few, many = (steps_of_a_start(tmp_path / str(number), kiosk, number) for number in (50, 200))
    assert few < many < 6 * few


def a_stone() -> Tombstone:
    return Tombstone(
        kiosk=uuid4(), scan=uuid4(), message_id=uuid4(), messages=(uuid4(),), at=MOMENT, reason="staff"
    )


def test_a_line_that_the_power_cut_in_two_is_written_over(tmp_path: Path) -> None:
    stones, file = [a_stone() for _ in range(3)], Tombstones(tmp_path / "withdrawn.lines")
    for stone in stones[:2]:
        file.add(stone)
    whole = file.path.read_bytes()
    for torn in (whole[:-1], whole[:-40], whole + b"\0" * 50):
        file.path.write_bytes(torn)
        assert stones[:2][: torn.count(b"\n")] == file.read()
        file.add(stones[2])
        assert file.read()[-1] == stones[2]
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_takes_only_a_part_of_a_line_has_not_taken_it(tmp_path: Path) -> None:
    file, stones = Tombstones(tmp_path / "withdrawn.lines"), [a_stone() for _ in range(2)]
    file.add(stones[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 10, hard))
    try:
        with pytest.raises(TombstonesUnusable, match="cannot be written"):
            file.add(stones[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read() == stones[:1]
    file.add(stones[1])
    assert file.read() == stones


def damaged(lines: bytes) -> Iterable[bytes]:
    yield lines.replace(b"staff", b"stuff", 1)
    yield b"\n" + lines
    yield lines[1:]


def test_a_damaged_line_stops_the_commands_with_the_line_and_the_file(tmp_path: Path) -> None:
    file = Tombstones(tmp_path / "withdrawn.lines")
    for _ in range(2):
        file.add(a_stone())
    for lines in damaged(file.path.read_bytes()):
        file.path.write_bytes(lines)
        with pytest.raises(TombstonesUnusable, match=r"Line 1 of .*withdrawn\.lines is damaged"):
            file.read()


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
    withdrawals.reapply(database)
    assert REFERENCE not in everything(database)
    assert OTHER in everything(database)
    for message in (first, result, due):
        assert (envelope(database, message).state, envelope(database, message).data) == ("erased", b"")
    (stone,) = database.tombstones.read()
    assert (stone.scan, stone.kiosk, stone.message_id, stone.reason) == (scan, kiosk.id, word, "staff")
