"""The file of the kiosk's records: plain SQLite that holds only ciphertext, its schema and its faults."""

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from hardware.host import sqlite
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from hardware.host.patience import patience
from kiosk_app.kept.reserve import DiskFull
from kiosk_app.kept.states import MessageState, ScanState

# Those of before the first version number have these tables too.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scans (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    created TEXT NOT NULL,
    consent TEXT,
    wrapped_dek BLOB,
    reference_hmac BLOB,
    facts BLOB,
    findings BLOB,
    reason TEXT,
    figures TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX IF NOT EXISTS scans_by_reference ON scans (reference_hmac);
CREATE TABLE IF NOT EXISTS messages (
    id TEXT PRIMARY KEY,
    scan TEXT NOT NULL REFERENCES scans (id),
    kind TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    state TEXT NOT NULL,
    created TEXT NOT NULL,
    size INTEGER NOT NULL,
    envelope BLOB,
    UNIQUE (epoch, sequence)
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_living_message ON messages (scan, kind) WHERE state != 'reseal';
CREATE TABLE IF NOT EXISTS counters (epoch INTEGER PRIMARY KEY, next INTEGER NOT NULL) STRICT;
"""
# Nothing looked a patient up by that: what nobody reads is not kept.
_NO_REFERENCES = """
DROP INDEX scans_by_reference;
ALTER TABLE scans DROP COLUMN reference_hmac
"""
# The index spares whoever looks for the messages of one scan all the others. A result that was to be sealed
# again has left this kiosk; of a scan that was deleted then it was never withdrawn.
_BY_SCAN = """
CREATE INDEX messages_by_scan ON messages (scan, kind, epoch, sequence);
UPDATE messages SET state = 'discarding' WHERE id IN (
    SELECT id FROM (
        SELECT m.id, row_number() OVER (PARTITION BY m.scan ORDER BY m.epoch DESC, m.sequence DESC) AS place
        FROM messages AS m JOIN scans AS s ON s.id = m.scan
        WHERE m.kind = 'result' AND m.state = 'reseal' AND s.state IN ('refused', 'abandoned', 'shredded')
    ) WHERE place = 1
) AND NOT EXISTS (
    SELECT 1 FROM messages AS other
    WHERE other.scan = messages.scan AND other.kind = 'result' AND other.state != 'reseal'
)
"""
_STEPS = (_SCHEMA, _NO_REFERENCES, _BY_SCAN)
# Another process, a command of staff, holds the file for one change at a time. The longest is a shredding's,
# which wraps the key of every kept scan anew: see keyring.LOCKED_S.
LOCKED_S = 10.0
_OF_THE_VAULT = (
    " Then put a copy of it there, if there is one, and move its log ({log}) aside too, which would ruin the"
    " copy; else give the kiosk a new state folder and enrol it there: no picture can be read without its"
    " records, and new ones would use numbers again that the clinic knows."
)
# Another change may be taken where SQLite says one of these.
_ABOUT_ONE_ROW = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class RecordsError(PlainError):
    """The local records cannot be used, or do not hold what was asked for."""


class RowDamaged(RecordsError):
    """What one row holds cannot be read; the others can."""

    def __init__(self) -> None:
        super().__init__(
            "What the kiosk's records hold of a scan is damaged: put a copy of them back, or delete the scan."
        )


class RecordsUnusable(RecordsError):
    """The file itself cannot be used now (held by another process, damaged, its disk full): no row of it."""


class StateUnknown(RecordsUnusable):
    """A row is in a state that this version does not know: another one wrote it, or it is damaged."""


class RecordsFull(RecordsUnusable, DiskFull):
    """There is no room on the disk for what should be written."""


class RecordsHeld(RecordsUnusable):
    """Another one held the file for longer than we wait: whatever comes next would wait for it anew."""


class RecordsFile:
    """The SQLite file `path`, made and brought up to this software. May be used from any thread.

    With `as_it_is` it has to be there, and of this version: a command does neither for an application that
    runs, or has yet to be started.
    """

    def __init__(self, path: Path, *, as_it_is: bool = False) -> None:
        self.path = path
        if not as_it_is:
            make_folder(path.parent)
        with self.connection(make=not as_it_is) as db:
            if as_it_is:
                self._require_version(db)
            else:
                sqlite.execute_first(db, "PRAGMA journal_mode=WAL")
                sqlite.bring_up(db, _STEPS)
            self._keep_open()

    def _require_version(self, db: sqlite3.Connection) -> None:
        try:
            sqlite.require_version(db, _STEPS)
        except sqlite.EarlierVersion as error:
            raise RecordsUnusable(
                f"The kiosk's records {self.path} cannot be used yet: {error}. Start 'dermakiosk serve' of"
                " this version: it does that also where it then refuses to serve."
            ) from error

    def _keep_open(self) -> None:
        """Hold one connection more: with the last one go the files beside the records, and to make them anew,
        which reading needs too, takes room that a full disk has not."""
        held = sqlite.connect(self.path, LOCKED_S, check_same_thread=False)
        weakref.finalize(self, held.close)
        held.execute("SELECT count(*) FROM scans").fetchone()

    @contextlib.contextmanager
    def connection(self, make: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection whose rows have names. Raises RecordsError; RecordsUnusable for the whole file."""
        try:
            with contextlib.closing(sqlite.connect(self.path, patience(LOCKED_S), make=make)) as db:
                db.row_factory = sqlite3.Row
                sqlite.execute_first(db, "PRAGMA synchronous=FULL")
                db.execute("PRAGMA secure_delete=ON")
                db.execute("PRAGMA foreign_keys=ON")
                yield db
        except _ABOUT_ONE_ROW as error:
            raise RecordsError(
                f"The kiosk's records {self.path} did not take a change: it does not fit what they hold."
            ) from error
        except sqlite3.Error as error:
            failed = RecordsHeld if sqlite.is_held(error) else RecordsUnusable
            failed = RecordsFull if sqlite.is_full(error, self.path) else failed
            raise failed(
                f"The kiosk's records {self.path} cannot be used: {sqlite.cause(error, self.path)}."
                f"{_OF_THE_VAULT.format(log=log_of(self.path).name) if sqlite.is_damaged(error) else ''}"
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are all kept or, where anything is raised, none."""
        with self.connection() as db, sqlite.transaction(db):
            yield db

    def checkpoint(self) -> bool:
        """Empty the write-ahead log, see `sqlite.empty_log`. Raises RecordsUnusable."""
        with self.connection() as db:
            return sqlite.empty_log(db)


def log_of(path: Path) -> Path:
    """SQLite's write-ahead log of the file `path`: it is that very file's, and ruins a copy of it."""
    return path.with_name(f"{path.name}-wal")


S = TypeVar("S", ScanState, MessageState)


def known_state(states: type[S], found: str) -> S:
    try:
        return states(found)
    except ValueError as error:
        raise StateUnknown(
            "The kiosk's records hold a state that this version does not know: use the one that wrote them."
        ) from error


def text_of(raw: bytes) -> str | bytes:
    """A row's text, or the bytes that are in its place: SQLite's own error would be of all rows."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def moment() -> str:
    """Now, as rows hold it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
