"""The audit log: who did what at the clinic, when."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from .database import now
from .tables import AuditEvent


def note(session: Session, actor: str, event: str, subject: object = None, **detail: Any) -> None:
    """Add one event in the transaction of `session`; nothing in it names a patient or a measurement."""
    text = None if subject is None else str(subject)
    session.add(AuditEvent(at=now(), actor=actor, event=event, subject=text, detail=detail))
