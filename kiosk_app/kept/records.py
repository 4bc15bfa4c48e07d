"""The kiosk's local records: one row for each scan, in plain SQLite that holds only ciphertext."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog
from pydantic import ValidationError

from hardware.host import sqlite
from hardware.host.durable import make_folder
from hardware.host.errors import PlainError
from kiosk_app.kept import vault
from kiosk_app.kept.keyring import KeyGone, Keyring
from kiosk_app.kept.reserve import DiskFull
from kiosk_app.kept.states import GONE, MessageState, ScanState
from sync.wire.findings import Findings

log = structlog.get_logger()

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
_STEPS = (_SCHEMA,)
# Another process, a command of staff, holds the file for one change at a time. The longest is a shredding's,
# which wraps the key of every kept scan anew: see keyring.LOCKED_S.
LOCKED_S = 10.0
# Another change may be taken where SQLite says one of these.
_ABOUT_ONE_ROW = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class RecordsError(PlainError):
    """The local records cannot be used, or do not hold what was asked for."""


class RecordsUnusable(RecordsError):
    """The file itself cannot be used now (held by another process, damaged, its disk full): no row of it."""


class RecordsFull(RecordsUnusable, DiskFull):
    """There is no room on the disk for what should be written."""


class RecordsHeld(RecordsUnusable):
    """Another process held the file for longer than LOCKED_S: whatever comes next would wait for it anew."""


class NoSuchScan(RecordsError):
    """No scan has this id."""

    exit_status = 2


@dataclass(frozen=True)
class ScanRow:
    """What the records say about a scan without opening anything."""

    id: UUID
    state: ScanState
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
    state: MessageState
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
            sqlite.bring_up(db, _STEPS)
            self._keep_open()

    def _keep_open(self) -> None:
        """Hold one connection more: with the last one go the files beside the records, and to make them anew,
        which reading needs too, takes room that a full disk has not."""
        held = sqlite3.connect(self.path, timeout=LOCKED_S, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, held.close)
        held.execute("SELECT count(*) FROM scans").fetchone()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=LOCKED_S, isolation_level=None)) as db:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA synchronous=FULL")
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
            ) from error

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
                    ScanState.CONSENTED,
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

    def scans(self, *states: ScanState) -> list[ScanRow]:
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

    def advance(self, scan: UUID, before: ScanState, after: ScanState, **figures: Any) -> None:
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

    def keep_findings(self, scan: UUID, findings: Findings, /, **figures: Any) -> None:
        """Keep the Findings of a captured scan, encrypted: the scan is analysed."""
        ciphertext = _seal(scan, "findings", self.dek(scan), findings.model_dump(mode="json"))
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE scans SET findings = ?, state = ? WHERE id = ? AND state = ?",
                (ciphertext, ScanState.ANALYSED, str(scan), ScanState.CAPTURED),
            ).rowcount
            if changed != 1:
                raise RecordsError("Findings belong to a captured scan, and this one is not in that state.")
        self.note(scan, **figures)

    def findings(self, scan: UUID) -> Findings | None:
        """The Findings of a scan; None before the analysis."""
        dek, row = self.dek(scan), self._one(scan)
        if row["findings"] is None:
            return None
        try:
            return Findings.model_validate(_open(scan, "findings", dek, row["findings"]))
        except ValidationError:
            # The error itself quotes measurements, which belong in no log.
            raise RecordsError(
                "The Findings of this scan are another version's: install the one that kept them."
            ) from None

    def add_message(
        self,
        scan: UUID,
        kind: str,
        epoch: int,
        seal: Callable[[UUID, int], bytes],
        after: ScanState | None = None,
    ) -> Message:
        """Seal one message with the next sequence number, in one transaction: no gap, never two for one scan.

        `seal` gets the message id and the sequence number. `after` is the scan's new state. When the scan
        already has a message of this kind, that one is returned and nothing is sealed. Raises RecordsError
        where `after` does not follow, since the scan has been deleted, say.
        """
        with self._transaction() as db:
            known = db.execute(
                "SELECT * FROM messages WHERE scan = ? AND kind = ? AND state != ?",
                (str(scan), kind, MessageState.RESEAL),
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
                    MessageState.WAITING,
                    _now(),
                    len(envelope),
                    envelope,
                ),
            )
            if after is not None:
                moved = db.execute(
                    "UPDATE scans SET state = ? WHERE id = ? AND state = ?",
                    (after, str(scan), ScanState.ANALYSED),
                )
                if moved.rowcount != 1:  # it may have been deleted while it was sealed
                    raise RecordsError("A result is of an analysed scan, and this one is not in that state.")
        return Message(message, scan, kind, sequence, MessageState.WAITING, len(envelope), envelope)

    def messages(self, *states: MessageState) -> list[Message]:
        """The messages in these states (all without any), in the order of their sequence numbers."""
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        with self._connection() as db:
            rows = db.execute(f"SELECT * FROM messages {where} ORDER BY epoch, sequence", states).fetchall()
        return [_message(row) for row in rows]

    def message_of(self, scan: UUID, kind: str = "result") -> Message | None:
        """The living message of this kind about a scan."""
        return next(
            (
                m
                for m in self.messages()
                if (m.scan, m.kind) == (scan, kind) and m.state != MessageState.RESEAL
            ),
            None,
        )

    def superseded(self, scan: UUID) -> UUID | None:
        """The last message of a scan that the clinic asked to have sealed again."""
        resealed = [m.id for m in self.messages(MessageState.RESEAL) if (m.scan, m.kind) == (scan, "result")]
        return resealed[-1] if resealed else None

    def carriers(self, scan: UUID) -> list[UUID]:
        """Every message that carried the result of a scan, the ones sealed again included."""
        return [message.id for message in self.messages() if (message.scan, message.kind) == (scan, "result")]

    def withdraw_again(self, message: Message) -> None:
        """The clinic cannot read this withdrawal: the scan's result is to be withdrawn once more."""
        with self._transaction() as db:
            db.execute("UPDATE messages SET state = ? WHERE id = ?", (MessageState.RESEAL, str(message.id)))
            db.execute(
                "UPDATE messages SET state = ? WHERE scan = ? AND kind = 'result' AND state = ?",
                (MessageState.DISCARDING, str(message.scan), MessageState.WITHDRAWN),
            )

    def is_current(self, message: Message) -> bool:
        """Whether a message is still in the state that the caller saw."""
        with self._connection() as db:
            row = db.execute("SELECT state FROM messages WHERE id = ?", (str(message.id),)).fetchone()
        return row is not None and row["state"] == message.state

    def settle(self, message: Message, state: MessageState, scan_state: ScanState | None = None) -> bool:
        """Note what became of a message; its envelope goes, since the outbox has it or nobody may.

        Nothing changes, and False comes back, when it is no longer in the state that the caller saw.
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
        return changed == 1

    def forget(self, scan: UUID, state: ScanState = ScanState.SHREDDED, reason: str | None = None) -> None:
        """Destroy a scan's key and everything encrypted under it; the survivors get a new key generation.

        The row stays as a tombstone: id, state, reason. A result that was sealed is marked for discarding.
        """
        self._one(scan)
        gone = ",".join("?" * len(GONE))
        with self.keyring.lock():
            self._finish_rewrap()  # else each try that fails would add a generation
            with self._transaction() as db:
                self.keyring.begin_generation()
                db.execute(
                    "UPDATE scans SET state = ?, reason = ?, consent = NULL, wrapped_dek = NULL,"
                    " reference_hmac = NULL, facts = NULL, findings = NULL"
                    f" WHERE id = ? AND state NOT IN ({gone})",
                    (state, reason, str(scan), *GONE),
                )
                db.execute(
                    "UPDATE messages SET state = CASE WHEN state IN (?, ?) THEN ? ELSE ? END, envelope = NULL"
                    " WHERE scan = ? AND kind = 'result' AND state IN (?, ?, ?, ?, ?)",
                    (
                        MessageState.WAITING,
                        MessageState.UNDELIVERABLE,
                        MessageState.DISCARDING_UNSENT,
                        MessageState.DISCARDING,
                        str(scan),
                    )
                    + (
                        MessageState.WAITING,
                        MessageState.UNDELIVERABLE,
                        MessageState.SUBMITTED,
                        MessageState.STORED,
                        MessageState.QUARANTINED,
                    ),
                )
                self._rewrap(db)
            self._checkpoint()
            self.keyring.destroy_old()

    def finish_rewrap(self) -> None:
        """Complete a shredding that a crash interrupted: one generation, and every key wrapped under it."""
        with self.keyring.lock():
            self._finish_rewrap()

    def _finish_rewrap(self) -> None:
        if len(self.keyring.generations()) > 1:
            with self._transaction() as db:
                self._rewrap(db)
            self._checkpoint()
            self.keyring.destroy_old()

    def _rewrap(self, db: sqlite3.Connection) -> None:
        """A damaged key stays as it is: the right key file, put back, still opens it."""
        rows = db.execute("SELECT id, wrapped_dek FROM scans WHERE wrapped_dek IS NOT NULL").fetchall()
        rewrapped = self.keyring.rewrap(row["wrapped_dek"] for row in rows)
        db.executemany(
            "UPDATE scans SET wrapped_dek = ? WHERE id = ?",
            [(wrapped, row["id"]) for row, wrapped in zip(rows, rewrapped, strict=True) if wrapped],
        )
        if not all(rewrapped):
            log.error("keys_damaged", scans=rewrapped.count(None))

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


S = TypeVar("S", ScanState, MessageState)


def _known(states: type[S], found: str) -> S:
    try:
        return states(found)
    except ValueError as error:
        raise RecordsUnusable(
            "The kiosk's records hold a state that this version does not know: use the one that wrote them."
        ) from error


def _scan_row(row: sqlite3.Row) -> ScanRow:
    return ScanRow(
        id=UUID(row["id"]),
        state=_known(ScanState, row["state"]),
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
        state=_known(MessageState, row["state"]),
        size=row["size"],
        envelope=row["envelope"],
    )
