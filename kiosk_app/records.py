"""The kiosk's local records: one row for each scan, in plain SQLite that holds only ciphertext."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from hardware.host import sqlite
from hardware.host.durable import make_folder
from kiosk_app import vault
from kiosk_app.keyring import KeyGone, Keyring

# What becomes of a scan. Once captured it always ends in handed_over, refused or shredded, whatever crashes.
CONSENTED, CAPTURED, ANALYSED, SEALED = "consented", "captured", "analysed", "sealed"
HANDED_OVER, STORED = "handed_over", "stored"
REFUSED, ABANDONED, SHREDDED = "refused", "abandoned", "shredded"
UNFINISHED = (CONSENTED, CAPTURED, ANALYSED)
GONE = (REFUSED, ABANDONED, SHREDDED)

# What becomes of a message. "discarding…": its scan was shredded, and the outbox must still be told.
WAITING, SUBMITTED, QUARANTINED, RESEAL = "sealed", "submitted", "quarantined", "reseal"
DISCARDING, DISCARDING_UNSENT = "discarding", "discarding_unsent"
DISCARDED, WITHDRAWN = "discarded", "withdrawn"
UNDELIVERABLE = "undeliverable"  # the outbox will never take it: it has not left this kiosk

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
# Another process, a command of staff, holds the file for one change at a time.
LOCKED_S = 10.0


class RecordsError(Exception):
    """The local records cannot be used, or do not hold what was asked for."""

    exit_status = 1


class RecordsFull(RecordsError):
    """There is no room on the disk for what should be written."""


class NoSuchScan(RecordsError):
    """No scan has this id."""

    exit_status = 2


@dataclass(frozen=True)
class ScanRow:
    """What the records say about a scan without opening anything."""

    id: UUID
    state: str
    created: datetime
    consent: dict[str, str]
    reason: str | None
    figures: dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One sealed message of a scan; `envelope` is None once the outbox has it."""

    id: UUID
    scan: UUID
    kind: str
    sequence: int
    state: str
    size: int
    envelope: bytes | None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Records:
    """The records in the SQLite file `path`, with the keys in `keyring`. May be used from any thread."""

    def __init__(self, path: Path, keyring: Keyring) -> None:
        self.path = path
        self.keyring = keyring
        make_folder(path.parent)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        with self._connection() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=LOCKED_S, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA secure_delete=ON")
            db.execute("PRAGMA foreign_keys=ON")
            yield db
        except sqlite3.DatabaseError as error:
            failed = RecordsFull if sqlite.is_full(error, self.path) else RecordsError
            raise failed(
                f"The kiosk's records {self.path} cannot be used: {sqlite.cause(error, self.path)}."
            ) from error
        finally:
            db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as db, sqlite.transaction(db):
            yield db

    def create(self, consent: dict[str, str], reference: str | None) -> UUID:
        """A new scan that a patient has just consented to, with a fresh key of its own; its id."""
        scan, dek = uuid4(), vault.new_key()
        facts = _seal(scan, "facts", dek, {"patient_reference": reference})
        hashed = self.keyring.hash_reference(reference) if reference else None
        with self.keyring.lock(shared=True), self._transaction() as db:
            db.execute(
                "INSERT INTO scans (id, state, created, consent, wrapped_dek, reference_hmac, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    str(scan),
                    CONSENTED,
                    _now(),
                    json.dumps(consent),
                    self.keyring.wrap(dek),
                    hashed,
                    facts,
                ),
            )
        return scan

    def dek(self, scan: UUID) -> bytes:
        """The data key of a scan. Raises KeyGone after its shredding."""
        with self.keyring.lock(shared=True):
            wrapped = self._one(scan)["wrapped_dek"]
            if wrapped is None:
                raise KeyGone("This scan has been destroyed: nothing of it can be read any more.")
            return self.keyring.unwrap(wrapped)

    def _one(self, scan: UUID) -> sqlite3.Row:
        with self._connection() as db:
            row: sqlite3.Row | None = db.execute("SELECT * FROM scans WHERE id = ?", (str(scan),)).fetchone()
        if row is None:
            raise NoSuchScan(f"This kiosk has no scan {scan}. Check the id.")
        return row

    def scan(self, scan: UUID) -> ScanRow:
        """What is known about one scan. Raises NoSuchScan."""
        return _scan_row(self._one(scan))

    def scans(self, *states: str) -> list[ScanRow]:
        """The scans in these states (all without any), oldest first."""
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        with self._connection() as db:
            rows = db.execute(f"SELECT * FROM scans {where} ORDER BY created, rowid", states).fetchall()
        return [_scan_row(row) for row in rows]

    def latest(self) -> ScanRow | None:
        """The newest scan."""
        rows = self.scans()
        return rows[-1] if rows else None

    def patient_reference(self, scan: UUID) -> str | None:
        """The clinic's pseudonymous id of the patient; None for a walk-in."""
        dek, row = self.dek(scan), self._one(scan)
        reference: str | None = _open(scan, "facts", dek, row["facts"])["patient_reference"]
        return reference

    def advance(self, scan: UUID, before: str, after: str, **figures: Any) -> None:
        """Move a scan from one state to the next and note figures about it; refused from any other state."""
        with self._transaction() as db:
            row = db.execute("SELECT state, figures FROM scans WHERE id = ?", (str(scan),)).fetchone()
            if row is None or row["state"] != before:
                found = row["state"] if row else "missing"
                raise RecordsError(f"A scan cannot go from {found} to {after}: it should be {before}.")
            merged = _merge(json.loads(row["figures"]), figures)
            db.execute(
                "UPDATE scans SET state = ?, figures = ? WHERE id = ?", (after, json.dumps(merged), str(scan))
            )

    def note(self, scan: UUID, **figures: Any) -> None:
        """Add figures about a scan (seconds of a stage, sizes) without moving it."""
        with self._transaction() as db:
            row = db.execute("SELECT figures FROM scans WHERE id = ?", (str(scan),)).fetchone()
            if row is not None:
                merged = _merge(json.loads(row["figures"]), figures)
                db.execute("UPDATE scans SET figures = ? WHERE id = ?", (json.dumps(merged), str(scan)))

    def keep_findings(self, scan: UUID, findings: dict[str, Any], /, **figures: Any) -> None:
        """Keep the Findings of a captured scan, encrypted: the scan is analysed."""
        ciphertext = _seal(scan, "findings", self.dek(scan), findings)
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE scans SET findings = ?, state = ? WHERE id = ? AND state = ?",
                (ciphertext, ANALYSED, str(scan), CAPTURED),
            ).rowcount
            if changed != 1:
                raise RecordsError("Findings belong to a captured scan, and this one is not in that state.")
        self.note(scan, **figures)

    def findings(self, scan: UUID) -> dict[str, Any] | None:
        """The Findings of a scan as plain data; None before the analysis."""
        dek, row = self.dek(scan), self._one(scan)
        return _open(scan, "findings", dek, row["findings"]) if row["findings"] is not None else None

    def add_message(
        self, scan: UUID, kind: str, epoch: int, seal: Callable[[UUID, int], bytes], after: str | None = None
    ) -> Message:
        """Seal one message with the next sequence number, in one transaction: no gap, never two for one scan.

        `seal` gets the message id and the sequence number. `after` is the scan's new state. When the scan
        already has a message of this kind, that one is returned and nothing is sealed.
        """
        with self._transaction() as db:
            known = db.execute(
                "SELECT * FROM messages WHERE scan = ? AND kind = ? AND state != ?", (str(scan), kind, RESEAL)
            ).fetchone()
            if known is not None:
                return _message(known)
            db.execute("INSERT OR IGNORE INTO counters VALUES (?, 1)", (epoch,))
            sequence = db.execute("SELECT next FROM counters WHERE epoch = ?", (epoch,)).fetchone()["next"]
            message = uuid4()
            envelope = seal(message, sequence)
            db.execute("UPDATE counters SET next = next + 1 WHERE epoch = ?", (epoch,))
            db.execute(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    str(message),
                    str(scan),
                    kind,
                    epoch,
                    sequence,
                    WAITING,
                    _now(),
                    len(envelope),
                    envelope,
                ),
            )
            if after is not None:
                db.execute("UPDATE scans SET state = ? WHERE id = ?", (after, str(scan)))
        return Message(message, scan, kind, sequence, WAITING, len(envelope), envelope)

    def messages(self, *states: str) -> list[Message]:
        """The messages in these states (all without any), in the order of their sequence numbers."""
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        with self._connection() as db:
            rows = db.execute(f"SELECT * FROM messages {where} ORDER BY epoch, sequence", states).fetchall()
        return [_message(row) for row in rows]

    def message_of(self, scan: UUID, kind: str = "result") -> Message | None:
        """The living message of this kind about a scan."""
        return next(
            (m for m in self.messages() if (m.scan, m.kind) == (scan, kind) and m.state != RESEAL), None
        )

    def superseded(self, scan: UUID) -> UUID | None:
        """The last message of a scan that the clinic asked to have sealed again."""
        resealed = [m.id for m in self.messages(RESEAL) if (m.scan, m.kind) == (scan, "result")]
        return resealed[-1] if resealed else None

    def carriers(self, scan: UUID) -> list[UUID]:
        """Every message that carried the result of a scan, the ones sealed again included."""
        return [message.id for message in self.messages() if (message.scan, message.kind) == (scan, "result")]

    def withdraw_again(self, message: Message) -> None:
        """The clinic cannot read this withdrawal: the scan's result is to be withdrawn once more."""
        with self._transaction() as db:
            db.execute("UPDATE messages SET state = ? WHERE id = ?", (RESEAL, str(message.id)))
            db.execute(
                "UPDATE messages SET state = ? WHERE scan = ? AND kind = 'result' AND state = ?",
                (DISCARDING, str(message.scan), WITHDRAWN),
            )

    def settle(self, message: Message, state: str, scan_state: str | None = None) -> None:
        """Note what became of a message; its envelope goes, since the outbox has it or nobody may.

        Nothing changes when the message is no longer in the state that the caller saw.
        """
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE messages SET state = ?, envelope = NULL WHERE id = ? AND state = ?",
                (state, str(message.id), message.state),
            ).rowcount
            if changed and scan_state is not None:
                marks = ",".join("?" * len(GONE))
                db.execute(
                    f"UPDATE scans SET state = ? WHERE id = ? AND state NOT IN ({marks})",
                    (scan_state, str(message.scan), *GONE),
                )

    def forget(self, scan: UUID, state: str = SHREDDED, reason: str | None = None) -> None:
        """Destroy a scan's key and everything encrypted under it; the survivors get a new key generation.

        The row stays as a tombstone: id, state, reason. A result that was sealed is marked for discarding.
        """
        self._one(scan)
        with self.keyring.lock():
            self.keyring.begin_generation()
            with self._transaction() as db:
                db.execute(
                    "UPDATE scans SET state = ?, reason = ?, consent = NULL, wrapped_dek = NULL,"
                    " reference_hmac = NULL, facts = NULL, findings = NULL WHERE id = ?",
                    (state, reason, str(scan)),
                )
                db.execute(
                    "UPDATE messages SET state = CASE WHEN state IN (?, ?) THEN ? ELSE ? END, envelope = NULL"
                    " WHERE scan = ? AND kind = 'result' AND state IN (?, ?, ?, ?, ?)",
                    (WAITING, UNDELIVERABLE, DISCARDING_UNSENT, DISCARDING, str(scan))
                    + (WAITING, UNDELIVERABLE, SUBMITTED, STORED, QUARANTINED),
                )
                self._rewrap(db)
            self._checkpoint()
            self.keyring.destroy_old()

    def finish_rewrap(self) -> None:
        """Complete a shredding that a crash interrupted: one generation, and every key wrapped under it."""
        with self.keyring.lock():
            if len(self.keyring.generations()) > 1:
                with self._transaction() as db:
                    self._rewrap(db)
                self._checkpoint()
                self.keyring.destroy_old()

    def _rewrap(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT id, wrapped_dek FROM scans WHERE wrapped_dek IS NOT NULL").fetchall()
        for row in rows:
            wrapped = self.keyring.wrap(self.keyring.unwrap(row["wrapped_dek"]))
            db.execute("UPDATE scans SET wrapped_dek = ? WHERE id = ?", (wrapped, row["id"]))

    def _checkpoint(self) -> None:
        """Empty the write-ahead log, which may hold old pages."""
        with self._connection() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def summary(self, scan: UUID) -> dict[str, Any]:
        """Figures of one scan for a status or a demonstration; nothing in it describes the patient."""
        row, message = self.scan(scan), self.message_of(scan)
        return {
            "scan": str(scan),
            "state": row.state,
            "reason": row.reason,
            "frames": row.figures.get("frames", 0),
            "findings": row.figures.get("findings", 0),
            "close_ups": row.figures.get("close_ups", 0),
            "sealed_bytes": message.size if message else 0,
            "message": str(message.id) if message else None,
            "seconds": row.figures.get("seconds", {}),
            "peak_rss_mb": row.figures.get("peak_rss_mb", 0),
        }


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Figures with the new ones added; `seconds` is merged stage by stage."""
    seconds = old.get("seconds", {}) | new.get("seconds", {})
    return old | new | {"seconds": seconds}


def _seal(scan: UUID, item: str, dek: bytes, data: dict[str, Any]) -> bytes:
    return b"".join(vault.encrypt(scan, item, dek, json.dumps(data).encode()))


def _open(scan: UUID, item: str, dek: bytes, data: bytes) -> dict[str, Any]:
    opened: dict[str, Any] = json.loads(vault.decrypt(scan, item, dek, data))
    return opened


def _scan_row(row: sqlite3.Row) -> ScanRow:
    return ScanRow(
        id=UUID(row["id"]),
        state=row["state"],
        created=datetime.fromisoformat(row["created"]),
        consent=json.loads(row["consent"] or "{}"),
        reason=row["reason"],
        figures=json.loads(row["figures"]),
    )


def _message(row: sqlite3.Row) -> Message:
    return Message(
        id=UUID(row["id"]),
        scan=UUID(row["scan"]),
        kind=row["kind"],
        sequence=row["sequence"],
        state=row["state"],
        size=row["size"],
        envelope=row["envelope"],
    )
