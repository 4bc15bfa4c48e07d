"""Withdrawals: what a patient or the staff took back is erased here, and a tombstone stays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Select,
    cast,
    delete,
    exists,
    func,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.orm import Session, aliased

from sync.clinic.audit.log import note
from sync.clinic.receiving.poison import claimed_id
from sync.clinic.receiving.results import Key
from sync.clinic.store.database import Database, now
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import (
    ERASED,
    OPENED,
    QUARANTINED,
    STORED,
    Envelope,
    Poison,
    ReminderRow,
    Scan,
    Withdrawal,
    WithdrawnMessage,
)
from sync.clinic.store.tombstones import Tombstone, Tombstones
from sync.wire.messages import ReminderDue, Result, Withdraw

WITHDRAW = Withdraw.KIND
# So many scans that never came may a kiosk withdraw in so long. It rarely withdraws one: when a result was
# lost on its way and the scan was deleted before the next try. Each is a line of a file that every command
# reads.
MOST_UNSEEN = 500
# Those that are too many are lines of it too, since an old copy of the database would not know them; of a
# kiosk that floods its clinic with them no more than so many.
MOST_UNSEEN_LINES = 4 * MOST_UNSEEN
# What so many withdrawals of one scan name is kept: whoever withdraws it again and again fills neither the
# file nor the database with names; of each that repeats another there stays a row without its ciphertext. A
# kiosk seals one anew for each key that its clinic gives up.
MOST_OF_ONE_SCAN = 16
UNSEEN_WINDOW = timedelta(days=30)
TOO_MANY_UNSEEN: Final = "too_many_unseen_withdrawals"
SCAN_OF_ANOTHER: Final = "scan_of_another_kiosk"
# No database takes any number of them in one statement.
IDS_AT_ONCE = 500
# Envelopes that hold something of a scan; a withdrawal names it, and stays.
_HAS_CONTENT = (Envelope.type != WITHDRAW, Envelope.state != ERASED)
_ONE_TOO_MANY = (Envelope.state == QUARANTINED, Envelope.reason == TOO_MANY_UNSEEN)

log = structlog.get_logger()


def owner(session: Session, scan: UUID) -> UUID | None:
    """The kiosk whose result of this scan was taken, erased or not; None if none was."""
    taken = select(Envelope.kiosk).where(
        Envelope.scan == scan, Envelope.type == "result", Envelope.state.in_((OPENED, ERASED))
    )
    return session.scalars(taken.limit(1)).first()


def lock(session: Session, scans: Iterable[UUID]) -> None:
    """Until the transaction ends nobody else keeps or withdraws these scans.

    On PostgreSQL a result and its withdrawal could otherwise pass each other unseen. SQLite has one writer.
    Whoever has claimed an envelope does not wait here: see `lock_those_free`.
    """
    if session.get_bind().dialect.name == "postgresql":
        # In one order for all, so that two do not wait for each other in a ring.
        each = func.unnest(cast(sorted(map(_lock_key, scans)), ARRAY(BigInteger)))
        session.execute(select(func.pg_advisory_xact_lock(each)))


def lock_those_free(session: Session, scans: Collection[UUID]) -> set[UUID]:
    """The same for those of these scans that nobody else has now, without waiting; which they are."""
    if session.get_bind().dialect.name != "postgresql" or not scans:
        return set(scans)
    each = func.unnest(cast([_lock_key(scan) for scan in scans], ARRAY(BigInteger))).column_valued("scan")
    tried = select(each, func.pg_try_advisory_xact_lock(each))
    had = {key for key, is_had in session.execute(tried) if is_had}
    return {scan for scan in scans if _lock_key(scan) in had}


def _lock_key(scan: UUID) -> int:
    return scan.int % 2**63


def of_which_something_is_known(session: Session, messages: Collection[Result | ReminderDue]) -> set[UUID]:
    """The scans of these messages that somebody has withdrawn, or has sent a result of before."""
    scans = {message.scan for message in messages if message.scan is not None}
    sent = {message.scan for message in messages if isinstance(message, Result)}
    if not scans:
        return set()
    withdrawn = select(Withdrawal.scan).where(Withdrawal.scan.in_(scans))
    withdrawing = select(Envelope.scan).where(Envelope.scan.in_(scans), Envelope.type == WITHDRAW)
    result = select(Envelope.scan).where(Envelope.scan.in_(sent), Envelope.type == Result.KIND)
    record = select(Scan.id).where(Scan.id.in_(sent))
    return {scan for scan in session.scalars(union_all(withdrawn, withdrawing, result, record)) if scan}


def named_among(session: Session, messages: Collection[UUID]) -> set[tuple[UUID, UUID]]:
    """The messages (kiosk, id) that withdrawals have named, of all kiosks that used one of these ids."""
    columns = WithdrawnMessage.kiosk, WithdrawnMessage.message_id
    if not messages:
        return set()
    named = session.execute(select(*columns).where(WithdrawnMessage.message_id.in_(messages)))
    return {(kiosk, message_id) for kiosk, message_id in named}


def named_scan(session: Session, key: Key) -> UUID | None:
    """The scan whose withdrawal names this message."""
    named = session.get(WithdrawnMessage, (key[1], key[0]))
    return None if named is None else named.scan


def named_by(session: Session, row: Envelope) -> UUID | None:
    """The scan whose withdrawal, by the same kiosk, names this message: then it need not even be opened."""
    scan = named_scan(session, (row.kiosk, row.message_id))
    return None if row.type == WITHDRAW or row.scan not in (None, scan) else scan


def is_withdrawn(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether `kiosk` has withdrawn `scan`; then nothing of it is ever kept any more."""
    return session.get(Withdrawal, (scan, kiosk)) is not None


