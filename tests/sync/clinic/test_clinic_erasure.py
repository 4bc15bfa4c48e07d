"""What is erased is gone from every file: the database, its log, dead rows, what was exported."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from sync.clinic.receiving import opening_keys
from sync.clinic.receiving.erasing_from_files import SCRUB_S
from sync.clinic.receiving.export_folder import MARK
from sync.clinic.receiving.opener import LOOK_AGAIN_S, Opener
from sync.clinic.store.database import Database
from sync.clinic.store.notify import Notifier
from sync.clinic.store.tables import HeldKey, Scan
from sync.wire.keys import OpeningKey
from tests.support.clinic import SealingKiosk, findings, registered
from tests.support.effort import statements
from tests.support.full_disk import on_a_small_disk
from tests.support.waiting import wait_until
from tests.support.withdrawing import (
    OTHER,
    REFERENCE,
    a_result,
    arrive,
    count,
    envelope,
    files_of,
    open_all,
    withdraw,
)


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
    monkeypatch.setattr("sync.clinic.store.engine.BUSY_S", 1000)  # a wait for it would end the test
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
    opener.scrub()
    assert REFERENCE.encode() not in files_of(tmp_path / "clinic")
    hasty.close()


FULL = """
from sqlalchemy import text
from sync.clinic.store.database import Database
database = Database.at(disk / "clinic")
with database.writing() as session:
    session.execute(text("CREATE TABLE filling (data BLOB)"))
    session.execute(text("INSERT INTO filling VALUES (randomblob(400000))"))
fill()
before = database.scrub()
(disk / "filler").unlink()
print([before, database.scrub()])
"""


def test_a_disk_without_room_only_puts_off_the_emptying_of_the_log(tmp_path: Path) -> None:
    assert on_a_small_disk(tmp_path, FULL).splitlines()[-1] == "[False, True]"


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


def test_a_vacuum_that_postgresql_gives_up_holds_up_nothing_that_waits_to_be_opened(
    postgresql_url: str, opening_key: OpeningKey, tmp_path: Path
) -> None:
    database = Database.at(tmp_path / "clinic", f"{postgresql_url}&options=-cstatement_timeout%3D500")
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    opener = Opener(database, [opening_key])
    opener.begin()
    with database.engine.connect() as other, statements(database) as said, capture_logs() as logged:
        other.execute(text("LOCK TABLE findings IN SHARE UPDATE EXCLUSIVE MODE"))  # as a vacuum holds it
        for _ in range(3):
            arrive(database, kiosk, withdraw(uuid4()))
            assert opener.open_next()
        wait_until(
            lambda: any(entry["event"] == "not_scrubbed" for entry in logged),
            "the log saying that nothing was scrubbed",
        )
    assert [statement.split()[0] for statement, _ in said].count("VACUUM") == 1
    assert [entry["kind"] for entry in logged if entry["event"] == "not_scrubbed"] == ["QueryCanceled"]
    opener.scrub()
    assert not opener._scrubber._due.is_set()
    database.close()


def test_while_a_large_postgresql_is_vacuumed_the_opener_opens_says_its_keys_and_lives_and_it_can_be_stopped(
    postgresql: Database,
    opening_key: OpeningKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening_keys, "SAY_S", 0.2)
    monkeypatch.setattr("sync.clinic.receiving.opener.LAST_SCRUB_S", 0.2)
    lived: list[float] = []
    monkeypatch.setattr(Notifier, "alive", lambda _: lived.append(time.monotonic()))
    kiosk = registered(postgresql, SealingKiosk(opening_key), tmp_path)
    opener, stop = Opener(postgresql, [opening_key]), threading.Event()
    opener.begin()

    def vacuuming() -> bool:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND state = 'active'"
        )
        with postgresql.reading() as session:
            return session.scalar(waiting) == 1

    def said_at() -> datetime:
        with postgresql.reading() as session:
            return session.scalars(select(HeldKey.seen)).one()

    thread = threading.Thread(target=opener.run, args=(stop,))
    with postgresql.engine.connect() as other:
        # As long as this lasts a vacuum waits, as one does that has much to look through.
        other.execute(text("LOCK TABLE findings IN SHARE UPDATE EXCLUSIVE MODE"))
        thread.start()
        try:
            wait_until(vacuuming, "the vacuum waiting for its lock")
            before, message = said_at(), arrive(postgresql, kiosk, a_result(kiosk, uuid4()))
            wait_until(lambda: envelope(postgresql, message).state == "opened", "the message opened")
            wait_until(lambda: said_at() > before, "the opener saying its keys anew")
            turns = len(lived)
            wait_until(lambda: len(lived) > turns + 2, "the opener saying that it lives")
        finally:
            stop.set()
            thread.join(10)
        assert not thread.is_alive()
        assert vacuuming()


def test_however_long_a_scrub_takes_it_has_but_a_part_of_the_time(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, scrubs = [1000.0], list[float]()

    def fail_late() -> bool:
        scrubs.append(clock[0])
        clock[0] += 30.0
        return False

    monkeypatch.setattr("sync.clinic.receiving.opener.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(sqlite, "scrub", fail_late)
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    opener = Opener(sqlite, [opening_key])
    opener.begin()
    for _ in range(40):
        clock[0] += 20.0
        arrive(sqlite, kiosk, withdraw(uuid4()))
        assert opener.open_next()
    assert len(scrubs) == 3


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
    assert {path.name for path in out.iterdir()} == {MARK, f"{kiosk.id}.{word}.json"}


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


def test_a_flood_of_erasures_is_scrubbed_now_and_then_and_what_a_command_left_once_a_day(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, scrubs = [1000.0], []
    monkeypatch.setattr("sync.clinic.receiving.opener.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(sqlite, "scrub", lambda: scrubs.append(clock[0]) is None)
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    opener = Opener(sqlite, [opening_key])
    opener.begin()
    for _ in range(12):
        clock[0] += SCRUB_S / 4
        arrive(sqlite, kiosk, withdraw(uuid4()))
        while opener.open_next():
            pass
    # The first is for what an earlier process may have left.
    assert [at - scrubs[0] for at in scrubs] == [0, SCRUB_S, 2 * SCRUB_S]
    clock[0] += SCRUB_S
    opener.open_next()
    del scrubs[:]
    opener._look_again()
    opener.open_next()
    assert scrubs == []
    clock[0] += LOOK_AGAIN_S
    opener._look_again()
    opener.open_next()
    assert scrubs == [clock[0]]
