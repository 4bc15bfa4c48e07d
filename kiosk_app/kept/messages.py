"""The sealed messages of the kiosk's scans, in the file of its records."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count
from uuid import UUID, uuid5

import structlog

from hardware.host.one_line import one_line
from kiosk_app.kept.records_file import RecordsError, RecordsFile, RowDamaged, known_state, moment, text_of
from kiosk_app.kept.states import GONE, MessageState, ScanState
from kiosk_app.log import Told

log = structlog.get_logger()

# Without its envelope: that is read where it is handed over, and not each time that somebody looks.
_MESSAGE = "SELECT id, scan, kind, sequence, state, size FROM messages"
# Of one kind a scan has one at most: an index holds it.
_LIVING = f"{_MESSAGE} WHERE scan = ? AND kind = ? AND state != '{MessageState.RESEAL}'"
# The outbox may lose it until the clinic has said that it has it, and can read it.
_KEEPS_ENVELOPE = (MessageState.WAITING, MessageState.SUBMITTED, MessageState.QUARANTINED)
# An outbox that is an older copy may still have them: it is not to send them.
_OVER = (
    MessageState.RESEAL,
    MessageState.UNDELIVERABLE,
    MessageState.DISCARDING,
    MessageState.DISCARDING_UNSENT,
    MessageState.DISCARDED,
    MessageState.WITHDRAWN,
)
_NOT_ANALYSED = "A result is of an analysed scan, and this one is not in that state."
# In the place of an epoch, which is later, is -1: of what these records did not seal themselves. What has its
# id is its row, damaged.
_ASK_FOR_THE_RESULT = """
INSERT INTO messages
SELECT :id, id, 'result', -1, (SELECT coalesce(max(sequence), 0) + 1 FROM messages WHERE epoch = -1),
    :state, :now, 0, NULL
FROM scans WHERE id = :scan
    AND NOT EXISTS (SELECT 1 FROM messages WHERE scan = :scan AND kind = 'result')
