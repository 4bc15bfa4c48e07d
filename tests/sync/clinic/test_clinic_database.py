from __future__ import annotations

import inspect
import json
import threading
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from sync.clinic.receiving.heartbeats import take_heartbeat
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.receipts import Owed, owe
from sync.clinic.receiving.registry import register_kiosk
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.failure import failed_itself
from sync.clinic.store.rows import Column, append, insert_once, put_all
from sync.clinic.store.tables import (
    REVISION,
    Account,
    AuditEvent,
    Base,
    FindingRow,
    HeldKey,
    KioskKey,
    ReceiptRow,
    Scan,
    WebSession,
)
from sync.clinic.summary import summary
from sync.wire.keys import OpeningKey, generate_signing_key
from sync.wire.messages import ReminderDue
from sync.wire.receipt import ReceiptStatus
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat, of_an_earlier_version, registered
from tests.support.effort import statements


def test_the_migrations_make_exactly_the_schema_of_the_code(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)  # it compares types too
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == REVISION


def test_migrating_again_changes_nothing(database: Database) -> None:
    assert database.migrate() == database.migrate()
    database.require_current()


def test_a_checkout_with_a_percent_sign_in_its_path_can_migrate(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = inspect.getmodule(Database)
    assert module is not None
    (tmp_path / "100 % #1").symlink_to(Path(str(module.__file__)).parent)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "100 % #1" / "database.py"))
    assert empty_database.migrate() == REVISION


def rows_of(database: Database) -> dict[str, list[dict[str, object]]]:
    """Every row of every table, as it comes back."""
    with database.reading() as session:
        return {
            table.name: [dict(row) for row in session.execute(select(table)).mappings()]
            for table in Base.metadata.sorted_tables
        }


@pytest.mark.parametrize(
    ("version", "unknown_then"),
    [
        ("0001", {"epoch": None, "heartbeat_epoch": 0, "heartbeat_counter": 0}),
        ("0002", {"epoch": None, "heartbeat_epoch": 0, "heartbeat_counter": 0}),
        ("0003", {"epoch": None, "heartbeat_epoch": 0, "heartbeat_counter": 0}),
        ("0004", {"epoch": None, "heartbeat_epoch": 0, "heartbeat_counter": 0}),
        ("0005", {"epoch": None}),
        ("0006", {}),
        ("0007", {}),
        ("0008", {}),
        ("0009", {}),
        ("0010", {}),
        ("0011", {}),
        ("0012", {}),
    ],
)
def test_every_row_of_a_version_before_stays(
    empty_database: Database,
    opening_key: OpeningKey,
    tmp_path: Path,
    version: str,
    unknown_then: dict[str, object],
) -> None:
    newer, older = Database.at(tmp_path / "newer"), empty_database
    newer.migrate()
    kiosk = registered(newer, SealingKiosk(opening_key), tmp_path)
    reminder = ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=MOMENT.date())
    for kind, message in (("result", kiosk.result()), ("result", kiosk.result()), ("reminder", reminder)):
        with newer.writing() as session:
            take_envelope(session, kiosk.id, kind, kiosk.seal(message), "ingest-1")
    told: tuple[ReceiptStatus, ...] = ("duplicate", "quarantined", "reseal")
    with newer.writing() as session:
        owe(session, [Owed(kiosk.id, uuid4(), b"h" * 32, status, now()) for status in told], "ingest-1")
        take_heartbeat(session, kiosk.id, heartbeat(kiosk, counter=9).sign(kiosk.status), "ingest-1")
    opener = Opener(newer, [opening_key])
    while opener.open_next():
        pass
    of_an_earlier_version(newer, older, version)
    assert older.migrate() == REVISION
    expected = rows_of(newer)
    newer.close()
    (known,) = expected["kiosks"]
    assert (known["epoch"], known["heartbeat_counter"]) == (kiosk.epoch, 9)
    known |= unknown_then
    assert {name: len(rows) for name, rows in expected.items() if rows}["findings"] > 10
    assert rows_of(older) == expected
    # Both databases would have taken rows away with the tables that they refer to; and the keys hold again.
    with pytest.raises(IntegrityError), older.writing() as session:
        session.execute(update(Scan).values(message_id=uuid4()))


