"""An envelope that is opened alone: whatever is in it, and for which reason it is quarantined."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session, load_only

from sync.clinic.audit.log import alarm
from sync.clinic.receiving import erasing, results, unseen_withdrawals, withdrawals
from sync.clinic.receiving.exports import Exports, ExportsUnusable
from sync.clinic.receiving.opening_keys import NO_KEY
from sync.clinic.receiving.reasons import Reason, SetAside, reason_with
from sync.clinic.receiving.receipts import owe_late
from sync.clinic.receiving.results import Key
from sync.clinic.receiving.sealed import Content, Sealed, Seals, among, forget_replaced, has_key, read
from sync.clinic.store.database import Database, now
from sync.clinic.store.failure import failed_itself
from sync.clinic.store.tables import OPENED, QUARANTINED, STORED, Envelope, Scan
from sync.clinic.store.tombstones import Tombstone, TombstonesUnusable
from sync.wire import envelope
from sync.wire.messages import Message, Result, Withdraw, WithdrawMessages

# Withdrawals wait so long until the file of tombstones is tried again; the others go on meanwhile.
TOMBSTONES_WAIT_S = 30.0
# Of the row only what is needed: the rest may be what no database can give back.
_NEEDED = load_only(Envelope.type, Envelope.scan, Envelope.recipient, Envelope.data, raiseload=True)

log = structlog.get_logger()


class MessageRefused(Exception):
    """An opened message that the records cannot take; `reason` is one word for the envelope's row."""

    def __init__(self, reason: SetAside) -> None:
        super().__init__(reason)
        self.reason = reason