ON CONFLICT (id) DO UPDATE SET scan = excluded.scan, kind = 'result', state = excluded.state, envelope = NULL
"""


@dataclass(frozen=True)
class Message:
    """One sealed message of a scan; `size` is that of its envelope in bytes."""

    id: UUID
    scan: UUID
    kind: str
    sequence: int
    state: MessageState
    size: int


class Messages:
    """One row for each message. Changes take effect whole or not at all. May be used from any thread.

    `may_have_left` is what waited for the outbox, or was to be taken out of it, when the records were opened.
    The outbox may have it although they do not say so: the application may have ended before it could note
    that, or they are an older copy.
    """

    def __init__(self, file: RecordsFile) -> None:
        self._file = file
        self._told = Told()
        held = self.in_states(MessageState.WAITING, MessageState.DISCARDING_UNSENT)
        # Scans that were consented to through these records since: of these nobody knows a result.
        self.unsealed: set[UUID] = set()
        # Of what was only asked for, in case that somebody knows of it, there has been no envelope.
        self.may_have_left = frozenset(message.id for message in held if message.size)

    def add(
        self,
        scan: UUID,
        kind: str,
        epoch: int,
        seal: Callable[[UUID, int], bytes],
        after: ScanState | None = None,
    ) -> Message:
        """Seal one message with the next sequence number, in one transaction: no gap, never two for one scan.

        `seal` gets the message id and the sequence number. The id says which try of which scan it is, so that
        records that are an older copy make no second message of what they forgot. `after` is the scan's new
        state. When the scan already has a message of this kind, that one is returned and nothing is sealed.
        Raises RecordsError where `after` does not follow, since the scan has been deleted, say.
        """
        self.unsealed.discard(scan)
        with self._file.transaction() as db:
            known = db.execute(_LIVING, (str(scan), kind)).fetchone()
            if known is not None:
                if after is not None and known["state"] in _OVER:
                    raise RecordsError(_NOT_ANALYSED)
                return _message(known)
            db.execute("INSERT OR IGNORE INTO counters VALUES (?, 1)", (epoch,))
            sequence = db.execute("SELECT next FROM counters WHERE epoch = ?", (epoch,)).fetchone()["next"]
            message = _next_id(db, scan, kind)
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
                    moment(),
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
                    raise RecordsError(_NOT_ANALYSED)
        return Message(message, scan, kind, sequence, MessageState.WAITING, len(envelope))

    def id_of_next(self, message: Message) -> UUID:
        """The id of the one that would take the place of a message."""
        with self._file.connection() as db:
            return _next_id(db, message.scan, message.kind)

    def in_states(self, *states: MessageState) -> list[Message]:
        """The messages in these states (all without any), in the order of their sequence numbers.

        One whose row is damaged is told of, and left out: it does not keep anyone from the others.
        """
        marks = ",".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        with self._file.connection() as db:
            db.text_factory = text_of
            rows = db.execute(f"{_MESSAGE} {where} ORDER BY epoch, sequence", states).fetchall()
        return [_message(row) for row in rows if self._is_whole(row)]

    def _is_whole(self, row: sqlite3.Row) -> bool:
        try:
            _message(row)
        except RowDamaged:
            if self._told.begins(("message_damaged", row["sequence"])):
                log.error("message_damaged", sequence=row["sequence"], scan=one_line(str(row["scan"])))
            return False
        return True

    def are_over(self, messages: Collection[UUID]) -> list[UUID]:
        """Those of `messages` that are not to leave this kiosk any more, whatever an outbox says of them."""
        ids, over = ",".join("?" * len(messages)), ",".join("?" * len(_OVER))
        query = f"SELECT id FROM messages WHERE id IN ({ids}) AND state IN ({over})"
        with self._file.connection() as db:
            return [UUID(row["id"]) for row in db.execute(query, (*map(str, messages), *_OVER))]

    def of(self, scan: UUID, kind: str = "result") -> Message | None:
        """The living message of this kind about a scan."""
        with self._file.connection() as db:
            db.text_factory = text_of
            row = db.execute(_LIVING, (str(scan), kind)).fetchone()
        return None if row is None else _message(row)

    def superseded(self, scan: UUID) -> UUID | None:
        """The last message of a scan that was to be sealed again."""
        resealed = self._results(scan, " AND state = ?", MessageState.RESEAL)
        return resealed[-1] if resealed else None

    def carriers(self, scan: UUID) -> list[UUID]:
        """Every message that carried the result of a scan, the ones sealed again included."""
        return self._results(scan)

    def later_ids(self, scan: UUID) -> Iterator[UUID]:
        """The ids of further results of a scan: if these records are an older copy, there may be some."""
        return (_id(scan, "result", tries) for tries in count(len(self.carriers(scan))))

    def _results(self, scan: UUID, where: str = "", *values: str) -> list[UUID]:
        query = f"SELECT id FROM messages WHERE scan = ? AND kind = 'result'{where} ORDER BY epoch, sequence"
        with self._file.connection() as db:
            db.text_factory = text_of
            rows = db.execute(query, (str(scan), *values)).fetchall()
        try:
            return [UUID(row["id"]) for row in rows]
        except (ValueError, TypeError) as error:
            raise RowDamaged from error

    def withdraw_again(self, message: Message) -> None:
        """Another one takes the place of this withdrawal: the scan's result is to be withdrawn once more."""
        with self._file.transaction() as db:
            db.execute(
                "UPDATE messages SET state = ?, envelope = NULL WHERE id = ?",
                (MessageState.RESEAL, str(message.id)),
            )
            _withdraw_once_more(db, message.scan)

    def has_left(self, message: UUID) -> None:
        """It was discarded as one that never left, and has left since: it is to be withdrawn."""
        with self._file.transaction() as db:
            db.execute(
                "UPDATE messages SET state = ? WHERE id = ? AND state IN (?, ?)",
                (
                    MessageState.DISCARDING,
                    str(message),
                    MessageState.DISCARDED,
                    MessageState.DISCARDING_UNSENT,
                ),
            )

    def take_back(self, message: Message, highest: int) -> bool:
        """Have a message that never left be sealed anew, with a sequence number above `highest`.

        Nothing of it stays. Nothing changes, and False comes back, when it is no longer in the state that the
        caller saw.
        """
        with self._file.transaction() as db:
            gone = db.execute(
                "DELETE FROM messages WHERE id = ? AND state = ? RETURNING epoch",
                (str(message.id), message.state),
            ).fetchall()
            for row in gone:
                _count_from(db, row["epoch"], highest)
                if message.kind == "withdraw":
                    _withdraw_once_more(db, message.scan)
                else:
                    db.execute(
                        "UPDATE scans SET state = ? WHERE id = ? AND state = ?",
                        (ScanState.ANALYSED, str(message.scan), ScanState.SEALED),
                    )
        return bool(gone)

    def is_current(self, message: Message) -> bool:
        """Whether a message is still in the state that the caller saw."""
        with self._file.connection() as db:
            row = db.execute("SELECT state FROM messages WHERE id = ?", (str(message.id),)).fetchone()
        return row is not None and row["state"] == message.state

    def envelope(self, message: Message) -> bytes | None:
        """The sealed bytes of a message, kept until the clinic has said that it can read them.

        None where it is no longer in the state that the caller saw, or was handed over by a version of this
        software that kept none.
        """
        with self._file.connection() as db:
            row = db.execute(
                "SELECT envelope FROM messages WHERE id = ? AND state = ?", (str(message.id), message.state)
            ).fetchone()
        return None if row is None else row["envelope"]

    def settle(
        self,
        message: Message,
        state: MessageState,
        scan_state: ScanState | None = None,
        *,
        other_envelope: bool = False,
    ) -> bool:
        """Note what became of a message; its envelope goes, unless the outbox might still lose its own.

        It goes too where the outbox has an `other_envelope` under this id.
        Nothing changes, and False comes back, when it is no longer in the state that the caller saw.
        """
        with self._file.transaction() as db:
            changed = db.execute(
                "UPDATE messages SET state = ? WHERE id = ? AND state = ?",
                (state, str(message.id), message.state),
            ).rowcount
            if changed and (other_envelope or state not in _KEEPS_ENVELOPE):
                db.execute("UPDATE messages SET envelope = NULL WHERE id = ?", (str(message.id),))
            if changed and scan_state is not None:
                marks = ",".join("?" * len(GONE))
                db.execute(
                    f"UPDATE scans SET state = ? WHERE id = ? AND state NOT IN ({marks})",
                    (scan_state, str(message.scan), *GONE),
                )
        return changed == 1


