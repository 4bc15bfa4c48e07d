"""The clinic's rows of opened messages: scans with their findings, reminders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from sync.clinic.store.database import now
from sync.clinic.store.rows import append, as_given, core, insert_new
from sync.clinic.store.tables import FindingRow, ReminderRow, Scan
from sync.wire.messages import ReminderDue, Result

# The kiosk and the id of the message that something comes of.
Key = tuple[UUID, UUID]


def keep_results(session: Session, results: Sequence[tuple[Key, Result]]) -> None:
    """The records of results, each of another scan of which there is none."""
    if not results:
        return
    moment = now()
    session.execute(insert(core(Scan)), [_scan(key, result, moment) for key, result in results])
    given = [(as_given(session, result.scan), result.findings.findings) for _, result in results]
    append(
        session,
        FindingRow,
        [
            (scan, position, it.measure, it.zone, it.value, it.unit, it.low, it.high, it.model)
            for scan, findings in given
            for position, it in enumerate(findings)
        ],
    )


def _scan(key: Key, result: Result, moment: datetime) -> dict[str, Any]:
    findings = result.findings
    return {
        "id": result.scan,
        "message_id": key[1],
        "kiosk": key[0],
        "patient_reference": result.patient_reference,
        "supersedes": result.supersedes,
        "captured_at": result.captured_at,
        "opened_at": moment,
        "board": result.board,
        "simulated": result.simulated,
        "software": findings.software,
        "calibration": findings.calibration,
        "models": dict(findings.models),
        "quality": list(findings.quality),
        "consent": result.consent,
        "geometry": findings.geometry,
        "spots": findings.spots,
    }


def keep_reminders(session: Session, due: Sequence[tuple[Key, ReminderDue]]) -> None:
    rows = [
        {
            "id": reminder.reminder,
            "message_id": message_id,
            "kiosk": kiosk,
            "patient_reference": reminder.patient_reference,
            "rule": reminder.rule,
            "due_on": reminder.due_on,
            "scan": reminder.scan,
        }
        for (kiosk, message_id), reminder in due
    ]
    insert_new(session, ReminderRow, rows)
