"""Withdrawals: what a patient or the staff took back is erased here, and a tombstone stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy import Select, delete, exists, func, select, tuple_, update
from sqlalchemy.orm import Session

from sync.wire.messages import Withdraw

from .audit import note
from .database import Database, insert_once
from .intake import claimed_id
from .tables import ERASED, OPENED, Envelope, Poison, ReminderRow, Scan, Withdrawal, WithdrawnMessage
from .tombstones import Tombstone

WITHDRAW = Withdraw.KIND
# What a process that was killed leaves in the opener's folder.
HALF_WRITTEN = ".part"
# Envelopes that hold something of a scan; a withdrawal names it, and stays.
_HAS_CONTENT = (Envelope.type != WITHDRAW, Envelope.state != ERASED)

log = structlog.get_logger()


def owner(session: Session, scan: UUID) -> UUID | None:
    """The kiosk whose result of this scan was taken, erased or not; None if none was."""
    taken = select(Envelope.kiosk).where(
        Envelope.scan == scan, Envelope.type == "result", Envelope.state.in_((OPENED, ERASED))
    )
    return session.scalars(taken.limit(1)).first()


def named_by(session: Session, row: Envelope) -> UUID | None:
    """The scan whose withdrawal, by the same kiosk, names this message: then it need not even be opened."""
    named = session.get(WithdrawnMessage, (row.message_id, row.kiosk))
    if named is None or row.type == WITHDRAW or row.scan not in (None, named.scan):
        return None
    return named.scan


def comes_too_late(session: Session, row: Envelope, scan: UUID) -> bool:
    """Whether the kiosk of `row` has withdrawn `scan` before; another kiosk's word counts for nothing.

    Until the transaction ends nobody else keeps or withdraws this scan: on PostgreSQL a result and its
    withdrawal could otherwise pass each other unseen. SQLite has one writer.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(scan.int % 2**63)))
    return row.type != WITHDRAW and _is_withdrawn(session, row.kiosk, scan)


def withdraw(database: Database, session: Session, tombstone: Tombstone) -> list[UUID]:
    """Erase the scan of `tombstone`, which is on the disk before that; the messages that carried the scan.

    A withdrawal that overtakes its result waits for it under the scan's id; the same one again adds nothing.
    """
    if not _is_withdrawn(session, tombstone.kiosk, tombstone.scan):
        database.tombstones.add(tombstone)
        _bury(session, tombstone)
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


def reapply(database: Database, export: Path | None = None) -> None:
    """Make the database follow the tombstones before anything reads it: it may be an old copy brought back.

    Whatever either of the two knows, the other learns. `export` is the opener's folder, if it has one.
    Raises TombstonesUnusable.
    """
    written = {(stone.kiosk, stone.scan): stone for stone in database.tombstones.read()}
    with database.reading() as session:
        known = {(row.kiosk, row.scan): row for row in session.scalars(select(Withdrawal))}
        left = [_tombstone(session, row) for row in session.scalars(_of_which_something_is_left())]
        unwritten = [_tombstone(session, row) for key, row in known.items() if key not in written]
    for stone in unwritten:
        database.tombstones.add(stone)
    due = [stone for key, stone in written.items() if key not in known] + left
    if due:
        with database.writing() as session:
            for stone in due:
                _bury(session, stone)
                erase(session, stone.kiosk, stone.scan, stone.messages)
                note(session, "command", "withdrawal-applied-again", stone.scan, by=stone.reason)
        database.scrub()
        log.warning("withdrawals-applied-again", count=len(due))
    if export is not None:
        with database.reading() as session:
            erased = select(Envelope.kiosk, Envelope.message_id).where(Envelope.state == ERASED)
            for kiosk, message in session.execute(erased):
                forget_exports(export, kiosk, [message])


def forget_exports(export: Path | None, kiosk: UUID, messages: Iterable[UUID]) -> None:
    """Delete what the opener wrote of these messages of one kiosk into its folder `export`."""
    if export is not None:
        for message in messages:
            # An earlier version named no kiosk, so its file may be another's: better gone than left.
            for path in (exported(export, kiosk, message), export / f"{message}.json"):
                path.unlink(missing_ok=True)
                path.with_suffix(HALF_WRITTEN).unlink(missing_ok=True)


def exported(export: Path, kiosk: UUID, message: UUID) -> Path:
    """The file of a message in the opener's folder; two kiosks can have used the same id."""
    return export / f"{kiosk}.{message}.json"


def _is_withdrawn(session: Session, kiosk: UUID, scan: UUID) -> bool:
    return session.get(Withdrawal, (scan, kiosk)) is not None


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
    for message in stone.messages:
        insert_once(session, WithdrawnMessage(message_id=message, kiosk=stone.kiosk, scan=stone.scan))


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
