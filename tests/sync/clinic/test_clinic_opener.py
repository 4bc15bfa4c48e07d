from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.opening_keys import NO_KEY
from sync.clinic.receiving.sealed import read_opening_keys
from sync.clinic.scans.records import scan_record, withdrawn
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import Envelope, FindingRow, ReminderRow, Scan
from sync.wire import topics
from sync.wire.keys import OpeningKey, dump_opening_keys, generate_opening_key
from sync.wire.messages import Message, ReminderDue, Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, findings, miss, registered
from tests.support.waiting import wait_until


class Newer(Withdraw):
    """A message of a version that the clinic's software does not know yet."""

    VERSION: ClassVar[int] = 99


def store(database: Database, kiosk: SealingKiosk, message: Message | None = None) -> UUID:
    message_id = uuid4()
    topic = topics.up_kind(message.KIND if message else "result")
    with database.writing() as session:
        data = kiosk.seal(message, message_id=message_id)
        assert take_envelope(session, kiosk.id, topic, data, "ingest-1") == "stored"
    return message_id


def open_all(database: Database, *keys: OpeningKey, export: Path | None = None) -> None:
    opener = Opener(database, keys, export)
    opener.begin()
    while opener.open_next():
        pass


def state(database: Database, message_id: UUID) -> tuple[str, str | None]:
    with database.reading() as session:
        row = session.scalars(select(Envelope).where(Envelope.message_id == message_id)).one()
        return row.state, row.reason


