"""The clinic's records of scans, as its pages read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, literal, select, tuple_
from sqlalchemy.orm import Session, load_only, undefer

from sync.clinic.store.tables import Envelope, FindingRow, Kiosk, Scan, Withdrawal

PAGE_SIZE = 50
# A scan that came so long before it was taken was taken by a clock that is ahead.
CLOCK_AHEAD = timedelta(minutes=5)


class Place(NamedTuple):
    """Where a scan stands in the list, also once it is gone."""

    captured_at: datetime
    id: UUID


@dataclass(frozen=True)
class ScanLine:
    """One scan in the list."""

    id: UUID
    captured_at: datetime
    patient_reference: str | None
    kiosk: str
    simulated: bool
    quality: Sequence[str]
    measured: bool
    clock_ahead: bool
    look_first: bool
    unmeasured: bool


@dataclass(frozen=True)
class ScanPage:
    """Some scans, newest first; `older` is where the next page starts, None on the last."""

    lines: Sequence[ScanLine]
    older: Place | None


@dataclass(frozen=True)
class ScanRecord:
    """One scan with everything known of it."""

    scan: Scan
    kiosk: Kiosk
    envelope: Envelope
    findings: Sequence[FindingRow]

    @property
    def clock_ahead(self) -> bool:
        return _clock_ahead(self.scan.captured_at, self.envelope.received_at)


def scan_page(session: Session, reference: str | None = None, after: Place | None = None) -> ScanPage:
    """Scans of one patient reference, or of all; the page that follows `after`."""
    # Looked up for each line, where a join may read every envelope.
    received = select(Envelope.received_at).where(
        Envelope.kiosk == Scan.kiosk, Envelope.message_id == Scan.message_id
    )
    query = (
        select(
            Scan.id,
            Scan.captured_at,
            Scan.patient_reference,
            Kiosk.name,
            Scan.simulated,
            Scan.quality,
            Scan.spots,
            received.scalar_subquery().label("received_at"),
        )
        .join(Kiosk, Kiosk.id == Scan.kiosk)
        .order_by(Scan.captured_at.desc(), Scan.id.desc())
        .limit(PAGE_SIZE + 1)
    )
    if reference:
        query = query.where(Scan.patient_reference == reference)
    if after is not None:
        # One comparison of both: an index leads to its place, where two joined by OR read all newer ones.
        query = query.where(tuple_(Scan.captured_at, Scan.id) < _as_values(after))
    rows = session.execute(query).all()
    first = select(FindingRow.scan).where(
        FindingRow.scan.in_(row.id for row in rows), FindingRow.position == 0
    )
    measured = set(session.scalars(first))
    lines = [
        ScanLine(
            id=row.id,
            captured_at=row.captured_at,
            patient_reference=row.patient_reference,
            kiosk=row.name,
            simulated=row.simulated,
            quality=row.quality,
            measured=row.id in measured,
            clock_ahead=_clock_ahead(row.captured_at, row.received_at),
            look_first=any(spot.lesion is not None and spot.lesion.melanoma_like for spot in row.spots),
            unmeasured=any(spot.lesion is None for spot in row.spots),
        )
        for row in rows[:PAGE_SIZE]
    ]
    older = Place(lines[-1].captured_at, lines[-1].id) if len(rows) > PAGE_SIZE else None
    return ScanPage(lines, older)


def scan_record(session: Session, scan_id: UUID) -> ScanRecord | None:
    """The scan, or None when there is none of this id."""
    scan = session.get(Scan, scan_id, options=[undefer(Scan.geometry)])
    if scan is None:
        return None
    kiosk = session.get_one(Kiosk, scan.kiosk)
    # What else there is of it may be what no database can give back.
    shown = [load_only(Envelope.received_at)]
    envelope = session.get_one(Envelope, (scan.kiosk, scan.message_id), options=shown)
    findings = session.scalars(
        select(FindingRow).where(FindingRow.scan == scan_id).order_by(FindingRow.position)
    ).all()
    return ScanRecord(scan, kiosk, envelope, findings)


def withdrawn(session: Session, scan_id: UUID) -> Withdrawal | None:
    """What is left of a withdrawn scan, or None when none of this id was withdrawn."""
    return session.scalars(select(Withdrawal).where(Withdrawal.scan == scan_id).limit(1)).first()


def _clock_ahead(captured_at: datetime, received_at: datetime) -> bool:
    return captured_at > received_at + CLOCK_AHEAD


def _as_values(place: Place) -> ColumnElement[tuple[datetime, UUID]]:
    return tuple_(literal(place.captured_at, Scan.captured_at.type), literal(place.id, Scan.id.type))
