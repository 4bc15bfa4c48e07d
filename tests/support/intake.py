"""Envelopes handed to the clinic's intake without a broker."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select

from sync.clinic.receiving.intake import take_envelope
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Envelope, Poison, ReceiptRow

WORKER = "ingest-1"


def take(database: Database, kiosk: UUID, data: bytes, topic: str = "result") -> str:
    with database.writing() as session:
        return take_envelope(session, kiosk, topic, data, WORKER)


def receipts(database: Database) -> list[str]:
    with database.reading() as session:
        return sorted(session.scalars(select(ReceiptRow.status)))


def count(database: Database, table: type[Envelope] | type[Poison]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0
