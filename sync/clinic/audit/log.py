"""The audit log: who did what at the clinic, when, and what was wrong with its kiosks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from sync.clinic.store.database import now
from sync.clinic.store.tables import AuditEvent

ALARM = "alarm"
# The same alarm of the same kiosk is a row once in so long: whoever can cause it can cause it a thousand
# times a minute, and rows are only ever added.
ALARM_EVERY = timedelta(hours=1)

log = structlog.get_logger()


def note(session: Session, actor: str, event: str, subject: object = None, **detail: Any) -> None:
    """Add one event in the transaction of `session`; nothing in it names a patient or a measurement."""
    text = None if subject is None else str(subject)
    session.add(AuditEvent(at=now(), actor=actor, event=event, subject=text, detail=detail))


def alarm(session: Session, actor: str, kiosk: UUID, reason: str, **detail: str) -> None:
    """Tell that something is wrong with `kiosk`: in the log each time, in the audit log once an hour.

    Workers that find it at the same moment each add their row.
    """
    log.error(ALARM, reason=reason, kiosk=str(kiosk), **detail)
    moment = now()
    of_late = select(AuditEvent.detail).where(
        AuditEvent.event == ALARM,
        AuditEvent.subject == str(kiosk),
        AuditEvent.at.between(moment - ALARM_EVERY, moment),
    )
    if all(told["reason"] != reason for told in session.scalars(of_late)):
        note(session, actor, ALARM, kiosk, reason=reason, **detail)
