"""The outbox: sealed envelopes, kept on disk until the clinic's signed word lets them go."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Literal
from uuid import UUID

from hardware.host import sqlite
from hardware.host.errors import Fault
from hardware.host.state_name import StateName
from sync.kiosk.outbox_file import Counts, open_file, read_counts
from sync.kiosk.outbox_state import OutboxState
from sync.wire.receipt import Receipt
from sync.wire.status import CLOCK_AHEAD

DEFAULT_CAPACITY = 64 * 1024 * 1024
WARN_FILL = 0.80
# The outbox itself takes what it has room for; so full, the kiosk begins no new scan.
CLOSED_FILL = 0.95
HISTORY_ROWS = 10_000
QUARANTINE_ROWS = 100
# More than any outbox holds: what has a sequence number so far below the highest was sealed by old records.
PLACES = 2**16

# A start takes so many numbers for heartbeats at once, hours of them, and spares the disk the rest. They are
# milliseconds where they begin, and no start is over sooner: so they fall behind the clock, and are raised
# when they are so far behind.
NUMBERS = 2**10
NUMBERS_BEHIND = timedelta(hours=6)
# What the history holds in place of the SHA-256 of a message that was discarded before it could leave. Who
# discards it again is told so again; who is about to give it here, from what it read before, adds nothing.
_NEVER_LEFT = {b"": OutboxState.UNKNOWN, b"\0": OutboxState.WAITING}
_MARKS = {state: mark for mark, state in _NEVER_LEFT.items()}


class ReceiptOutcome(StateName):
    """What came of a receipt whose signature is right."""

    ACCEPTED = "accepted"  # what it says is done
    UNKNOWN = "unknown"  # of its message nothing is known any more
    MISMATCH = "mismatch"  # it is about other bytes
    SAME_KEY = "same_key"  # it asks to seal anew what is sealed to the newest key already
    KEY_HELD = "key_held"  # it is accepted, and says that the clinic holds the newest key


class OutboxError(Fault):
    """The outbox cannot keep what it is given; `code` says why in one word for programs."""

    def __init__(self, code: Literal["full", "conflict", "storage", "used"], sentence: str) -> None:
        super().__init__(code, sentence)


class NumberUsed(OutboxError):
    """Another message has this one's sequence number; `highest` is the highest that is known of its epoch."""

    def __init__(self, highest: int) -> None:
        super().__init__("used", "Another message had this sequence number before: seal it with a new one.")
        self.highest = highest


@dataclass(frozen=True)
class Waiting:
    """One envelope that has no receipt yet."""

    message_id: UUID
    kind: str
    envelope: bytes