def comes_too_late(session: Session, row: Envelope, scan: UUID) -> bool:
    """Whether the kiosk of `row` has withdrawn `scan`, which is locked, before; another's word is nothing."""
    if row.type == WITHDRAW:
        return False
    return is_withdrawn(session, row.kiosk, scan) or _withdrawal_waits(session, row.kiosk, scan)


def is_one_too_many(session: Session, stone: Tombstone) -> bool:
    """Whether `stone` is of a scan that never came, and its kiosk has withdrawn too many such of late.

    Its withdrawal then waits in quarantine instead of becoming a tombstone, and a result that comes of the
    scan after all is not opened either.
    """
    if is_withdrawn(session, stone.kiosk, stone.scan) or _has_come(session, stone):
        return False
    return _room(session, stone.kiosk) <= 0


class UnseenLines:
    """The lines in the file of tombstones about scans that never came, as far as one process knows them."""

    def __init__(self, tombstones: Tombstones) -> None:
        self._tombstones = tombstones
        self._scans: dict[UUID, set[UUID]] | None = None

    def add(self, stone: Tombstone) -> None:
        """Have the file know `stone`, whose withdrawal is one too many and has its receipt.

        Raises TombstonesUnusable.
        """
        if self._scans is None:
            scans_of = dict[UUID, set[UUID]]()
            for known in self._tombstones.read():
                if known.unseen:
                    scans_of.setdefault(known.kiosk, set()).add(known.scan)
            self._scans = scans_of
        scans = self._scans.setdefault(stone.kiosk, set())
        if stone.scan not in scans and len(scans) < MOST_UNSEEN_LINES:
            self._tombstones.add(stone.model_copy(update={"unseen": True}))
            scans.add(stone.scan)


def name_messages(session: Session, kiosk: UUID, scan: UUID, messages: Iterable[UUID]) -> None:
    """Have what comes of these messages later be erased unread, unless the scan was withdrawn too often."""
    if _takes_names(session, kiosk, scan):
        _name(session, kiosk, scan, messages)


