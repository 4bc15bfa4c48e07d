"""The opener: the one process that reads results, with the clinic's opening key."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Select, bindparam, select, tuple_, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sync.clinic.audit.log import alarm
from sync.clinic.receiving import opening_keys, withdrawals
from sync.clinic.receiving.intake import NO_KEY
from sync.clinic.receiving.receipts import owe_late
from sync.clinic.receiving.registry import RESULT, KioskKeys
from sync.clinic.receiving.results import Key, keep_reminders, keep_results
from sync.clinic.store.database import Database, core, now
from sync.clinic.store.durable import sync_folder
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.failure import failed_itself, why_away
from sync.clinic.store.tables import (
    OPENED,
    QUARANTINED,
    STORED,
    Envelope,
    Poison,
    Scan,
)
from sync.clinic.store.tombstones import Tombstone, TombstonesUnusable
from sync.wire import envelope
from sync.wire.keys import KeyRefused, OpeningKey, load_opening_keys
from sync.wire.messages import Message, ReminderDue, Result, Withdraw, WithdrawMessages

POLL_SECONDS = 0.25
# One commit for so many envelopes at most; whoever else writes waits for it.
BATCH = 25
LOOK_AGAIN_SECONDS = 24 * 3600.0
# No more often: on PostgreSQL it takes longer than opening an envelope.
SCRUB_SECONDS = 10.0
DATABASE_WAIT_SECONDS = (0.5, 30.0)
# Withdrawals wait so long until the file of tombstones is tried again; the others go on meanwhile.
TOMBSTONES_WAIT_SECONDS = 30.0
# An envelope with which the database has failed so often in a row lets the others go first for a while: the
# database may be well, and only this one more than it can take in a way that nobody has foreseen.
STRIKES = 5
ASIDE_SECONDS = 15 * 60.0
PROBE_BYTES = 256 * 1024

# What an envelope holds, or why it is not known; None where a withdrawal says that nobody shall look.
Content = Message | envelope.EnvelopeError | None

log = structlog.get_logger()


class Sealed(NamedTuple):
    """An envelope that waits, as it lies in the database."""

    kiosk: UUID
    message_id: UUID
    epoch: int
    sequence: int
    type: str
    schema_version: int
    recipient: bytes
    created_at: datetime
    received_at: datetime
    sha256: bytes
    data: bytes
    scan: UUID | None
    opened_at: datetime | None

    @property
    def key(self) -> Key:
        return self.kiosk, self.message_id


# What is kept in a few statements with others.
Plain = tuple[Sealed, Result | ReminderDue]


class Refused(Exception):
    """An opened message that the records cannot take; `reason` is one word for the envelope's row."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Opener:
    """Opens what is stored, oldest first. It believes no row: every signature is checked once more."""

    def __init__(self, database: Database, keys: Sequence[OpeningKey], export: Path | None = None) -> None:
        self._database = database
        self._keys = tuple(keys)
        self._kiosk_keys = KioskKeys(database, RESULT)
        self._export = export
        # A process may have ended between an erasure and this: nobody remembers it.
        self._to_scrub = True
        self._strikes: Counter[Key] = Counter()
        self._aside: dict[Key, float] = {}
        self._took_nothing = False
        self._tombstones_rest_until = -math.inf
        self._unseen_lines = withdrawals.UnseenLines(database.tombstones)
        self._looked_again, self._scrubbed = time.monotonic(), -math.inf

    def begin(self, *, again: bool = False) -> None:
        """Say which keys are held, and look once more at what waited for one.

        With `again`, quarantined envelopes are tried once more too.
        """
        withdrawals.reapply(self._database, self._export)
        with self._database.writing() as session:
            held = {key.kid for key in self._keys}
            opening_keys.hold(session, held)
            quarantined = update(Envelope).where(Envelope.state == QUARANTINED)
            has_key = (Envelope.reason == NO_KEY) & Envelope.recipient.in_(held)
            session.execute(quarantined.where(has_key).values(state=STORED, reason=None))
            withdrawals.catch_up(session)
            if again:
                session.execute(quarantined.values(state=STORED, reason=None))

    def run(self, stop: threading.Event) -> None:
        """Open envelopes as they come, until `stop` is set."""
        wait, longest = DATABASE_WAIT_SECONDS
        while not stop.is_set():
            try:
                if not self.open_next(BATCH):
                    self._look_again()
                    stop.wait(POLL_SECONDS)
                wait = DATABASE_WAIT_SECONDS[0]
                continue
            except Exception as error:
                if failed_itself(error):
                    log.error("database_away", kind=why_away(error), wait_s=wait)
                else:
                    log.error("not_foreseen", wait_s=wait, exc_info=error)
            stop.wait(wait)
            wait = min(2 * wait, longest)
        try:
            self.scrub()
        except DBAPIError as error:
            # The next start does it.
            log.error("not_scrubbed", kind=why_away(error))
        log.info("stopped")

    def open_next(self, most: int = 1) -> bool:
        """Open the oldest envelopes that wait, up to so many; False if there is none.

        Whatever a message raises, its envelope is quarantined. What the database raises of itself comes out,
        and nothing has changed but for the envelopes that were opened before.
        """
        with self._database.reading() as session:
            waiting = _waiting(self._set_aside(), most)
            if self._tombstones_rest():
                # Those whose scan is known have been put off before.
                waiting = waiting.where((Envelope.type != Withdraw.KIND) | Envelope.scan.is_(None))
            found = session.execute(waiting)
            keys = [(kiosk, message_id) for kiosk, message_id in found]
        for key in self._open_together(keys):
            self._open_alone(key)
        if self._took_nothing:
            # While it was away each message was as good as the next.
            self._took_nothing = False
            self._aside.clear()
        self._scrub_in_time()
        return bool(keys)

    def _open_together(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Open those that are the first word about their scan, in a few statements; the keys of the others.

        What is withdrawn, replaced, refused or spoilt is for `_open_alone`. So are all where one of them, or
        the database, fails: then it is found out which.
        """
        if not keys:
            return keys
        try:
            # Before the transaction begins: whoever else would write waits for its end.
            opened = self._look(keys)
            plain = _first_words(opened)
            with self._database.writing(gives_way=True) as session:
                plain = _still_plain(session, plain)
                self._keep_plain(session, plain)
        except Exception as error:
            log.warning("one_by_one", envelopes=len(keys), exc_info=error)
            return keys
        if plain:
            log.info("opened", **Counter(row.type for row, _ in plain))
        done = {row.key for row, _ in plain}
        return [row.key for row, _ in opened if row.key not in done]

    def _open_alone(self, key: Key) -> None:
        """Open one envelope, whatever is in it, unless somebody else has done so meanwhile."""
        content: Content = None
        try:
            looked = self._look([key])
            with self._database.writing() as session:
                # Another opener may have been here since, or be at it now.
                found = session.execute(_waiting((), 1, key).with_for_update(skip_locked=True)).first()
                if not looked or found is None:
                    return
                ((_, content),) = looked
                self._open(session, session.scalars(select(Envelope).where(_is(key))).one(), content)
        except TombstonesUnusable as error:
            self._put_off(key, content, error)
        except Exception as error:
            if failed_itself(error):
                self._strike(key)
                raise
            self._quarantine(key, content, error)
        else:
            self._strikes.pop(key, None)

    def _look(self, keys: Sequence[Key]) -> list[tuple[Sealed, Content]]:
        """Those of these envelopes that wait still, and what is in each; nothing is changed.

        What a withdrawal has named is not opened.
        """
        with self._database.reading() as session:
            columns = (getattr(Envelope, field) for field in Sealed._fields)
            waiting = select(*columns).where(_among(keys), Envelope.state == STORED)
            rows = {row.key: row for row in (Sealed(*found) for found in session.execute(waiting))}
            named = withdrawals.named_among(session, [message for _, message in keys])
        found = [rows[key] for key in keys if key in rows]
        # A withdrawal that another one has named counts all the same.
        unread = {row.key for row in found if row.type != Withdraw.KIND} & named
        return [(row, None if row.key in unread else self._content(row)) for row in found]

    def _content(self, row: Sealed | Envelope) -> Message | envelope.EnvelopeError:
        try:
            verified = envelope.verify(row.data, self._kiosk_keys.find, row.kiosk)
            return envelope.open_envelope(verified, self._keys)
        except envelope.EnvelopeError as error:
            return error

    def _keep_plain(self, session: Session, plain: Sequence[Plain]) -> None:
        if not plain:
            return
        keep_results(session, [(row.key, message) for row, message in plain if isinstance(message, Result)])
        keep_reminders(session, [(row.key, it) for row, it in plain if isinstance(it, ReminderDue)])
        moment = now()
        became = [
            {"of_kiosk": row.kiosk, "of_message": row.message_id, "about": message.scan, "moment": moment}
            for row, message in plain
        ]
        session.connection().execute(_OPENED, became)
        owe_late(session, {row.kiosk for row, _ in plain}, {row.message_id for row, _ in plain})
        if self._export is not None:
            for row, message in plain:
                _write(withdrawals.exported(self._export, row.kiosk, row.message_id), message)

    def _scrub_in_time(self) -> None:
        if time.monotonic() - self._scrubbed >= SCRUB_SECONDS:
            self.scrub()

    def scrub(self) -> None:
        """After an erasure: have what was erased gone from the files too, if nobody is in the way."""
        if self._to_scrub:
            self._to_scrub = not self._database.scrub()
            self._scrubbed = time.monotonic()

    def _look_again(self) -> None:
        """Once in a while, see to withdrawals that could not be acted on, or not wholly, when they came."""
        if time.monotonic() - self._looked_again >= LOOK_AGAIN_SECONDS:
            with self._database.writing() as session:
                withdrawals.catch_up(session)
            self._looked_again = time.monotonic()
            # Also what a command had erased while somebody was in the way.
            self._to_scrub = True

    def _strike(self, key: Key) -> None:
        """Count a failure of the database against a message, unless it takes no other one either."""
        if not self._takes_writing(key):
            self._took_nothing = True
            return
        self._strikes[key] += 1
        if self._strikes[key] >= STRIKES:
            del self._strikes[key]
            self._aside[key] = time.monotonic() + ASIDE_SECONDS
            log.warning("set_aside", message=str(key[1]), for_s=ASIDE_SECONDS)

    def _takes_writing(self, key: Key) -> bool:
        """Whether the database takes more than any message needs, of which nothing is left."""
        probe = Poison(kiosk=key[0], sha256=b"", data=bytes(PROBE_BYTES), reason="probe", received_at=now())
        try:
            with self._database.writing() as session:
                session.add(probe)
                session.flush()
                session.delete(probe)
        except DBAPIError:
            return False
        return True

    def _set_aside(self) -> list[Key]:
        self._aside = {key: until for key, until in self._aside.items() if until > time.monotonic()}
        return list(self._aside)

    def _tombstones_rest(self) -> bool:
        return time.monotonic() < self._tombstones_rest_until

    def _put_off(self, key: Key, content: Content, error: TombstonesUnusable) -> None:
        """Let the others go on while no tombstone can be written; nothing of this one's scan is let in."""
        if not self._tombstones_rest():
            log.error("withdrawal_waits", why=str(error), wait_s=TOMBSTONES_WAIT_SECONDS)
            self._tombstones_rest_until = time.monotonic() + TOMBSTONES_WAIT_SECONDS
        with self._database.writing() as session:
            _note_scan(session, key, content)

    def _quarantine(self, key: Key, content: Content, error: Exception) -> None:
        """Set an envelope apart by its key, for its row may be what cannot be read."""
        log.error("quarantined", message=str(key[1]), reason="not_foreseen", exc_info=error)
        reason = f"not_foreseen:{type(error).__name__}"[:64]
        with self._database.writing() as session:
            waiting = update(Envelope).where(_is(key), Envelope.state == STORED)
            session.execute(waiting.values(state=QUARANTINED, reason=reason))
            _note_scan(session, key, content)

    def _open(self, session: Session, row: Envelope, content: Content) -> None:
        try:
            if (named := withdrawals.named_by(session, row)) is not None:
                self._erase(session, row, named)
                return
            message = self._content(row) if content is None else content
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
        except Refused as error:
            _quarantine(row, error.reason)
        else:
            if self._export is not None:
                _write(withdrawals.exported(self._export, row.kiosk, row.message_id), message)
            row.state, row.reason, row.opened_at = OPENED, None, now()
            session.flush()
            owe_late(session, [row.kiosk], [row.message_id])
            log.info("opened", message=str(row.message_id), type=row.type)

    def _keep(self, session: Session, row: Envelope, message: Message) -> None:
        if isinstance(message, Result):
            _keep_result(session, row, message)
        elif isinstance(message, Withdraw):
            _refuse_another_kiosk(session, row, message.scan)
            messages = _named_by(message)
            stone = Tombstone(
                kiosk=row.kiosk,
                scan=message.scan,
                message_id=row.message_id,
                messages=messages,
                at=message.at,
                reason=message.reason,
            )
            if self._tombstones_rest():
                raise TombstonesUnusable("No tombstone could be written a moment ago.")
            if withdrawals.is_one_too_many(session, stone):
                self._unseen_lines.add(stone)
                # Whatever else there is of the scan goes all the same: a reminder, a payload in quarantine.
                withdrawals.name_messages(session, row.kiosk, stone.scan, messages)
                self._forget(row.kiosk, withdrawals.erase(session, row.kiosk, stone.scan, messages))
                alarm(session, "opener", row.kiosk, withdrawals.TOO_MANY_UNSEEN)
                raise Refused(withdrawals.TOO_MANY_UNSEEN)
            self._forget(row.kiosk, withdrawals.withdraw(self._database, session, stone))
        else:
            keep_reminders(session, [((row.kiosk, row.message_id), message)])

    def _erase(self, session: Session, row: Envelope, scan: UUID) -> None:
        """What comes of a scan that was withdrawn before is not kept."""
        self._forget(row.kiosk, withdrawals.erase(session, row.kiosk, scan, [row.message_id]))
        if row.type == Result.KIND:
            withdrawals.try_again(session, row.kiosk, scan)
        log.info("withdrawn_before", message=str(row.message_id), type=row.type)

    def _forget(self, kiosk: UUID, messages: Sequence[UUID]) -> None:
        withdrawals.forget_exports(self._export, kiosk, messages)
        self._to_scrub = True


def read_opening_keys(path: Path) -> tuple[OpeningKey, ...]:
    """The opening keys in the opener's key file."""
    try:
        return load_opening_keys(path.read_bytes())
    except (OSError, KeyRefused) as error:
        raise ClinicUsageError(
            f"{path} is not there or is no file of opening keys: make it with "
            "'dermakiosk provision opener …', or bring back its safe copy."
        ) from error


def _waiting(but: Sequence[Key], most: int, only: Key | None = None) -> Select[UUID, UUID]:
    """The keys of the oldest envelopes that wait, but for some; not their rows, which may be the fault."""
    waiting = select(Envelope.kiosk, Envelope.message_id).where(Envelope.state == STORED)
    if but:
        waiting = waiting.where(tuple_(Envelope.kiosk, Envelope.message_id).not_in(but))
    if only is not None:
        waiting = waiting.where(_is(only))
    in_order = (Envelope.received_at, Envelope.kiosk, Envelope.epoch, Envelope.sequence)
    return waiting.order_by(*in_order).limit(most)


def _first_words(opened: Sequence[tuple[Sealed, Content]]) -> list[Plain]:
    """The results and reminders of which none other here is about the same scan or names the message."""
    messages = [(row, content) for row, content in opened if isinstance(content, Result | ReminderDue)]
    named = [content.scan for _, content in opened if isinstance(content, Result | ReminderDue | Withdraw)]
    often = {scan for scan, count in Counter(named).items() if scan is not None and count > 1}
    withdrawn = {
        message
        for _, content in opened
        if isinstance(content, WithdrawMessages)
        for message in content.messages
    }
    return [
        (row, message)
        for row, message in messages
        if message.scan not in often and row.message_id not in withdrawn
    ]


def _still_plain(session: Session, plain: Sequence[Plain]) -> list[Plain]:
    """Those that nobody else has opened or opens now, of whose scan nothing is known yet."""
    if not plain:
        return []
    waiting = select(Envelope.kiosk, Envelope.message_id).where(
        _among([row.key for row, _ in plain]), Envelope.state == STORED
    )
    found = session.execute(waiting.with_for_update(skip_locked=True))
    free = {(kiosk, message_id) for kiosk, message_id in found}
    withdrawals.lock(session, {message.scan for _, message in plain if message.scan is not None})
    named = withdrawals.named_among(session, [row.message_id for row, _ in plain])
    known = withdrawals.of_which_something_is_known(session, [message for _, message in plain])
    return [(row, message) for row, message in plain if row.key in free - named and message.scan not in known]


_OPENED = (
    update(core(Envelope))
    .where(Envelope.kiosk == bindparam("of_kiosk"), Envelope.message_id == bindparam("of_message"))
    .values(state=OPENED, reason=None, opened_at=bindparam("moment"), scan=bindparam("about"))
)


def _among(keys: Sequence[Key]) -> ColumnElement[bool]:
    return tuple_(Envelope.kiosk, Envelope.message_id).in_(keys)


def _is(key: Key) -> ColumnElement[bool]:
    return (Envelope.kiosk == key[0]) & (Envelope.message_id == key[1])


def _note_scan(session: Session, key: Key, content: Content) -> None:
    """Have nothing of its scan be let in while this envelope waits, if it is a withdrawal."""
    if isinstance(content, Withdraw):
        session.execute(update(Envelope).where(_is(key)).values(scan=content.scan))
        withdrawals.name_messages(session, key[0], content.scan, _named_by(content))


def _named_by(message: Withdraw) -> Sequence[UUID]:
    return message.messages if isinstance(message, WithdrawMessages) else ()


def _quarantine(row: Envelope, reason: str) -> None:
    row.state, row.reason = QUARANTINED, reason
    log.warning("quarantined", message=str(row.message_id), reason=reason)


def _refuse_another_kiosk(session: Session, row: Envelope, scan: UUID) -> None:
    if withdrawals.owner(session, scan) not in (None, row.kiosk):
        raise Refused(withdrawals.SCAN_OF_ANOTHER)


def _keep_result(session: Session, row: Envelope, result: Result) -> None:
    """One record for one scan: a second result must say which it replaces, or it is not taken."""
    _refuse_another_kiosk(session, row, result.scan)
    known = session.get(Scan, result.scan)
    if known is not None:
        if result.supersedes != known.message_id:
            raise Refused("second_result")
        session.delete(known)
        session.flush()
    keep_results(session, [((row.kiosk, row.message_id), result)])


def _write(path: Path, message: Message) -> None:
    """Write what was opened; before the commit, so that a crash leaves none out."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # By a name that the next try, or a withdrawal, finds again.
    temporary = path.with_suffix(withdrawals.HALF_WRITTEN)
    descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(message.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