def test_what_an_earlier_version_knew_of_opening_keys_stays_so(empty_database: Database) -> None:
    """A missing one it knew by its audit log only, and one that was back from both."""
    empty_database.migrate("0008")
    missed = "INSERT INTO audit (at, actor, event, subject, detail) VALUES (:at, '', :event, :key, '{}')"
    with empty_database.writing() as session:
        for kid, held in ((b"held", True), (b"back", True), (b"retired", False)):
            row = {"kid": kid, "held": held, "since": MOMENT.replace(tzinfo=None)}
            session.execute(text("INSERT INTO opening_keys VALUES (:kid, :held, :since)"), row)
        for kid in (b"lost", b"lost", b"back", b"retired"):
            about = {"at": MOMENT.replace(tzinfo=None), "event": "opening-key-missing", "key": kid.hex()}
            session.execute(text(missed), about)
    empty_database.migrate()
    with empty_database.reading() as session:
        found = dict(session.execute(select(HeldKey.kid, HeldKey.state)).all())
        assert summary(session)["opening_keys_missing"] == [b"lost".hex()]
    assert found == {b"held": "held", b"back": "held", b"retired": "retired", b"lost": "missing"}


def test_what_an_earlier_version_noted_is_found_by_the_name_that_it_has_now(empty_database: Database) -> None:
    empty_database.migrate("0012")
    told = "INSERT INTO audit (at, actor, event, subject, detail) VALUES (:at, :who, :event, :of, :detail)"
    about = {"at": MOMENT.replace(tzinfo=None), "who": "a-name", "of": "a-b", "detail": '{"why": "a-b"}'}
    then = ("scan-read", "opening-key-missing", "withdrawal-applied-again", "alarm")
    with empty_database.writing() as session:
        for event in then:
            session.execute(text(told), about | {"event": event})
    empty_database.migrate()
    with empty_database.reading() as session:
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.id)).all()
        now_named = ["scan_read", "opening_key_missing", "withdrawal_applied_again", "alarm"]
        assert [row.event for row in rows] == now_named
        assert {(row.actor, row.subject, row.detail["why"]) for row in rows} == {("a-name", "a-b", "a-b")}


def test_an_empty_database_is_refused_with_the_command_that_mends_it(empty_database: Database) -> None:
    with pytest.raises(ClinicError, match="clinic migrate"):
        empty_database.require_current()


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as session:
        session.add(Account(name="ann", password_hash="x", created_at=now()))
        session.flush()
        raise ZeroDivisionError
    with database.reading() as session:
        assert session.get(Account, "ann") is None