def _takes_names(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether more messages of this scan may be named, of which a withdrawal has come once more."""
    so_often = select(func.count()).where(
        Envelope.kiosk == kiosk, Envelope.scan == scan, Envelope.type == WITHDRAW
    )
    if (session.scalar(so_often) or 0) <= MOST_OF_ONE_SCAN:
        return True
    log.warning("withdrawn_too_often", kiosk=str(kiosk), scan=str(scan))
    return False


def _name(session: Session, kiosk: UUID, scan: UUID, messages: Iterable[UUID]) -> None:
    for message in messages:
        insert_once(session, WithdrawnMessage(message_id=message, kiosk=kiosk, scan=scan))


def sweep_quarantine(session: Session) -> None:
    """Erase payloads that say they are withdrawn messages.

    One can have come while its withdrawal was being acted on, or to an earlier version.
    """
    named = select(WithdrawnMessage.kiosk).distinct()
    rows = session.execute(
        select(Poison.id, Poison.kiosk, Poison.data).where(Poison.kiosk.in_(named)),
        execution_options={"yield_per": 50},
    )
    claims = [(row, kiosk, message) for row, kiosk, data in rows if (message := claimed_id(data)) is not None]
    found = [
        row for row, kiosk, message in claims if session.get(WithdrawnMessage, (message, kiosk)) is not None
    ]
    session.execute(delete(Poison).where(Poison.id.in_(found)))


def catch_up(session: Session) -> None:
    """See to withdrawals that could not be acted on, or not wholly, when they came."""
    try_those_with_room(session)
    sweep_quarantine(session)


def try_again(session: Session, kiosk: UUID, scan: UUID) -> None:
    """Hand the withdrawal of `scan` that was one too many back to the opener, now that the scan has come."""
    session.execute(
        update(Envelope)
        .where(Envelope.kiosk == kiosk, Envelope.scan == scan, *_ONE_TOO_MANY)
        .values(state=STORED, reason=None)
    )


def try_those_with_room(session: Session) -> None:
    """Hand back to the opener those that were too many once, as far as there is room for them."""
    for kiosk in session.scalars(select(Envelope.kiosk).where(*_ONE_TOO_MANY).distinct()).all():
        oldest = (
            select(Envelope.message_id)
            .where(Envelope.kiosk == kiosk, *_ONE_TOO_MANY)
            .order_by(Envelope.received_at)
            .limit(max(0, _room(session, kiosk)))
        )
        messages = session.scalars(oldest).all()
        # Staff may have discarded one meanwhile.
        still = update(Envelope).where(
            Envelope.kiosk == kiosk, Envelope.message_id.in_(messages), *_ONE_TOO_MANY
        )
        session.execute(still.values(state=STORED, reason=None))


def withdraw(database: Database, session: Session, tombstone: Tombstone) -> list[UUID]:
    """Erase the scan of `tombstone`, which is on the disk before that; the messages that carried the scan.

    A withdrawal that overtakes its result waits for it under the scan's id; the same one again adds nothing
    but the messages that the one before did not name, up to a bound, and is not kept itself.
    """
    known = is_withdrawn(session, tombstone.kiosk, tombstone.scan)
    if not known or (
        _names_more(session, tombstone) and _takes_names(session, tombstone.kiosk, tombstone.scan)
    ):
        database.tombstones.add(tombstone)
        _bury(session, tombstone)
    if known:
        its_own = (Envelope.kiosk == tombstone.kiosk) & (Envelope.message_id == tombstone.message_id)
        session.execute(update(Envelope).where(its_own).values(data=b""))
    else:
        note(session, "opener", "scan-withdrawn", tombstone.scan, by=tombstone.reason)
    return erase(session, tombstone.kiosk, tombstone.scan, tombstone.messages)


def erase(session: Session, kiosk: UUID, scan: UUID, messages: Sequence[UUID] = ()) -> list[UUID]:
    """Take out of the database what this kiosk sent of a scan: the record with its patient reference,
    findings, geometry and spots, reminders about it, the envelopes that held them, opened or not.

    Of each envelope there remain ids, times and SHA-256, so that the same one coming again is a duplicate.
    Returns the messages of the scan.
    """
    named = Envelope.scan.is_(None) & Envelope.message_id.in_(messages)
    session.execute(
        update(Envelope)
        .where(Envelope.kiosk == kiosk, (Envelope.scan == scan) | named, *_HAS_CONTENT)
        .values(data=b"", state=ERASED, reason=None, scan=scan)
    )
    session.execute(delete(Scan).where(Scan.id == scan, Scan.kiosk == kiosk))
    session.execute(delete(ReminderRow).where(ReminderRow.scan == scan, ReminderRow.kiosk == kiosk))
    if messages:
        # Nobody vouches for what a payload in quarantine claims to be; it claims it on its own kiosk's topic.
        for poison in session.scalars(select(Poison).where(Poison.kiosk == kiosk)):
            if claimed_id(poison.data) in messages:
                session.delete(poison)
    session.flush()
    of_scan = select(Envelope.message_id).where(
        Envelope.kiosk == kiosk, Envelope.scan == scan, Envelope.state == ERASED
    )
    return list(session.scalars(of_scan))


def reapply(database: Database) -> None:
    """Make the database follow the tombstones before anything reads it: it may be an old copy brought back.

    Whatever either of the two knows, the other learns. Raises TombstonesUnusable.
    """
    written = _by_scan(database.tombstones.read())
    with database.reading() as session:
        known = {(row.kiosk, row.scan): row for row in session.scalars(select(Withdrawal))}
        named = _named_of(session, [message for stone in written.values() for message in stone.messages])
        left = [_tombstone(session, row) for row in session.scalars(_of_which_something_is_left())]
        unseen = [stone for key, stone in written.items() if stone.unseen and key not in known]
        waiting = _whose_withdrawal_is_there(session, unseen)
        unwritten = [_tombstone(session, row) for key, row in known.items() if key not in written]
    for stone in unwritten:
        database.tombstones.add(stone)
    new = [
        stone
        for (kiosk, scan), stone in written.items()
        if (kiosk, scan) not in known or any((kiosk, message) not in named for message in stone.messages)
    ]
    due = [stone for stone in new if stone not in waiting] + left
    if due:
        with database.writing() as session:
            for stone in due:
                _bury(session, stone)
                erase(session, stone.kiosk, stone.scan, stone.messages)
                note(session, "command", "withdrawal-applied-again", stone.scan, by=stone.reason)
        database.scrub_at_once()
        log.warning("withdrawals_applied_again", count=len(due))


def _by_scan(stones: Iterable[Tombstone]) -> dict[tuple[UUID, UUID], Tombstone]:
    """One for each kiosk and scan, with all the messages that its lines name."""
    found = dict[tuple[UUID, UUID], Tombstone]()
    for stone in stones:
        before = found.get((stone.kiosk, stone.scan))
        messages = dict.fromkeys((*before.messages, *stone.messages) if before else stone.messages)
        found[stone.kiosk, stone.scan] = stone.model_copy(update={"messages": tuple(messages)})
    return found


def _named_of(session: Session, messages: Sequence[UUID]) -> set[tuple[UUID, UUID]]:
    """The same as `named_among`, of any number of messages."""
    named = set[tuple[UUID, UUID]]()
    for start in range(0, len(messages), IDS_AT_ONCE):
        named |= named_among(session, messages[start : start + IDS_AT_ONCE])
    return named


def _whose_withdrawal_is_there(session: Session, stones: Sequence[Tombstone]) -> set[Tombstone]:
    there = set[tuple[UUID, UUID]]()
    for start in range(0, len(stones), IDS_AT_ONCE):
        some = stones[start : start + IDS_AT_ONCE]
        found = select(Envelope.kiosk, Envelope.message_id).where(
            Envelope.kiosk.in_({stone.kiosk for stone in some}),
            Envelope.message_id.in_([stone.message_id for stone in some]),
        )
        there.update((kiosk, message) for kiosk, message in session.execute(found))
    return {stone for stone in stones if (stone.kiosk, stone.message_id) in there}


def _names_more(session: Session, stone: Tombstone) -> bool:
    keys = ((message, stone.kiosk) for message in stone.messages)
    return any(session.get(WithdrawnMessage, key) is None for key in keys)


def _withdrawal_waits(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether a withdrawal of `scan` waits in quarantine, for whatever reason by now, is tried again, or was
    discarded there: what a patient took back nobody else can let in.

    Its scan is known only once its signature and seal have been found good. What another kiosk scanned is
    not this one's to withdraw.
    """
    of_scan = select(Envelope.message_id).where(
        Envelope.kiosk == kiosk,
        Envelope.scan == scan,
        Envelope.type == WITHDRAW,
        Envelope.reason.is_distinct_from(SCAN_OF_ANOTHER),
    )
    return session.scalars(of_scan.limit(1)).first() is not None


def _room(session: Session, kiosk: UUID) -> int:
    """How many more scans that never came this kiosk may withdraw now."""
    other = aliased(Envelope)
    came = exists().where(
        other.kiosk == Withdrawal.kiosk, other.scan == Withdrawal.scan, other.type == Result.KIND
    )
    withdrawal = (Envelope.kiosk == Withdrawal.kiosk) & (Envelope.message_id == Withdrawal.message_id)
    unseen = (
        select(func.count())
        .select_from(Withdrawal)
        .join(Envelope, withdrawal)
        .where(Withdrawal.kiosk == kiosk, Envelope.opened_at > now() - UNSEEN_WINDOW, ~came)
    )
    return MOST_UNSEEN - (session.scalar(unseen) or 0)


def _has_come(session: Session, stone: Tombstone) -> bool:
    """Whether a result of the scan has come, opened or not. A reminder costs a kiosk nothing to say."""
    named = Envelope.scan.is_(None) & Envelope.message_id.in_(stone.messages)
    of_scan = select(Envelope.message_id).where(
        Envelope.kiosk == stone.kiosk, (Envelope.scan == stone.scan) | named, Envelope.type == Result.KIND
    )
    return session.scalars(of_scan.limit(1)).first() is not None


def _of_which_something_is_left() -> Select[Withdrawal]:
    # Three questions that each an index answers: this is asked at every start of every command.
    record = exists().where(Scan.id == Withdrawal.scan, Scan.kiosk == Withdrawal.kiosk)
    content = exists().where(
        Envelope.scan == Withdrawal.scan, Envelope.kiosk == Withdrawal.kiosk, *_HAS_CONTENT
    )
    named = (
        select(WithdrawnMessage.kiosk, WithdrawnMessage.scan)
        .join(
            Envelope,
            (Envelope.kiosk == WithdrawnMessage.kiosk) & (Envelope.message_id == WithdrawnMessage.message_id),
        )
        .where(Envelope.scan.is_(None), *_HAS_CONTENT)
    )
    return select(Withdrawal).where(record | content | tuple_(Withdrawal.kiosk, Withdrawal.scan).in_(named))


def _bury(session: Session, stone: Tombstone) -> None:
    row = Withdrawal(
        scan=stone.scan, kiosk=stone.kiosk, message_id=stone.message_id, at=stone.at, reason=stone.reason
    )
    insert_once(session, row)
    _name(session, stone.kiosk, stone.scan, stone.messages)


def _tombstone(session: Session, row: Withdrawal) -> Tombstone:
    named = select(WithdrawnMessage.message_id).where(
        WithdrawnMessage.kiosk == row.kiosk, WithdrawnMessage.scan == row.scan
    )
    return Tombstone(
        kiosk=row.kiosk,
        scan=row.scan,
        message_id=row.message_id,
        messages=tuple(session.scalars(named)),
        at=row.at,
        reason=row.reason,
    )