def ask_for_the_result(db: sqlite3.Connection, scan: UUID, *, may_have_left: bool = False) -> None:
    """Have the outbox asked for the result of a scan that is deleted, where there is none here.

    These records may be an older copy, and the scan have been sealed since: by the id that its result had
    then it is found, and withdrawn. Where they certainly are one it `may_have_left`, and is withdrawn also if
    the outbox does not know it: that may have been lost.
    """
    state = MessageState.DISCARDING if may_have_left else MessageState.DISCARDING_UNSENT
    facts = {"id": str(_id(scan, "result", 0)), "scan": str(scan), "state": state, "now": moment()}
    db.execute(_ASK_FOR_THE_RESULT, facts)


def _id(scan: UUID, kind: str, tries: int) -> UUID:
    return uuid5(scan, f"{kind} {tries}")


def _next_id(db: sqlite3.Connection, scan: UUID, kind: str) -> UUID:
    (tries,) = db.execute(
        "SELECT count(*) FROM messages WHERE scan = ? AND kind = ?", (str(scan), kind)
    ).fetchone()
    return _id(scan, kind, tries)


def _withdraw_once_more(db: sqlite3.Connection, scan: UUID) -> None:
    db.execute(
        "UPDATE messages SET state = ? WHERE scan = ? AND kind = 'result' AND state = ?",
        (MessageState.DISCARDING, str(scan), MessageState.WITHDRAWN),
    )


def _count_from(db: sqlite3.Connection, epoch: int, highest: int) -> None:
    db.execute("UPDATE counters SET next = max(next, ?) WHERE epoch = ?", (highest + 1, epoch))


def _message(row: sqlite3.Row) -> Message:
    if isinstance(row["kind"], bytes):
        raise RowDamaged
    try:
        return Message(
            id=UUID(row["id"]),
            scan=UUID(row["scan"]),
            kind=row["kind"],
            sequence=row["sequence"],
            state=known_state(MessageState, row["state"]),
            size=row["size"],
        )
    except (ValueError, TypeError) as error:
        raise RowDamaged from error
