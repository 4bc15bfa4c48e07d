"""Erasing: what goes of a withdrawn scan, at once, and once more where an old copy brought it back.

What of it the database's files still hold is seen to in `erasing_from_files`, what was exported in `exports`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import Select, delete, exists, select, tuple_, update
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.receiving import unseen_withdrawals, withdrawals
from sync.clinic.receiving.poison import claimed_id
from sync.clinic.store.database import Database
from sync.clinic.store.tables import (
    ERASED,
    Envelope,
    Poison,
    ReminderRow,
    Scan,
    Withdrawal,
    WithdrawnMessage,
)
from sync.clinic.store.tombstones import Tombstone

# No database takes any number of them in one statement.
IDS_AT_ONCE = 500
# Envelopes that hold something of a scan; a withdrawal names it, and stays.
_HAS_CONTENT = (Envelope.type != withdrawals.WITHDRAW, Envelope.state != ERASED)

log = structlog.get_logger()


def withdraw(database: Database, session: Session, tombstone: Tombstone) -> list[UUID]:
    """Erase the scan of `tombstone`, which is on the disk before that; the messages that carried the scan.

    A withdrawal that overtakes its result waits for it under the scan's id; the same one again adds nothing
    but the messages that the one before did not name, up to a bound, and is not kept itself.
    """
    known = withdrawals.is_withdrawn(session, tombstone.kiosk, tombstone.scan)
    if not known or (
        withdrawals.names_more(session, tombstone)
        and withdrawals.takes_names(session, tombstone.kiosk, tombstone.scan)
    ):
        database.tombstones.add(tombstone)
        withdrawals.note_withdrawal(session, tombstone)
    if known:
        its_own = (Envelope.kiosk == tombstone.kiosk) & (Envelope.message_id == tombstone.message_id)
        session.execute(update(Envelope).where(its_own).values(data=b""))
    else:
        note(session, "opener", "scan_withdrawn", tombstone.scan, by=tombstone.reason)
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


def catch_up(session: Session) -> None:
    """See to withdrawals that could not be acted on, or not wholly, when they came."""
    unseen_withdrawals.try_those_with_room(session)
    sweep_quarantine(session)


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
                withdrawals.note_withdrawal(session, stone)
                erase(session, stone.kiosk, stone.scan, stone.messages)
                note(session, "command", "withdrawal_applied_again", stone.scan, by=stone.reason)
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
    """The same as `withdrawals.named_among`, of any number of messages."""
    named = set[tuple[UUID, UUID]]()
    for start in range(0, len(messages), IDS_AT_ONCE):
        named |= withdrawals.named_among(session, messages[start : start + IDS_AT_ONCE])
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
