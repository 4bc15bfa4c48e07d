"""The clinic's records of scans, as its pages read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from .tables import Envelope, FindingRow, Kiosk, Scan, Withdrawal

PAGE_SIZE = 50


@dataclass(frozen=True)
class ScanLine:
    """One scan in the list."""

    id: UUID
    captured_at: datetime
    patient_reference: str | None
    kiosk: str
    simulated: bool
    quality: Sequence[str]
    look_first: bool
    unmeasured: bool


@dataclass(frozen=True)
class ScanPage:
    """Some scans, newest first; `older` is where the next page starts, None on the last."""

    lines: Sequence[ScanLine]
    older: UUID | None


@dataclass(frozen=True)
class ScanRecord:
    """One scan with everything known of it."""

    scan: Scan
    kiosk: Kiosk
    envelope: Envelope
    findings: Sequence[FindingRow]


def scan_page(session: Session, reference: str | None = None, after: UUID | None = None) -> ScanPage:
    """Scans of one patient reference, or of all; the page that follows the scan `after`."""
    query = (
        select(Scan, Kiosk.name)
        .join(Kiosk, Kiosk.id == Scan.kiosk)
        .order_by(Scan.captured_at.desc(), Scan.id.desc())
        .limit(PAGE_SIZE + 1)
    )
    if reference:
        query = query.where(Scan.patient_reference == reference)
    if after is not None:
        query = _older_than(query, session.get(Scan, after))
    rows = session.execute(query).all()
    lines = [
        ScanLine(
            scan.id,
            scan.captured_at,
            scan.patient_reference,
            kiosk,
            scan.simulated,
            scan.quality,
            any(spot["lesion"] and spot["lesion"]["melanoma_like"] for spot in scan.spots),
            any(spot["lesion"] is None for spot in scan.spots),
        )
        for scan, kiosk in rows[:PAGE_SIZE]
    ]
    return ScanPage(lines, lines[-1].id if len(rows) > PAGE_SIZE else None)


def scan_record(session: Session, scan_id: UUID) -> ScanRecord | None:
    """The scan, or None when there is none of this id."""
    scan = session.get(Scan, scan_id)
    if scan is None:
        return None
    kiosk = session.get(Kiosk, scan.kiosk)
    envelope = session.get(Envelope, (scan.kiosk, scan.message_id))
    assert kiosk is not None and envelope is not None, "foreign keys hold"
    findings = session.scalars(
        select(FindingRow).where(FindingRow.scan == scan_id).order_by(FindingRow.position)
    ).all()
    return ScanRecord(scan, kiosk, envelope, findings)


def withdrawn(session: Session, scan_id: UUID) -> Withdrawal | None:
    """What is left of a withdrawn scan, or None when none of this id was withdrawn."""
    return session.scalars(select(Withdrawal).where(Withdrawal.scan == scan_id).limit(1)).first()


def _older_than(query: Select[Scan, str], scan: Scan | None) -> Select[Scan, str]:
    if scan is None:
        return query
    earlier = Scan.captured_at < scan.captured_at
    return query.where(or_(earlier, and_(Scan.captured_at == scan.captured_at, Scan.id < scan.id)))