class Alone:
    """Opens one envelope at a time."""

    def __init__(self, database: Database, seals: Seals, exports: Exports) -> None:
        self._database = database
        self._seals = seals
        self._exports = exports
        self._unseen_lines = unseen_withdrawals.UnseenLines(database.tombstones)
        self._tombstones_rest_until = -math.inf
        # Something is gone that the database's files may still hold.
        self.has_erased = False

    def open(self, key: Key, *, exports_rest: bool = False) -> None:
        """Open one envelope, whatever is in it, unless somebody else has done so meanwhile.

        Whatever the message raises, its envelope is quarantined. While `exports_rest` a withdrawal does not
        wait for its own file, only for that of what it takes back to go.
        What the database raises of itself comes out, and ExportsUnusable.
        """
        content: Content = None
        try:
            with self._database.reading() as session:
                found = read(session, select(*_KEY).where(among([key]), Envelope.state == STORED))
            for row, content in self._seals.look(*found):
                if exports_rest and isinstance(content, Withdraw):
                    self._withdraw_at_once(row, content)
                elif not self._open_known(key, content):
                    content = self._seals.content(row.kiosk, row.data)
                    self._open_known(key, content)
        except TombstonesUnusable as error:
            self._put_off(key, content, error)
        except ExportsUnusable:
            raise
        except Exception as error:
            if failed_itself(error):
                raise
            self._quarantine_unforeseen(key, content, error)

    def tombstones_rest(self) -> bool:
        """Whether the file of tombstones could not be written a moment ago."""
        return time.monotonic() < self._tombstones_rest_until

    def _open_known(self, key: Key, content: Content) -> bool:
        """Open it, with what is in it; False if that is not known and has to be."""
        if isinstance(content, Message) and not self._is_gone(key, content):
            self._exports.write([(key, content)])
        with self._database.writing() as session:
            return self._open_claimed(session, key, content)

    def _withdraw_at_once(self, row: Sealed, message: Withdraw) -> None:
        with self._database.reading() as session:
            exported = withdrawals.opened_before(session, row.kiosk, message)
        self._exports.require_deletable(exported)
        with self._database.writing() as session:
            self._open_claimed(session, row.key, message)
            self._exports.owe(session, row)

    def _is_gone(self, key: Key, message: Message) -> bool:
        """Whether it is about a scan that its kiosk has taken back, and no withdrawal itself."""
        if message.scan is None or isinstance(message, Withdraw):
            return False
        with self._database.reading() as session:
            return withdrawals.is_taken_back(session, key[0], message.scan)

    def _open_claimed(self, session: Session, key: Key, content: Content) -> bool:
        """The same, unless another opener has been here since, or is at it now."""
        # The scan first, then rows: who has claimed one of its envelopes waits for no scan.
        about = content.scan if isinstance(content, Message) else withdrawals.named_scan(session, key)
        if about is not None:
            withdrawals.lock(session, [about])
        claim = select(Envelope).where(has_key(key), Envelope.state == STORED).options(_NEEDED)
        row = session.scalars(claim.with_for_update(skip_locked=True)).first()
        if row is None:
            return True
        if (named := withdrawals.named_by(session, row)) is not None:
            self._erase(session, row, named)
            return True
        if content is None:
            # It is about another scan than the one whose withdrawal names it.
            return False
        self._open(session, row, content)
        return True

    def _open(self, session: Session, row: Envelope, message: Message | envelope.EnvelopeError) -> None:
        try:
            if isinstance(message, envelope.EnvelopeError):
                raise message
            row.scan = message.scan
            if message.scan is not None and withdrawals.comes_too_late(session, row, message.scan):
                self._erase(session, row, message.scan)
                return
            self._keep(session, row, message)
        except envelope.EnvelopeError as error:
            if error.reason == "unknown_recipient":
                log.warning("no_opening_key", key=row.recipient.hex())
            _quarantine(row, NO_KEY if error.reason == "unknown_recipient" else error.reason)
        except MessageRefused as error:
            _quarantine(row, error.reason)
        else:
            row.state, row.reason, row.opened_at = OPENED, None, now()
            session.flush()
            owe_late(session, [row.kiosk], [row.message_id])
            log.info("opened", message=str(row.message_id), type=row.type)

    def _keep(self, session: Session, row: Envelope, message: Message) -> None:
        if isinstance(message, Result):
            _keep_result(session, row, message)
        elif isinstance(message, Withdraw):
            self._withdraw(session, row, message)
        else:
            results.keep_reminders(session, [((row.kiosk, row.message_id), message)])

    def _withdraw(self, session: Session, row: Envelope, message: Withdraw) -> None:
        _refuse_another_kiosk(session, row, message.scan)
        if self.tombstones_rest():
            raise TombstonesUnusable("No tombstone could be written a moment ago.")
        stone = Tombstone(
            kiosk=row.kiosk,
            scan=message.scan,
            message_id=row.message_id,
            messages=tuple(_named_by(message)),
            at=message.at,
            reason=message.reason,
        )
        if unseen_withdrawals.is_one_too_many(session, stone):
            self._unseen_lines.add(stone)
            # Whatever else there is of the scan goes all the same: a reminder, a payload in quarantine.
            withdrawals.name_messages(session, row.kiosk, stone.scan, stone.messages)
            erased = erasing.erase(session, row.kiosk, stone.scan, stone.messages)
            self._forget(row.kiosk, [*erased, *stone.messages])
            alarm(session, "opener", row.kiosk, unseen_withdrawals.TOO_MANY_UNSEEN)
            raise MessageRefused(unseen_withdrawals.TOO_MANY_UNSEEN)
        self._forget(row.kiosk, [*erasing.withdraw(self._database, session, stone), *stone.messages])

    def _erase(self, session: Session, row: Envelope, scan: UUID) -> None:
        """What comes of a scan that was withdrawn before is not kept."""
        self._forget(row.kiosk, erasing.erase(session, row.kiosk, scan, [row.message_id]))
        if row.type == Result.KIND:
            unseen_withdrawals.try_again(session, row.kiosk, scan)
        log.info("withdrawn_before", message=str(row.message_id), type=row.type)

    def _forget(self, kiosk: UUID, messages: Sequence[UUID]) -> None:
        self._exports.note_erased(kiosk, messages)
        self.has_erased = True

    def _put_off(self, key: Key, content: Content, error: TombstonesUnusable) -> None:
        """Let the others go on while no tombstone can be written; nothing of this one's scan is let in."""
        if not self.tombstones_rest():
            log.error("withdrawal_waits", why=str(error), wait_s=TOMBSTONES_WAIT_S)
            self._tombstones_rest_until = time.monotonic() + TOMBSTONES_WAIT_S
        with self._database.writing() as session:
            _note_scan(session, key, content)

    def _quarantine_unforeseen(self, key: Key, content: Content, error: Exception) -> None:
        """Quarantine an envelope by its key, for its row may be what cannot be read."""
        log.error("quarantined", message=str(key[1]), reason="not_foreseen", exc_info=error)
        reason = reason_with("not_foreseen:", error)
        with self._database.writing() as session:
            waiting = update(Envelope).where(has_key(key), Envelope.state == STORED)
            session.execute(waiting.values(state=QUARANTINED, reason=reason))
            _note_scan(session, key, content)


_KEY = (Envelope.kiosk, Envelope.message_id)


def _note_scan(session: Session, key: Key, content: Content) -> None:
    """Have nothing of its scan be let in while this envelope waits, if it is a withdrawal."""
    if isinstance(content, Withdraw):
        session.execute(update(Envelope).where(has_key(key)).values(scan=content.scan))
        withdrawals.name_messages(session, key[0], content.scan, _named_by(content))


def _named_by(message: Withdraw) -> Sequence[UUID]:
    return message.messages if isinstance(message, WithdrawMessages) else ()


def _quarantine(row: Envelope, reason: Reason) -> None:
    row.state, row.reason = QUARANTINED, reason
    log.warning("quarantined", message=str(row.message_id), reason=reason)


def _refuse_another_kiosk(session: Session, row: Envelope, scan: UUID) -> None:
    if withdrawals.owner(session, scan) not in (None, row.kiosk):
        raise MessageRefused(withdrawals.SCAN_OF_ANOTHER)


def _keep_result(session: Session, row: Envelope, result: Result) -> None:
    """One record for one scan: a second result must say which it replaces, or it is not taken."""
    _refuse_another_kiosk(session, row, result.scan)
    known = session.get(Scan, result.scan)
    if known is not None:
        if result.supersedes != known.message_id:
            raise MessageRefused("second_result")
        session.delete(known)
        session.flush()
    replacing = [((row.kiosk, row.message_id), result)]
    results.keep_results(session, replacing)
    forget_replaced(session, replacing)
