"""What the clinic does with a payload from a kiosk: verify, store, owe a receipt."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sync.wire import cose, envelope, topics
from sync.wire.receipt import ReceiptStatus
from sync.wire.statement import StatementError
from sync.wire.status import Status

from .audit import note
from .database import insert_once, now
from .receipts import owe
from .registry import RESULT, STATUS, key_finder
from .tables import DISCARDED, QUARANTINED, STORED, Envelope, HeldKey, Kiosk, Poison

Outcome = Literal["stored", "duplicate", "quarantined", "reseal", "held_back", "dropped", "heartbeat"]

# So much poison of one kiosk is kept for a person to look at; what comes after it is only counted in the log.
POISON_CAP = 200
# Sealed to a key that no opener has said it holds: kept until one does, and the kiosk keeps its copy too.
NO_KEY = "no_opening_key"
# The numbers that order heartbeats begin at a clock and go slower than it. One from further ahead than this
# is no kiosk's count, and taking it would silence the kiosk until then.
CLOCK_AHEAD = timedelta(days=1)
FROM_THE_FUTURE = "heartbeat_from_the_future"

log = structlog.get_logger()


def take_envelope(session: Session, kiosk: UUID, topic: str, data: bytes, worker: str) -> Outcome:
    """Store the envelope that came on the topic `topic` of `kiosk`, or say why not; all in one transaction.

    An envelope of a kiosk or key that is not registered is held back: it is neither kept nor receipted, so
    the kiosk keeps it and sends it again, until somebody registers the kiosk. So is every envelope as long as
    no opener has ever said which keys it holds.
    """
    try:
        verified = envelope.verify(data, key_finder(session, RESULT), kiosk)
    except envelope.EnvelopeError as error:
        if error.reason == "unknown_signer":
            log.warning("unknown-signer", kiosk=str(kiosk))
            return "held_back"
        return take_poison(session, kiosk, topic, data, error.reason, worker)
    header, moment = verified.header, now()
    if topics.up_kind(header.type) != topic:
        return take_poison(session, kiosk, topic, data, "wrong_topic", worker)
    key = session.get(HeldKey, header.recipient)
    if key is not None and not key.held:
        owe(session, kiosk, header.message_id, verified.sha256, "reseal", moment, worker)
        return "reseal"
    if key is None and session.scalars(select(HeldKey.kid).limit(1)).first() is None:
        log.warning("no-opener-yet", kiosk=str(kiosk))
        return "held_back"
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
        state=QUARANTINED if key is None else STORED,
        reason=NO_KEY if key is None else None,
    )
    if insert_once(session, row):
        if key is None:
            log.warning("no-opening-key", kiosk=str(kiosk), key=header.recipient.hex())
        became: ReceiptStatus = "quarantined" if key is None else "stored"
        owe(session, kiosk, header.message_id, verified.sha256, became, moment, worker)
        return became
    known = session.get(Envelope, (kiosk, header.message_id))
    if known is not None and known.sha256 == verified.sha256:
        # Not "duplicate", which lets the kiosk's copy go, as long as nobody could read it here.
        became = "quarantined" if known.state in (QUARANTINED, DISCARDED) else "duplicate"
        owe(session, kiosk, header.message_id, verified.sha256, became, moment, worker)
        return became
    alarm = "same_id_other_hash" if known is not None else "sequence_used_twice"
    log.error("alarm", reason=alarm, kiosk=str(kiosk), message=str(header.message_id))
    note(session, worker, "alarm", kiosk, reason=alarm, message=str(header.message_id))
    return take_poison(session, kiosk, topic, data, alarm, worker)


def take_poison(session: Session, kiosk: UUID, topic: str, data: bytes, reason: str, worker: str) -> Outcome:
    """Keep a payload that is no good envelope, and owe a receipt for it if it says which message it is."""
    count = session.scalar(select(func.count()).select_from(Poison).where(Poison.kiosk == kiosk)) or 0
    sha256, moment = hashlib.sha256(data).digest(), now()
    row = Poison(kiosk=kiosk, topic=topic, sha256=sha256, data=data, reason=reason, received_at=moment)
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


def take_heartbeat(session: Session, kiosk: UUID, data: bytes, worker: str) -> Outcome:
    """Note the signed heartbeat of a kiosk; anything else on that topic is a hint at best.

    Heartbeats are in the order of their counter. One that does not come after the last, such as the same one
    said again by somebody else, shows nothing of how the kiosk is now.
    """
    find = key_finder(session, STATUS)
    try:
        status = Status.verify(data, lambda kid: find(kiosk, kid))
    except StatementError:
        return "dropped"
    # Shared with those who store envelopes, which only refer to the kiosk: they need not wait for each other.
    known = session.get(Kiosk, kiosk, with_for_update={"key_share": True})
    if known is None or status.kiosk != kiosk:
        return "dropped"
    moment = now()
    if _of_the_future(status.order, moment):
        return _refuse_heartbeat(session, kiosk, data, worker)
    last = (known.heartbeat_epoch, known.heartbeat_counter)
    # The last one can be of the future only if this computer's clock was, or an earlier version took it.
    if status.order <= last and not _of_the_future(last, moment):
        return "heartbeat"
    known.heartbeat_epoch, known.heartbeat_counter = status.order
    known.last_seen_at, known.heartbeat = moment, status.model_dump(mode="json")
    return "heartbeat"


def _of_the_future(order: tuple[int, int], moment: datetime) -> bool:
    end = (moment + CLOCK_AHEAD).timestamp()
    epoch, counter = order
    return epoch > end or counter > end * 1000


def _refuse_heartbeat(session: Session, kiosk: UUID, data: bytes, worker: str) -> Outcome:
    """Keep one heartbeat from the future of each kiosk, with an alarm; the next are only logged."""
    log.error("alarm", reason=FROM_THE_FUTURE, kiosk=str(kiosk))
    of_kiosk = select(Poison.id).where(Poison.kiosk == kiosk, Poison.topic == STATUS)
    if session.scalars(of_kiosk.limit(1)).first() is not None:
        return "dropped"
    outcome = take_poison(session, kiosk, STATUS, data, FROM_THE_FUTURE, worker)
    if outcome == "quarantined":
        note(session, worker, "alarm", kiosk, reason=FROM_THE_FUTURE)
    return outcome


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