def test_of_many_inserts_of_the_same_row_one_goes_in(database: Database) -> None:
    wins = []

    def insert() -> None:
        with database.writing() as session:
            account = Account(name="ann", password_hash="x", created_at=now())
            wins.append(insert_once(session, account))

    threads = [threading.Thread(target=insert) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(wins) == [False] * 7 + [True]


def receipt(message: UUID, status: str, at: datetime) -> dict[str, object]:
    key = {"kiosk": UUID(int=1), "message_id": message, "sha256": b"\0\xff" * 16}
    return key | {
        "worker": "ingest-1",
        "status": status,
        "at": at,
        "sent_at": None,
        "let_go": status == "stored",
    }


def test_many_rows_are_put_by_one_statement_and_of_several_with_one_key_the_last_stays(
    database: Database,
) -> None:
    moment, ids = now(), [uuid4() for _ in range(150)]
    rows = [receipt(each, "stored", moment) for each in ids]
    with statements(database) as said, database.writing() as session:
        put_all(session, ReceiptRow, rows)
        put_all(session, ReceiptRow, [*rows[:2], receipt(ids[0], "duplicate", moment)])
    assert len(said) == 2
    assert len({statement for statement, _ in said}) == 1, "another statement for another number of rows"
    if database.engine.dialect.name == "postgresql":
        assert isinstance(said[0][1]["sha256"], Column), "as text it is several times its bytes"
    with database.reading() as session:
        kept = {row.message_id: row.status for row in session.scalars(select(ReceiptRow))}
    assert kept == dict.fromkeys(ids, "stored") | {ids[0]: "duplicate"}


def test_a_text_that_is_too_long_is_refused_and_not_cut(postgresql: Database) -> None:
    with pytest.raises(DBAPIError, match="too long"), postgresql.writing() as session:
        put_all(session, ReceiptRow, [receipt(uuid4(), "s" * 17, now())])


def test_moments_come_back_as_they_went_in(database: Database) -> None:
    moment = now()
    with database.writing() as session:
        session.add(Account(name="ann", password_hash="x", created_at=moment))
    with database.reading() as session:
        stored = session.get(Account, "ann")
        assert stored is not None
        assert stored.created_at == moment


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(WebSession(token_hash=b"x", account="nobody", started_at=now(), seen_at=now()))


def test_the_database_file_is_readable_by_its_owner_only(sqlite: Database, tmp_path: Path) -> None:
    with sqlite.writing() as session:
        session.add(Account(name="ann", password_hash="x", created_at=now()))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "clinic").iterdir()}
    assert modes == dict.fromkeys(("clinic.sqlite", "clinic.sqlite-wal", "clinic.sqlite-shm"), 0o600)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/x",
        "not a url",
        "sqlite:////nonexistent/x.sqlite",
        "sqlite://",
        "postgresql://ann:secret@host:port/x",
        "postgresql://ann:se@cret@host/x",
    ],
)
def test_a_database_that_cannot_be_is_refused_in_a_sentence(url: str, tmp_path: Path) -> None:
    with pytest.raises(ClinicUsageError) as refused:
        Database.at(tmp_path, url)
    assert str(refused.value).endswith(".")
    assert "cret" not in str(refused.value)


def test_a_kiosk_registered_again_keeps_its_old_keys(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    kiosk.signing = generate_signing_key()
    path = tmp_path / "again.json"
    path.write_text(json.dumps(kiosk.registry_entry("Kiosk by the window")))
    register_kiosk(database, path)
    with database.reading() as session:
        purposes = session.scalars(select(KioskKey.purpose).where(KioskKey.kiosk == kiosk.id)).all()
    assert sorted(purposes) == ["result", "result", "status"]


def test_a_kiosk_that_signs_everything_with_one_key_is_refused(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk, path = SealingKiosk(opening_key), tmp_path / "kiosk.json"
    kiosk.status = kiosk.signing
    path.write_text(json.dumps(kiosk.registry_entry()))
    with pytest.raises(ClinicUsageError, match="no file of an enrolled kiosk"):
        register_kiosk(sqlite, path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kiosk": "x"}', '{"kiosk": 1, "keys": []}'])
def test_a_file_that_is_no_kiosk_is_refused(sqlite: Database, tmp_path: Path, content: str) -> None:
    path = tmp_path / "kiosk.json"
    path.write_text(content)
    with pytest.raises(ClinicUsageError, match="no file of an enrolled kiosk"):
        register_kiosk(sqlite, path)


@pytest.mark.parametrize(
    ("measure", "theirs"), [("no\0text", True), ("x" * 65, True), ("ita", True), ("cut off", False)]
)
def test_rows_that_are_copied_fail_as_those_of_a_statement_do(
    postgresql_url: str, tmp_path: Path, measure: str, theirs: bool
) -> None:
    database = Database.at(tmp_path / "clinic", postgresql_url)
    database.migrate()
    row = (uuid4(), 0, measure, "nose", 1.0, "1", 0.0, 2.0, "m")
    with pytest.raises(DBAPIError) as caught, database.writing() as session:
        if not theirs:
            backend = session.scalar(text("SELECT pg_backend_pid()"))
            with database.engine.connect() as other:
                other.execute(text(f"SELECT pg_terminate_backend({backend})"))
        append(session, FindingRow, [row])
    assert failed_itself(caught.value) is not theirs
    assert measure not in str(caught.value)
    with database.reading() as session:
        assert session.scalars(select(FindingRow)).all() == []
    database.close()
