"""Withdrawals of scans that never came: a kiosk rarely sends one, so many of them wait in quarantine."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, aliased

from sync.clinic.receiving import withdrawals
from sync.clinic.store.database import now
from sync.clinic.store.tables import QUARANTINED, STORED, Envelope, Withdrawal
from sync.clinic.store.tombstones import Tombstone, Tombstones
from sync.wire.messages import Result

# So many scans that never came may a kiosk withdraw in so long. It rarely withdraws one: when a result was
# lost on its way and the scan was deleted before the next try. Each is a line of a file that every command
# reads.
MOST_UNSEEN = 500
# Those that are too many are lines of it too, since an old copy of the database would not know them; of a
# kiosk that floods its clinic with them no more than so many.
MOST_UNSEEN_LINES = 4 * MOST_UNSEEN
UNSEEN_WINDOW = timedelta(days=30)
TOO_MANY_UNSEEN: Final = "too_many_unseen_withdrawals"
_ONE_TOO_MANY = (Envelope.state == QUARANTINED, Envelope.reason == TOO_MANY_UNSEEN)


def is_one_too_many(session: Session, stone: Tombstone) -> bool:
    """Whether `stone` is of a scan that never came, and its kiosk has withdrawn too many such of late.

    Its withdrawal then waits in quarantine instead of becoming a tombstone, and a result that comes of the
    scan after all is not opened either.
    """
    if withdrawals.is_withdrawn(session, stone.kiosk, stone.scan) or _has_come(session, stone):
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