class Outbox:
    """The outbox in one SQLite file. Safe to use from several threads, of
    which one numbers heartbeats, by one process at a time.

    Nothing is ever evicted to make room; only a receipt, or the owner's own `discard`, takes an envelope out.
    `found` is what was in it when it was opened. The file may be an older copy by then, from before some of
    that left, or was discarded: of none of it is it said that it never left.
    """

    def __init__(
        self,
        path: Path,
        capacity: int = DEFAULT_CAPACITY,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        """Open the outbox, or make it (mode 0600). Raises OutboxError where the file is no outbox."""
        self.capacity = capacity
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._heartbeats = range(0)
        # A process may have ended between a discarding and this: nobody remembers it.
        self._to_empty = True
        try:
            self._db = open_file(path)
            rows = self._db.execute("SELECT message_id FROM envelopes").fetchall()
            self.found = frozenset(UUID(bytes=key) for (key,) in rows)
        except sqlite3.Error as error:
            raise OutboxError(
                "storage",
                f"The outbox {path} cannot be used: {sqlite.cause(error, path)}. What has no receipt yet is"
                " in the kiosk's records too, and a new outbox is given it.",
            ) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def put(
        self,
        message_id: UUID,
        kind: str,
        envelope: bytes,
        *,
        may_have_left: bool = False,
        place: tuple[int, int] | None = None,
    ) -> None:
        """Keep an envelope; on return it is on the disk. The same one a second time changes nothing.

        One that was discarded before it could leave is not taken again: it is dropped. One that
        `may_have_left`, from an outbox that is lost, is `sent` from the first. `place` is its epoch and its
        sequence number, which no other message may have.
        Raises OutboxError: `full`, `conflict` (this id was given to other bytes), NumberUsed, or `storage`.
        """
        digest = sha256(envelope).digest()
        with self._transaction() as db:
            known = self._known_digest(db, message_id)
            if known == digest or known in _NEVER_LEFT:
                return
            if known is not None:
                raise OutboxError("conflict", f"The message id {message_id} was used for another envelope.")
            (used,) = db.execute("SELECT bytes FROM used").fetchone()
            if used + len(envelope) > self.capacity:
                raise OutboxError(
                    "full", "The outbox is full: bring the connection to the clinic back; nothing is lost."
                )
            if place is not None:
                _take_place(db, message_id, *place)
            db.execute(
                "INSERT INTO envelopes (message_id, kind, envelope, sha256, put_at, state)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    message_id.bytes,
                    kind,
                    envelope,
                    digest,
                    self._now().isoformat(),
                    OutboxState.SENT if may_have_left else OutboxState.WAITING,
                ),
            )
            db.execute("UPDATE used SET bytes = bytes + ?", (len(envelope),))

    def next_heartbeat_number(self) -> int:
        """A number greater than that of any heartbeat before that the clinic can have taken, over all starts.

        The clock says only where the numbers begin when the outbox was made anew: above the old ones, then
        too. At any other time it may be wrong. See `_count_anew` for an outbox that was made while it was.
        """
        if self._heartbeats:
            number, *_ = self._heartbeats
        else:
            with self._transaction() as db:
                row = db.execute("SELECT next FROM heartbeats").fetchone()
                number = row[0] if row else max(1, _milliseconds(self._now()))
                self._set_next_heartbeat(db, number + NUMBERS)
            self._heartbeats = range(number, number + NUMBERS)
        self._heartbeats = self._heartbeats[1:]
        return number

    def _count_anew(self, db: sqlite3.Connection, clinics: datetime) -> None:
        """Set the numbers of heartbeats right where the clinic's clock and ours both say that they are wrong.

        `clinics` is the clinic's time in its signed word about a message that was here until now. Numbers
        that are ahead of it the clinic refuses; those that are far behind it could be overtaken for good by
        one that somebody else has said with this kiosk's key.
        """
        row = db.execute("SELECT next FROM heartbeats").fetchone()
        earlier, later = sorted((clinics, self._now()))
        if row is None:
            return
        if row[0] > _milliseconds(later + CLOCK_AHEAD):
            begin = later
        elif row[0] < _milliseconds(earlier - NUMBERS_BEHIND):
            begin = earlier
        else:
            return
        self._set_next_heartbeat(db, _milliseconds(begin))
        self._heartbeats = range(0)

    def _set_next_heartbeat(self, db: sqlite3.Connection, number: int) -> None:
        db.execute("DELETE FROM heartbeats")
        db.execute("INSERT INTO heartbeats VALUES (?)", (number,))

    def send_unvouched(self, messages: Collection[UUID]) -> None:
        """Remember, before they are sent, that nobody has looked these through."""
        keys = [(message.bytes,) for message in messages]
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO unvouched VALUES (?)", keys)

    def sent_unvouched(self) -> frozenset[UUID]:
        """What was sent though the application had not looked it through, nor has since."""
        with self._reading() as db:
            rows = db.execute("SELECT message_id FROM unvouched").fetchall()
        return frozenset(UUID(bytes=key) for (key,) in rows)

    def looked_through(self, messages: Collection[UUID]) -> None:
        """Somebody has looked these through, and done what is to be done."""
        done = self.sent_unvouched() & frozenset(messages)
        # A full disk has nothing to take where nothing was sent so.
        if done:
            with self._transaction() as db:
                db.executemany("DELETE FROM unvouched WHERE message_id = ?", [(each.bytes,) for each in done])

    def unreceipted(self) -> list[UUID]:
        """The ids of what has to be sent, or sent again, in the order in which it was put."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT message_id FROM envelopes WHERE state IN (?, ?) ORDER BY number",
                (OutboxState.WAITING, OutboxState.SENT),
            ).fetchall()
        return [UUID(bytes=row[0]) for row in rows]

    def take_to_send(self, message_id: UUID) -> Waiting | None:
        """The envelope, marked as `sent` *before* it leaves; None if it need not be sent any more."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT kind, envelope, state FROM envelopes WHERE message_id = ? AND state != ?",
                (message_id.bytes, OutboxState.RESEAL),
            ).fetchone()
            if row is None:
                return None
            if row[2] == OutboxState.WAITING:
                _put_into(db, OutboxState.SENT, message_id.bytes)
        return Waiting(message_id, row[0], row[1])

    def accept_receipt(self, receipt: Receipt, newest_key: bytes | None = None) -> ReceiptOutcome:
        """Do what a verified receipt says. `mismatch`: it is about other bytes, and nothing changes.

        `same_key`: it asks to seal again what is sealed to `newest_key` already, the id of the one that would
        be sealed to. Nothing changes: it is sent again in its time, and sealed again once there is another.
        `key_held`: it is accepted, and says that what is sealed to that key is stored now.
        """
        key = receipt.message_id.bytes
        with self._transaction() as db:
            row = db.execute(
                "SELECT sha256, kind, envelope FROM envelopes WHERE message_id = ?", (key,)
            ).fetchone()
            if row is None:
                return self._accept_late(db, receipt)
            digest, kind, envelope = row
            if digest != receipt.sha256:
                return ReceiptOutcome.MISMATCH
            # Its header names the key as it is.
            to_newest = newest_key is not None and newest_key in envelope
            if receipt.status == "reseal":
                if to_newest:
                    return ReceiptOutcome.SAME_KEY
                _put_into(db, OutboxState.RESEAL, key)
                return ReceiptOutcome.ACCEPTED
            state = OutboxState.QUARANTINED if receipt.status == "quarantined" else OutboxState.STORED
            if state is OutboxState.QUARANTINED:
                db.execute(
                    "INSERT INTO quarantine (message_id, kind, envelope) VALUES (?, ?, ?)",
                    (key, kind, envelope),
                )
                _keep_newest(db, "quarantine", QUARANTINE_ROWS)
            self._count_anew(db, receipt.at)
            _let_go(db, key)
            self._remember(db, receipt.message_id, digest, state)
        if receipt.status == "stored" and to_newest:
            return ReceiptOutcome.KEY_HELD
        return ReceiptOutcome.ACCEPTED

    def _accept_late(self, db: sqlite3.Connection, receipt: Receipt) -> ReceiptOutcome:
        """A receipt for what has left already: only a quarantined message can still become stored."""
        key = receipt.message_id.bytes
        row = db.execute("SELECT sha256, state FROM history WHERE message_id = ?", (key,)).fetchone()
        if row is None:
            return ReceiptOutcome.UNKNOWN
        if row[0] != receipt.sha256:
            return ReceiptOutcome.MISMATCH
        if row[1] == OutboxState.QUARANTINED and receipt.status in ("stored", "duplicate"):
            db.execute("UPDATE history SET state = ? WHERE message_id = ?", (OutboxState.STORED, key))
            db.execute("DELETE FROM quarantine WHERE message_id = ?", (key,))
        return ReceiptOutcome.ACCEPTED

    def discard(self, message_id: UUID) -> OutboxState:
        """Take an envelope out at its owner's wish, and return the state that it was in.

        Only after `waiting` and `unknown` is it certain that the clinic never sees it; what was finished
        very long ago is unknown too, and what a lost outbox had. A second time the answer is the same where
        nothing had ever left.
        Where somebody reads the files its bytes stay in them for as long: see `empty_log`.
        """
        key = message_id.bytes
        with self._transaction() as db:
            before, digest = self._state(db, message_id), self._known_digest(db, message_id) or b""
            if before is OutboxState.DISCARDED:
                before = _NEVER_LEFT.get(digest, before)
            elif before not in (OutboxState.STORED, OutboxState.QUARANTINED):
                _let_go(db, key)
                self._remember(db, message_id, _MARKS.get(before, digest), OutboxState.DISCARDED)
            db.execute("DELETE FROM quarantine WHERE message_id = ?", (key,))
            self._to_empty = True
        self.empty_log()
        return before

    def empty_log(self) -> bool:
        """Have what was discarded gone from the write-ahead log too, without waiting for anybody.

        False where that could not be, since another process reads the files, say: it is to be done again.
        """
        with self._lock:
            if self._to_empty:
                with contextlib.suppress(sqlite3.Error):  # such as a disk without room
                    self._to_empty = not sqlite.empty_log(self._db)
            return not self._to_empty

    def state(self, message_id: UUID) -> OutboxState:
        """What is known of a message; `unknown` too for what was finished very long ago.

        One that was `found` here is never `waiting`: it may have left since this copy was made.
        """
        with self._reading() as db:
            return self._state(db, message_id)

    def counts(self) -> Counts:
        with self._reading() as db:
            return read_counts(db, self.capacity)

    def _state(self, db: sqlite3.Connection, message_id: UUID) -> OutboxState:
        for table in ("envelopes", "history"):
            row = db.execute(
                f"SELECT state FROM {table} WHERE message_id = ?", (message_id.bytes,)
            ).fetchone()
            if row is not None:
                if row[0] == OutboxState.WAITING and message_id in self.found:
                    return OutboxState.SENT
                return _known_state(row[0])
        return OutboxState.UNKNOWN

    def _known_digest(self, db: sqlite3.Connection, message_id: UUID) -> bytes | None:
        for table in ("envelopes", "history"):
            row = db.execute(
                f"SELECT sha256 FROM {table} WHERE message_id = ?", (message_id.bytes,)
            ).fetchone()
            if row is not None:
                return bytes(row[0])
        return None

    def _remember(self, db: sqlite3.Connection, message_id: UUID, digest: bytes, state: OutboxState) -> None:
        db.execute(
            "INSERT INTO history (message_id, sha256, state, at) VALUES (?, ?, ?, ?)",
            (message_id.bytes, digest, state, self._now().isoformat()),
        )
        _keep_newest(db, "history", HISTORY_ROWS)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable change: on the disk when the block ends, or not made at all."""
        with self._reading() as db, sqlite.transaction(db):
            yield db

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise OutboxError(
                    "storage", f"The outbox does not take it: {sqlite.cause(error, self._path)}."
                ) from error


def _take_place(db: sqlite3.Connection, message_id: UUID, epoch: int, sequence: int) -> None:
    """Have nobody else use this number in the epoch. Raises NumberUsed."""
    of_epoch = db.execute("SELECT coalesce(max(sequence), 0) FROM places WHERE epoch = ?", (epoch,))
    (highest,) = of_epoch.fetchone()
    known = db.execute(
        "SELECT message_id FROM places WHERE epoch = ? AND sequence = ?", (epoch, sequence)
    ).fetchone()
    if sequence <= highest - PLACES or known not in (None, (message_id.bytes,)):
        raise NumberUsed(highest)
    db.execute("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", (epoch, sequence, message_id.bytes))
    db.execute(
        "DELETE FROM places WHERE epoch = ? AND sequence <= ?", (epoch, max(highest, sequence) - PLACES)
    )


def _known_state(word: str) -> OutboxState:
    try:
        return OutboxState(word)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"a message's state is {word!r}, which is none") from error


def _put_into(db: sqlite3.Connection, state: OutboxState, key: bytes) -> None:
    db.execute("UPDATE envelopes SET state = ? WHERE message_id = ?", (state, key))


def _let_go(db: sqlite3.Connection, key: bytes) -> None:
    gone = db.execute("DELETE FROM envelopes WHERE message_id = ? RETURNING length(envelope)", (key,))
    db.execute("UPDATE used SET bytes = bytes - ?", (sum(size for (size,) in gone.fetchall()),))


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _keep_newest(db: sqlite3.Connection, table: str, rows: int) -> None:
    db.execute(f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?", (rows,))
