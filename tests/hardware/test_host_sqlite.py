"""Stores in SQLite: each is brought up from the version before, and one of later software is left alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from firmware.lights.doses import Dose, DoseLedger, DoseRefused, Moment
from hardware.host.sqlite import bring_up, connect, empty_log, require_version
from hardware.profile import Limits
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsUnusable, RowDamaged
from sync.kiosk.outbox import Outbox, OutboxError

NOW = Moment(2e9, 100.0, "boot")


def outbox(path: Path) -> None:
    kept = Outbox(path)
    kept.put(uuid4(), "result", b"sealed")
    kept.close()


def records(path: Path) -> None:
    Records(path, Keyring(path.with_name("vault.key"))).create({"text": "2026-11"}, None)


def ledger(path: Path) -> None:
    kept = DoseLedger(path)
    try:
        kept.charge(Dose("ref", "session", 1.0), 0.0, Limits(), NOW)
        kept.renewed_at("uv365")
    finally:
        kept.close()


# What opens a store and writes to it -> (the version before, what takes it back to that, its error).
STORES: dict[Callable[[Path], None], tuple[int, tuple[str, ...], type[Exception]]] = {
    outbox: (5, ("DROP TABLE unvouched",), OutboxError),
    records: (
        2,
        ("DROP INDEX messages_by_scan",),
        RecordsUnusable,
    ),
    ledger: (2, ("DROP TABLE past",), DoseRefused),
}


def schema(path: Path) -> tuple[int, set[str]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM sqlite_schema").fetchall()
        return db.execute("PRAGMA user_version").fetchone()[0], {name for (name,) in tables}


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_a_store_of_the_version_before_is_brought_up_with_all_that_it_holds(
    tmp_path: Path, store: Callable[[Path], None]
) -> None:
    path, (before, back, _) = tmp_path / "store.sqlite", STORES[store]
    store(path)
    newest = schema(path)
    change(path, *back, f"PRAGMA user_version = {before}")
    store(path)
    assert schema(path) == newest and newest[0] == before + 1
    kept = {outbox: "envelopes", records: "scans", ledger: "pulses"}[store]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute(f"SELECT count(*) FROM {kept}").fetchone() == (2,)


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
@pytest.mark.parametrize("version", [99, -1])
def test_a_store_of_a_version_that_this_software_does_not_know_is_left_alone(
    tmp_path: Path, store: Callable[[Path], None], version: int
) -> None:
    path = tmp_path / "store.sqlite"
    store(path)
    change(path, f"PRAGMA user_version = {version}")
    with pytest.raises(STORES[store][2], match=f"its schema is {version}, this software knows"):
        store(path)
    assert schema(path)[0] == version


@pytest.mark.parametrize(
    ("version", "what_to_do"),
    [(0, "brings it up to 1"), (1, None), (2, "use the version that made it"), (-1, "use the version")],
)
def test_a_store_that_is_only_read_is_of_this_version_or_is_not_read(
    tmp_path: Path, version: int, what_to_do: str | None
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {version}")
        refused = (
            pytest.raises(sqlite3.DatabaseError, match=what_to_do) if what_to_do else contextlib.nullcontext()
        )
        with refused:
            require_version(db, ("CREATE TABLE a (x)",))


@pytest.mark.parametrize("garbled", [b"CREATE T\xffBLE", b"CREATE TXBLE"], ids=["not text", "text"])
@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_a_store_whose_schema_is_garbled_is_told_as_a_damaged_file(
    store: Callable[[Path], None], garbled: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "store.sqlite"
    store(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", garbled))
    before = path.read_bytes()
    _, _, refused = STORES[store]
    with pytest.raises(refused, match="the file is damaged: move it aside"):
        store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("figures", [b"{zzz", b'{"zzz": "\xff"}'], ids=["no JSON", "no text"])
def test_records_with_a_garbled_row_are_told_as_that_and_not_quoted(figures: bytes, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    records(path)
    change(path, f"UPDATE scans SET figures = CAST(x'{figures.hex()}' AS TEXT)")
    with pytest.raises(RowDamaged, match="of a scan is damaged: put a copy of them back") as refused:
        Records(path, Keyring(path.with_name("vault.key"))).latest()
    assert "zzz" not in str(refused.value)


@pytest.mark.parametrize("is_read", [False, True], ids=["alone", "while another one reads"])
def test_a_log_is_emptied_without_waiting_and_the_connection_waits_as_before(
    tmp_path: Path, is_read: bool
) -> None:
    path = tmp_path / "store.sqlite"
    statements: list[str] = []
    with (
        contextlib.closing(connect(path, 7.0, make=True)) as db,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE a (x)")
        if is_read:
            other.execute("BEGIN")
            other.execute("SELECT * FROM a").fetchall()
            db.execute("INSERT INTO a VALUES (1)")
        db.set_trace_callback(statements.append)
        assert empty_log(db) is not is_read
        assert (path.with_name("store.sqlite-wal").stat().st_size > 0) is is_read
        assert statements.index("PRAGMA busy_timeout = 0") < statements.index(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        )
        assert db.execute("PRAGMA busy_timeout").fetchone() == (7000,)


def test_a_step_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as db:
        bring_up(db, ("CREATE TABLE a (x)",))
        steps: Any = ("CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            bring_up(db, steps)
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
