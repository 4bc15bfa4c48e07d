"""Scans in the kiosk's records."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

from kiosk_app.kept.records import Records
from kiosk_app.kept.states import ScanState
from tests.support.clinic import findings

CONSENT = {"text_version": "1", "language": "en", "at": "2026-01-02T03:04:05+00:00"}
FINDINGS = findings(uuid4(), ita=41.25)


def analysed(records: Records, reference: str | None = "patient-7") -> UUID:
    scan = records.create(CONSENT, reference)
    records.advance(scan, ScanState.CONSENTED, ScanState.CAPTURED, frames=3, seconds={"capture": 1.5})
    records.keep_findings(scan, FINDINGS, findings=1, seconds={"analysis": 0.5})
    return scan


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
