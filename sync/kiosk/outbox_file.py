"""The file of the outbox: its tables, the steps from one version to the next, and how full it is."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hardware.host import sqlite
from sync.kiosk.outbox_state import OutboxState

# Only the agent writes; `sync status` reads while none runs.
LOCKED_S = 5.0

_SCHEMA = """
CREATE TABLE envelopes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    envelope BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    put_at TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'reseal'))
) STRICT;
CREATE TABLE quarantine (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE TABLE history (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id BLOB NOT NULL UNIQUE,
    sha256 BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('stored', 'quarantined', 'discarded')),
    at TEXT NOT NULL
) STRICT;
"""
_HEARTBEATS = "CREATE TABLE heartbeats (next INTEGER NOT NULL) STRICT"
# How many bytes all envelopes have: adding them up at each new one takes longer the more there are.
_USED = """
CREATE TABLE used (bytes INTEGER NOT NULL) STRICT;
INSERT INTO used SELECT coalesce(sum(length(envelope)), 0) FROM envelopes
"""
# To list and to count reads past no envelope: that was the whole file, at each message and each minute.
_BY_STATE = "CREATE INDEX envelopes_by_state ON envelopes (state, number, message_id)"
# Which message has which number, for records that are an older copy and count from where they were.
_PLACES = """
CREATE TABLE places (
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    PRIMARY KEY (epoch, sequence)
) STRICT, WITHOUT ROWID
"""
# What was sent before the application had looked it through: it may have been deleted before.
_UNVOUCHED = "CREATE TABLE unvouched (message_id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID"
_STEPS = (_SCHEMA, _HEARTBEATS, _USED, _BY_STATE, _PLACES, _UNVOUCHED)


@dataclass(frozen=True)
class Counts:
    """How full the outbox is. `fill` is the part of its capacity that is used."""

    waiting: int
    sent: int
    reseal: int
    quarantined: int
    bytes: int
    capacity: int
    last_receipt_at: datetime | None

    @property
    def fill(self) -> float:
        return self.bytes / self.capacity


def open_file(path: Path) -> sqlite3.Connection:
    """Open the outbox's file, or make it (mode 0600). Raises sqlite3.Error where it is no outbox."""
    db = sqlite.connect(path, LOCKED_S, make=True, check_same_thread=False)
    try:
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        sqlite.execute_first(db, f"PRAGMA {pragma}")
    sqlite.bring_up(db, _STEPS)


def read_counts(db: sqlite3.Connection, capacity: int) -> Counts:
    """The counts of an open outbox. Raises sqlite3.Error, for one of another version too."""
    sqlite.require_version(db, _STEPS)
    by_state = dict(db.execute("SELECT state, count(*) FROM envelopes GROUP BY state").fetchall())
    (used,) = db.execute("SELECT bytes FROM used").fetchone()
    (quarantined,) = db.execute("SELECT count(*) FROM quarantine").fetchone()
    (last,) = db.execute("SELECT max(at) FROM history WHERE state != 'discarded'").fetchone()
    try:
        last_receipt_at = datetime.fromisoformat(last) if last else None
    except ValueError as error:
        raise sqlite3.DatabaseError(sqlite.MALFORMED) from error
    return Counts(
        waiting=by_state.get(OutboxState.WAITING, 0),
        sent=by_state.get(OutboxState.SENT, 0),
        reseal=by_state.get(OutboxState.RESEAL, 0),
        quarantined=quarantined,
        bytes=used,
        capacity=capacity,
        last_receipt_at=last_receipt_at,
    )