def count(database: Database, table: type[Scan] | type[FindingRow]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def withdraw(scan: UUID) -> Withdraw:
    return Withdraw(scan=scan, at=MOMENT, reason="patient")


def test_a_result_becomes_a_scan_with_its_findings(database: Database, kiosk: SealingKiosk) -> None:
    result = kiosk.result()
    message_id = store(database, kiosk, result)
    open_all(database, kiosk.opening)
    assert state(database, message_id) == ("opened", None)
    with database.reading() as session:
        record = scan_record(session, result.scan)
        assert record is not None
        assert (record.scan.patient_reference, record.scan.captured_at) == ("ref-1", MOMENT)
        assert [(row.measure, row.zone, row.value, row.unit) for row in record.findings] == [
            (f.measure, f.zone, f.value, f.unit) for f in result.findings.findings
        ]
        assert record.scan.geometry == result.findings.geometry


def test_what_is_opened_is_not_opened_again(database: Database, kiosk: SealingKiosk) -> None:
    store(database, kiosk)
    open_all(database, kiosk.opening)
    assert Opener(database, [kiosk.opening]).open_next() is False
    assert count(database, Scan) == 1


def test_openers_that_run_at_once_make_one_record_of_each(database: Database, kiosk: SealingKiosk) -> None:
    for _ in range(10):
        store(database, kiosk)
    threads = [threading.Thread(target=open_all, args=(database, kiosk.opening)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    open_all(database, kiosk.opening)
    with database.reading() as session:
        states = session.scalars(select(Envelope.state)).all()
    assert (list(states), count(database, Scan)) == (["opened"] * 10, 10)


def test_a_second_result_of_a_scan_is_not_taken(database: Database, kiosk: SealingKiosk) -> None:
    result = kiosk.result()
    store(database, kiosk, result)
    second = store(database, kiosk, result)
    open_all(database, kiosk.opening)
    assert state(database, second) == ("quarantined", "second_result")
    assert count(database, Scan) == 1


def test_a_result_that_supersedes_the_first_replaces_it(database: Database, kiosk: SealingKiosk) -> None:
    scan = uuid4()
    first = store(database, kiosk, kiosk.result(scan))
    better = kiosk.result(scan, findings=findings(scan, ita=40.0), supersedes=first)
    second = store(database, kiosk, better)
    open_all(database, kiosk.opening)
    with database.reading() as session:
        (row,) = session.scalars(select(Scan)).all()
        assert (row.id, row.message_id, row.supersedes) == (scan, second, first)
    assert count(database, FindingRow) == len(better.findings.findings)


def test_no_kiosk_replaces_or_withdraws_the_scan_of_another(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    scan = uuid4()
    first = store(database, kiosk, kiosk.result(scan))
    attempts = [
        store(database, other, other.result(scan, supersedes=first)),
        store(database, other, withdraw(scan)),
    ]
    open_all(database, kiosk.opening)
    for message_id in attempts:
        assert state(database, message_id) == ("quarantined", "scan_of_another_kiosk")
    with database.reading() as session:
        assert scan_record(session, scan) is not None and withdrawn(session, scan) is None


def test_a_reminder_is_kept(database: Database, kiosk: SealingKiosk) -> None:
    reminder = ReminderDue(
        reminder=uuid4(), patient_reference="ref-1", rule="yearly", due_on=MOMENT.date(), scan=None
    )
    store(database, kiosk, reminder)
    open_all(database, kiosk.opening)
    with database.reading() as session:
        row = session.scalars(select(ReminderRow)).one()
    assert (row.id, row.due_on) == (reminder.reminder, MOMENT.date())


def test_a_message_of_an_unknown_version_is_quarantined_and_tried_again_on_request(
    database: Database, kiosk: SealingKiosk
) -> None:
    message_id = store(database, kiosk, Newer(scan=uuid4(), at=MOMENT, reason="staff"))
    open_all(database, kiosk.opening)
    assert state(database, message_id) == ("quarantined", "unknown_schema")
    Opener(database, [kiosk.opening]).begin(again=True)
    assert state(database, message_id) == ("stored", None)


def test_an_envelope_waits_for_the_key_that_opens_it(database: Database, kiosk: SealingKiosk) -> None:
    message_id, other = store(database, kiosk), generate_opening_key()
    open_all(database, other)
    assert state(database, message_id) == ("stored", None)
    assert miss(database, other).open_next()
    assert state(database, message_id) == ("quarantined", NO_KEY)
    open_all(database, kiosk.opening)
    assert state(database, message_id) == ("opened", None)


def test_an_opener_leaves_alone_what_is_sealed_to_a_key_that_another_one_holds(
    database: Database, kiosk: SealingKiosk
) -> None:
    other = generate_opening_key()
    one, both = Opener(database, [other]), Opener(database, [other, kiosk.opening])
    both.begin()
    message_id = store(database, kiosk)
    assert not one.open_next()
    assert state(database, message_id) == ("stored", None)
    assert both.open_next()
    assert state(database, message_id) == ("opened", None)


def test_an_opener_looks_once_more_at_what_another_one_had_no_key_for(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opener_module, "LOOK_AGAIN_S", 0.0)
    first, message_id = Opener(database, [kiosk.opening]), store(database, kiosk)
    with database.writing() as session:
        session.execute(update(Envelope).values(state="quarantined", reason=NO_KEY))
    stop = threading.Event()
    thread = threading.Thread(target=first.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: state(database, message_id) == ("opened", None), "the message opened")
    finally:
        stop.set()
        thread.join()


def test_an_opener_that_cannot_say_which_keys_it_holds_opens_what_waits_all_the_same(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("database table is locked"))

    monkeypatch.setattr("sync.clinic.receiving.opening_keys.say", locked)
    opener, message_id, stop = Opener(database, [kiosk.opening]), store(database, kiosk), threading.Event()
    thread = threading.Thread(target=opener.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: state(database, message_id) == ("opened", None), "the message opened")
    finally:
        stop.set()
        thread.join()


def test_a_scrub_that_fails_is_not_forgotten(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    opener.scrub()
    store(database, kiosk, withdraw(uuid4()))
    scrubbed: list[bool] = []

    def fail(*_: object) -> bool:
        scrubbed.append(True)
        if len(scrubbed) == 1:
            raise ZeroDivisionError
        return True

    monkeypatch.setattr(Database, "scrub", fail)
    assert opener.open_next()
    with pytest.raises(ZeroDivisionError):
        opener.scrub()
    opener.scrub()
    assert len(scrubbed) == 2


def test_the_opener_believes_no_row_of_the_database(database: Database, kiosk: SealingKiosk) -> None:
    message_id = store(database, kiosk)
    with database.writing() as session:
        row = session.scalars(select(Envelope).where(Envelope.message_id == message_id)).one()
        changed = row.data[:-1] + bytes([row.data[-1] ^ 1])
        session.execute(update(Envelope).values(data=changed))
    open_all(database, kiosk.opening)
    assert state(database, message_id) == ("quarantined", "bad_signature")
    assert count(database, Scan) == 0


def test_a_quarantined_envelope_holds_up_no_other(database: Database, kiosk: SealingKiosk) -> None:
    store(database, kiosk, Newer(scan=uuid4(), at=MOMENT, reason="staff"))
    store(database, kiosk)
    open_all(database, kiosk.opening)
    assert count(database, Scan) == 1


def test_what_is_opened_can_be_exported_for_its_owner_only(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    result = kiosk.result()
    message_id = store(sqlite, kiosk, result)
    open_all(sqlite, opening_key, export=tmp_path / "opened")
    (path,) = (tmp_path / "opened").glob("*.json")
    assert (path.name, path.stat().st_mode & 0o777) == (f"{kiosk.id}.{message_id}.json", 0o600)
    assert json.loads(path.read_text()) == result.model_dump(mode="json")


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"opening_keys": []}'])
def test_without_an_opening_key_the_opener_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "opening.key").write_bytes(content)
    with pytest.raises(ClinicUsageError, match="provision opener"):
        read_opening_keys(tmp_path / "opening.key")


def test_a_key_file_may_hold_several_keys(tmp_path: Path) -> None:
    held = [generate_opening_key(), generate_opening_key()]
    (tmp_path / "opening.key").write_bytes(dump_opening_keys(held))
    assert [key.kid for key in read_opening_keys(tmp_path / "opening.key")] == [key.kid for key in held]
