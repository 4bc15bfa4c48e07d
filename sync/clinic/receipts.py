"""The receipts that the clinic owes its kiosks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, cast
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from sync.wire.receipt import ReceiptStatus

from .database import now, put
from .tables import ReceiptRow

# A worker sends what it owes itself; what another has left unsent for this long, that one is gone.
ORPHANED_AFTER = timedelta(seconds=30)


class Owed(NamedTuple):
    """One receipt that has not been sent."""

    kiosk: UUID
    message_id: UUID
    sha256: bytes
    status: ReceiptStatus
    at: datetime


def owe(
    session: Session,
    kiosk: UUID,
    message_id: UUID,
    sha256: bytes,
    status: ReceiptStatus,
    at: datetime,
    worker: str,
) -> None:
    """Owe `kiosk` a receipt, in the transaction that makes it true; one owed before is owed again."""
    put(
        session,
        ReceiptRow(
            kiosk=kiosk,
            message_id=message_id,
            sha256=sha256,
            worker=worker,
            status=status,
            at=at,
            sent_at=None,
        ),
    )


def owe_late(session: Session, kiosk: UUID, message_id: UUID, sha256: bytes) -> None:
    """Owe "stored" for what was receipted as quarantined and is opened after all: the kiosk lets go of it."""
    session.execute(
        update(ReceiptRow)
        .where(
            ReceiptRow.kiosk == kiosk,
            ReceiptRow.message_id == message_id,
            ReceiptRow.sha256 == sha256,
            ReceiptRow.status == "quarantined",
        )
        .values(status="stored", at=now(), sent_at=None)
    )


def unsent(session: Session, worker: str, at: datetime, limit: int) -> list[Owed]:
    """The oldest receipts that `worker` has to send."""
    rows = session.scalars(
        select(ReceiptRow)
        .where(
            ReceiptRow.sent_at.is_(None),
            or_(ReceiptRow.worker == worker, ReceiptRow.at < at - ORPHANED_AFTER),
        )
        .order_by(ReceiptRow.at)
        .limit(limit)
    )
    return [
        Owed(row.kiosk, row.message_id, row.sha256, cast(ReceiptStatus, row.status), row.at) for row in rows
    ]


def mark_sent(session: Session, sent: Iterable[Owed], at: datetime) -> None:
    """The broker has taken these; a receipt that has come to be owed again since then stays owed."""
    for owed in sent:
        session.execute(
            update(ReceiptRow)
            .where(
                ReceiptRow.kiosk == owed.kiosk,
                ReceiptRow.message_id == owed.message_id,
                ReceiptRow.sha256 == owed.sha256,
                ReceiptRow.at == owed.at,
            )
            .values(sent_at=at)
        )
