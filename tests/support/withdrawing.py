"""A kiosk that withdraws scans, for tests: what it sends, and what is left of it at the clinic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import func, select

from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import (
    Base,
    Envelope,
)
from sync.clinic.store.tombstones import Tombstone
from sync.wire import topics
from sync.wire.keys import OpeningKey
from sync.wire.messages import Message, ReminderDue, Result, Withdraw, WithdrawMessages
from tests.support.clinic import MOMENT, SealingKiosk

REFERENCE = "ref-withdrawn-0001"
OTHER = "ref-who-stays-0002"


class Newer(Result):
    """A result of a version that the clinic's software does not know yet."""

    VERSION: ClassVar[int] = 99


def arrive(database: Database, kiosk: SealingKiosk, message: Message, message_id: UUID | None = None) -> UUID:
    message_id = message_id or uuid4()
    data = kiosk.seal(message, message_id=message_id)
    with database.writing() as session:
        take_envelope(session, kiosk.id, topics.up_kind(message.KIND), data, "ingest-1")
    return message_id


def open_all(database: Database, *keys: OpeningKey, export: Path | None = None, again: bool = False) -> None:
    opener = Opener(database, keys, export)
    opener.begin(again=again)
    while opener.open_next():
        pass
    opener.scrub()


def withdraw(scan: UUID, *messages: UUID, reason: str = "patient") -> Withdraw:
    return WithdrawMessages.model_validate(
        {"scan": scan, "at": MOMENT, "reason": reason, "messages": messages, "schema": 2}
    )


def a_result(kiosk: SealingKiosk, scan: UUID, **changes: Any) -> Any:
    return kiosk.result(scan, **({"patient_reference": REFERENCE} | changes))


def a_reminder(about: UUID | None) -> ReminderDue:
    return ReminderDue(
        reminder=uuid4(), patient_reference=REFERENCE, rule="yearly", due_on=MOMENT.date(), scan=about
    )


def envelope(database: Database, message_id: UUID) -> Envelope:
    with database.reading() as session:
        return session.scalars(select(Envelope).where(Envelope.message_id == message_id)).one()


def count(database: Database, table: type[Base]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def everything(database: Database) -> str:
    """Every value of every table, as text."""
    lines = []
    with database.reading() as session:
        for table in Base.metadata.sorted_tables:
            lines += [repr(tuple(row)) for row in session.execute(select(table))]
    return "\n".join(lines)


def files_of(folder: Path) -> bytes:
    """Every byte of the database, its write-ahead log and whatever else SQLite left."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("clinic.sqlite*")))


def a_stone() -> Tombstone:
    return Tombstone(
        kiosk=uuid4(), scan=uuid4(), message_id=uuid4(), messages=(uuid4(),), at=MOMENT, reason="staff"
    )
