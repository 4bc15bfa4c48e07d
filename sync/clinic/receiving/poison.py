"""Poison: payloads that are no good envelope or heartbeat, kept for a person to look at."""

from __future__ import annotations

import hashlib
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sync.clinic.audit.log import alarm
from sync.clinic.receiving.reasons import Reason
from sync.clinic.receiving.receipts import Owed, hashes_receipted, owe
from sync.clinic.store.database import now
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import Poison, WithdrawnMessage
from sync.wire import cose, envelope, topics

# So much poison of one kiosk is kept for a person to look at; of what comes after it there is only an alarm.
POISON_CAP = 200
POISON_FULL = "quarantine_full"
# A withdrawn message may come spoilt; so many versions of one are answered, and the next are not, since each
# answer is a row.
SPOILT_RECEIPTS = 4

log = structlog.get_logger()


PoisonOutcome = Literal["quarantined", "withdrawn", "dropped"]


def take_poison(
    session: Session, kiosk: UUID, topic: str, data: bytes, reason: Reason, worker: str
) -> PoisonOutcome:
    """Keep a payload that is no good envelope, and owe a receipt for it if it says which message it is.

    Nothing is kept of one that says it is a message which its kiosk has withdrawn.
    """
    owed: list[Owed] = []
    outcome = keep_poison(session, kiosk, topic, data, reason, worker, owed)
    owe(session, owed, worker)
    return outcome


def keep_poison(
    session: Session, kiosk: UUID, topic: str, data: bytes, reason: Reason, worker: str, owed: list[Owed]
) -> PoisonOutcome:
    """The same, but its receipt is added to `owed`, which whoever calls owes together."""
    sha256, moment = hashlib.sha256(data).digest(), now()
    message_id = claimed_id(data)
    if message_id is not None and session.get(WithdrawnMessage, (message_id, kiosk)) is not None:
        answered = hashes_receipted(session, kiosk, message_id)
        answered |= {one.sha256 for one in owed if (one.kiosk, one.message_id) == (kiosk, message_id)}
        if sha256 in answered or len(answered) < SPOILT_RECEIPTS:
            owed.append(Owed(kiosk, message_id, sha256, "duplicate", moment))
        return "withdrawn"
    count = session.scalar(select(func.count()).select_from(Poison).where(Poison.kiosk == kiosk)) or 0
    row = Poison(kiosk=kiosk, topic=topic, sha256=sha256, data=data, reason=reason, received_at=moment)
    known = session.scalar(select(Poison.id).where(Poison.kiosk == kiosk, Poison.sha256 == sha256))
    if known is None:
        if count >= POISON_CAP:
            log.warning("poison_dropped", kiosk=str(kiosk), reason=reason, cap=POISON_CAP)
            alarm(session, worker, kiosk, POISON_FULL)
            return "dropped"
        insert_once(session, row)
        log.warning("quarantined", kiosk=str(kiosk), reason=reason, bytes=len(data))
    if message_id is not None:
        owed.append(Owed(kiosk, message_id, sha256, "quarantined", moment))
    return "quarantined"


def claimed_id(data: bytes) -> UUID | None:
    """The id that an envelope claims; nobody vouches for it, so it only ever goes back to the sender."""
    try:
        claimed = cose.parse(data, envelope.TYPE).header.get("id")
    except cose.CoseError:
        return None
    return UUID(bytes=claimed) if isinstance(claimed, bytes) and len(claimed) == 16 else None


def claimed_topic(data: bytes) -> str:
    """The kind of topic that a payload belongs on by what it claims to be, where nobody noted it."""
    try:
        return topics.up_kind(str(cose.parse(data, envelope.TYPE).header.get("type")))
    except cose.CoseError:
        return "result"
