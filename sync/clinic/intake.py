"""What the clinic does with a payload from a kiosk: verify, store, owe a receipt."""

from __future__ import annotations

import hashlib
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sync.wire import cose, envelope
from sync.wire.statement import StatementError
from sync.wire.status import Status

from .audit import note
from .database import insert_once, now
from .receipts import owe
from .registry import RESULT, STATUS, key_finder
from .tables import STORED, Envelope, HeldKey, Kiosk, Poison

Outcome = Literal["stored", "duplicate", "quarantined", "reseal", "held_back", "dropped", "heartbeat"]

# So much poison of one kiosk is kept for a person to look at; what comes after it is only counted in the log.
POISON_CAP = 200

log = structlog.get_logger()


def take_envelope(session: Session, kiosk: UUID, data: bytes, worker: str) -> Outcome:
    """Store the envelope that came on the topic of `kiosk`, or say why not; all in one transaction.

    An envelope of a kiosk or key that is not registered is held back: it is neither kept nor receipted, so
    the kiosk keeps it and sends it again, until somebody registers the kiosk.
    """
    try:
        verified = envelope.verify(data, key_finder(session, RESULT), kiosk)
    except envelope.EnvelopeError as error:
        if error.reason == "unknown_signer":
            log.warning("unknown-signer", kiosk=str(kiosk))
            return "held_back"
        return take_poison(session, kiosk, data, error.reason, worker)
    header, moment = verified.header, now()
    key = session.get(HeldKey, header.recipient)
    if key is not None and not key.held:
        owe(session, kiosk, header.message_id, verified.sha256, "reseal", moment, worker)
        return "reseal"
    row = Envelope(
        message_id=header.message_id,
        kiosk=kiosk,
        epoch=header.epoch,
        sequence=header.sequence,
        type=header.type,
        schema_version=header.schema_version,
        recipient=header.recipient,
        created_at=header.created_at,
        received_at=moment,
        sha256=verified.sha256,
        data=data,
        state=STORED,
    )
    if insert_once(session, row):
        owe(session, kiosk, header.message_id, verified.sha256, "stored", moment, worker)
        return "stored"
    known = session.get(Envelope, header.message_id)
    if known is not None and known.sha256 == verified.sha256:
        owe(session, kiosk, header.message_id, verified.sha256, "duplicate", moment, worker)
        return "duplicate"
    alarm = "same_id_other_hash" if known is not None else "sequence_used_twice"
    log.error("alarm", reason=alarm, kiosk=str(kiosk), message=str(header.message_id))
    note(session, worker, "alarm", kiosk, reason=alarm, message=str(header.message_id))
    return take_poison(session, kiosk, data, alarm, worker)


def take_poison(session: Session, kiosk: UUID, data: bytes, reason: str, worker: str) -> Outcome:
    """Keep a payload that is no good envelope, and owe a receipt for it if it says which message it is."""
    count = session.scalar(select(func.count()).select_from(Poison).where(Poison.kiosk == kiosk)) or 0
    sha256, moment = hashlib.sha256(data).digest(), now()
    row = Poison(kiosk=kiosk, sha256=sha256, data=data, reason=reason, received_at=moment)
    known = session.scalar(select(Poison.id).where(Poison.kiosk == kiosk, Poison.sha256 == sha256))
    if known is None:
        if count >= POISON_CAP:
            log.warning("poison-dropped", kiosk=str(kiosk), reason=reason, cap=POISON_CAP)
            return "dropped"
        insert_once(session, row)
        log.warning("quarantined", kiosk=str(kiosk), reason=reason, bytes=len(data))
    message_id = claimed_id(data)
    if message_id is not None:
        owe(session, kiosk, message_id, sha256, "quarantined", moment, worker)
    return "quarantined"


def take_heartbeat(session: Session, kiosk: UUID, data: bytes) -> Outcome:
    """Note the signed heartbeat of a kiosk; anything else on that topic is a hint at best."""
    find = key_finder(session, STATUS)
    try:
        status = Status.verify(data, lambda kid: find(kiosk, kid))
    except StatementError:
        return "dropped"
    known = session.get(Kiosk, kiosk)
    if known is None or status.kiosk != kiosk:
        return "dropped"
    if known.heartbeat is None or Status.model_validate(known.heartbeat).at <= status.at:
        known.last_seen_at, known.heartbeat = now(), status.model_dump(mode="json")
    return "heartbeat"


def claimed_id(data: bytes) -> UUID | None:
    """The id that an envelope claims; nobody vouches for it, so it only ever goes back to the sender."""
    try:
        claimed = cose.parse(data, envelope.TYPE).header.get("id")
    except cose.CoseError:
        return None
    return UUID(bytes=claimed) if isinstance(claimed, bytes) and len(claimed) == 16 else None
