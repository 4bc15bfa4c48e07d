"""The receipts that the clinic owes its kiosks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Exists, bindparam, exists, or_, select, update
from sqlalchemy.orm import Session

from sync.clinic.store.database import now
from sync.clinic.store.rows import as_lists, core, listed, put_all
from sync.clinic.store.tables import OPENED, Envelope, ReceiptRow
from sync.wire.receipt import ReceiptStatus

# A worker sends what it owes itself; what another has left unsent for this long, that one is gone.
ORPHANED_AFTER = timedelta(seconds=30)
# What owes receipts and sends none: a person's command.
COMMAND = "command"


class Owed(NamedTuple):
    """One receipt that has not been sent."""

    kiosk: UUID
    message_id: UUID
    sha256: bytes
    status: ReceiptStatus
    at: datetime


def _in_one_order(one: Owed) -> tuple[int, int, bytes]:
    """For all workers, so that two of them do not wait for each other in a ring.

    By numbers: UUIDs compare as they do, many times slower.
    """
    return one.kiosk.int, one.message_id.int, one.sha256


# What a kiosk lets its own copy go for.
_LETS_GO = ("stored", "duplicate")
_KEY = (ReceiptRow.kiosk, ReceiptRow.message_id, ReceiptRow.sha256)


def _locked(*which: ColumnElement[bool]) -> CTE:
    """The keys of these receipts, which nobody else changes from then on, locked in the same order.

    An update by itself locks rows as they come.
    """
    return select(*_KEY).where(*which).order_by(*_KEY).with_for_update(of=ReceiptRow).cte("locked")


def owe(session: Session, owed: Sequence[Owed], worker: str) -> None:
    """Owe these receipts, in the transaction that makes them true; one owed before is owed again."""
    rows = [
        one._asdict() | {"worker": worker, "sent_at": None, "let_go": one.status in _LETS_GO}
        for one in sorted(owed, key=_in_one_order)
    ]
    put_all(session, ReceiptRow, rows, once_true=("let_go",))


def hashes_receipted(session: Session, kiosk: UUID, message_id: UUID) -> set[bytes]:
    """The SHA-256 of each payload under this id that `kiosk` was owed a receipt for."""
    of_message = (ReceiptRow.kiosk == kiosk) & (ReceiptRow.message_id == message_id)
    return set(session.scalars(select(ReceiptRow.sha256).where(of_message)))


def let_go() -> Exists:
    """Whether the kiosk of an Envelope was ever told that the clinic has it, and let its own copy go."""
    return exists().where(
        ReceiptRow.kiosk == Envelope.kiosk,
        ReceiptRow.message_id == Envelope.message_id,
        ReceiptRow.sha256 == Envelope.sha256,
        ReceiptRow.let_go,
    )


def others_at_work(session: Session, worker: str, since: datetime) -> bool:
    """Whether an ingest worker other than this one has owed a receipt since then."""
    is_other = ReceiptRow.worker.not_in((worker, COMMAND))
    others = select(ReceiptRow.worker).where(is_other, ReceiptRow.at >= since)
    return session.scalars(others.limit(1)).first() is not None


def owe_late(session: Session, kiosks: Collection[UUID], messages: Collection[UUID]) -> None:
    """Owe "stored" for what was receipted as quarantined and is opened after all: the kiosk lets go of it.

    It is about the payload that its envelope holds; another one under the same id stays as it was told.
    """
    held = (
        (Envelope.kiosk == ReceiptRow.kiosk)
        & (Envelope.message_id == ReceiptRow.message_id)
        & (Envelope.sha256 == ReceiptRow.sha256)
    )
    late = _locked(
        ReceiptRow.kiosk.in_(kiosks),
        ReceiptRow.message_id.in_(messages),
        ReceiptRow.status == "quarantined",
        exists().where(held, Envelope.state == OPENED),
    )
    session.execute(
        update(core(ReceiptRow))
        .where(*(each == late.c[each.key] for each in _KEY))
        .values(status="stored", let_go=True, at=now(), sent_at=None)
    )


def unsent(session: Session, worker: str, at: datetime, limit: int, but: Collection[UUID] = ()) -> list[Owed]:
    """The oldest receipts that `worker` has to send, except to the kiosks `but`."""
    columns = (getattr(ReceiptRow, field) for field in Owed._fields)
    waiting = select(*columns).where(
        ReceiptRow.sent_at.is_(None),
        or_(ReceiptRow.worker == worker, ReceiptRow.at < at - ORPHANED_AFTER),
    )
    if but:
        waiting = waiting.where(ReceiptRow.kiosk.not_in(but))
    return [Owed(*row) for row in session.execute(waiting.order_by(ReceiptRow.at).limit(limit))]


def mark_sent(session: Session, sent: Sequence[Owed], at: datetime) -> None:
    """The broker has taken these; a receipt that has come to be owed again since then stays owed."""
    if not sent:
        return
    rows = [{f"of_{name}": getattr(one, name) for name in _MARKED} for one in sent]
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(_MARK_SENT_AT_ONCE, as_lists(rows) | {"sent": at})
    else:
        connection.execute(_MARK_SENT, [row | {"sent": at} for row in rows])


_MARKED = {name: getattr(ReceiptRow, name) for name in ("kiosk", "message_id", "sha256", "at")}
_LISTED = listed({f"of_{name}": each.type for name, each in _MARKED.items()})
_MARK = update(core(ReceiptRow)).values(sent_at=bindparam("sent"))
_MARK_SENT = _MARK.where(*(each == bindparam(f"of_{name}") for name, each in _MARKED.items()))
_AT_ONCE = _locked(*(each == _LISTED.c[f"of_{name}"] for name, each in _MARKED.items()))
_MARK_SENT_AT_ONCE = _MARK.where(*(each == _AT_ONCE.c[each.key] for each in _KEY))
