"""What the clinic does with the envelopes that come from kiosks: verify, store, owe a receipt.

They come in batches, and a batch is a few statements, however many envelopes are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from sync.clinic.audit.log import alarm
from sync.clinic.receiving import withdrawals
from sync.clinic.receiving.opening_keys import NO_KEY
from sync.clinic.receiving.poison import keep_poison
from sync.clinic.receiving.reasons import Reason, SetAside
from sync.clinic.receiving.receipts import Owed, owe
from sync.clinic.receiving.registry import RESULT, key_finder
from sync.clinic.receiving.results import Key
from sync.clinic.receiving.sealed import has_key
from sync.clinic.store.database import now
from sync.clinic.store.rows import insert_new
from sync.clinic.store.tables import (
    DISCARDED,
    HELD,
    MISSING,
    QUARANTINED,
    RESEAL,
    RETIRED,
    STORED,
    Envelope,
    HeldKey,
)
from sync.wire import envelope, topics
from sync.wire.envelope import Verified
from sync.wire.messages import Withdraw
from sync.wire.receipt import ReceiptStatus

IntakeOutcome = Literal["stored", "duplicate", "quarantined", "withdrawn", "reseal", "held_back", "dropped"]
# What a kiosk is told of a good envelope; of one that is held back nothing.
Answer = ReceiptStatus | Literal["held_back"]

log = structlog.get_logger()


class Offered(NamedTuple):
    """One payload that came on a topic of a kiosk: it is `verified`, or it was `refused`, and why."""

    kiosk: UUID
    topic: str
    data: bytes
    verified: Verified | None
    refused: Reason | None = None


class _Good(NamedTuple):
    """One verified envelope on its way into the database."""

    kiosk: UUID
    verified: Verified
    data: bytes

    @property
    def key(self) -> Key:
        return self.kiosk, self.verified.header.message_id

    @property
    def place(self) -> tuple[UUID, int, int]:
        """Its place among the kiosk's messages, which no other one may take."""
        return self.kiosk, self.verified.header.epoch, self.verified.header.sequence


def check(
    kiosk: UUID, topic: str, data: bytes, find_key: Callable[[UUID, bytes], Ed25519PublicKey | None]
) -> Offered:
    """Check who sealed what came on the topic `topic` of `kiosk`; no transaction need be open."""
    try:
        verified = envelope.verify(data, find_key, kiosk)
    except envelope.EnvelopeError as error:
        return Offered(kiosk, topic, data, None, error.reason)
    if topics.up_kind(verified.header.type) != topic:
        return Offered(kiosk, topic, data, None, "wrong_topic")
    return Offered(kiosk, topic, data, verified)


def take_envelope(session: Session, kiosk: UUID, topic: str, data: bytes, worker: str) -> IntakeOutcome:
    """Check one payload and take it in, all in one transaction."""
    (outcome,) = take_envelopes(session, [check(kiosk, topic, data, key_finder(session, RESULT))], worker)
    return outcome


def take_envelopes(session: Session, offered: Sequence[Offered], worker: str) -> list[IntakeOutcome]:
    """Store these envelopes, or say why not; all in one transaction.

    An envelope of a kiosk or key that is not registered is held back: it is neither kept nor receipted, so
    the kiosk keeps it and sends it again, until somebody registers the kiosk. So is every envelope as long as
    no opener has ever said which keys it holds. One that is sealed to a key that is missing is kept, for its
    kiosk may not last; it is not receipted either, so the kiosk can be asked to seal it again. Of one that it
    is asked to seal again the place among the kiosk's messages is kept: it has come, and is not missing.
    """
    outcomes: list[IntakeOutcome] = []
    owed: list[Owed] = []
    good = [_Good(one.kiosk, one.verified, one.data) for one in offered if one.verified is not None]
    refused = [(one, one.refused) for one in offered if one.refused is not None]
    # In one order for all workers, so that two of them do not wait for each other in a ring.
    for one, why in sorted(refused, key=lambda each: (each[0].kiosk, each[0].data)):
        if why == "unknown_signer":
            log.warning("unknown_signer", kiosk=str(one.kiosk))
            outcomes.append("held_back")
        else:
            kept = keep_poison(session, one.kiosk, one.topic, one.data, why, worker, owed)
            outcomes.append(kept)
    while good:
        good, later = _apart(good)
        outcomes += _take_good(session, good, worker, owed)
        good = later
    owe(session, owed, worker)
    return outcomes


def _apart(good: Sequence[_Good]) -> tuple[list[_Good], list[_Good]]:
    """Those that have nothing in common with one before them, which one statement takes, and the others."""
    first, later = list[_Good](), list[_Good]()
    keys, places = set[Key](), set[tuple[UUID, int, int]]()
    for one in good:
        (later if one.key in keys or one.place in places else first).append(one)
        keys.add(one.key)
        places.add(one.place)
    return first, later


def _take_good(session: Session, good: Sequence[_Good], worker: str, owed: list[Owed]) -> list[IntakeOutcome]:
    moment = now()
    keys: dict[bytes, str] = {
        kid: state for kid, state in session.execute(select(HeldKey.kid, HeldKey.state))
    }
    named = withdrawals.named_among(session, [one.verified.header.message_id for one in good])
    outcomes: list[IntakeOutcome] = []
    new: dict[Key, tuple[_Good, str]] = {}

    def answer(one: _Good, status: Answer) -> None:
        outcomes.append(status)
        if status != "held_back":
            owed.append(Owed(one.kiosk, one.verified.header.message_id, one.verified.sha256, status, moment))

    def unread(one: _Good) -> bool:
        """What a withdrawal has named the opener erases unread, with the key or without."""
        return one.verified.header.type != Withdraw.KIND and one.key in named

    sealed = [one for one in good if not unread(one)]
    given_up, missing = (
        _waiting_for(session, [one for one in sealed if keys.get(one.verified.header.recipient) == state])
        for state in (RETIRED, MISSING)
    )
    for one in good:
        if one.key in given_up:
            new[one.key] = one, RESEAL
        elif not keys:
            log.warning("no_opener_yet", kiosk=str(one.kiosk))
            answer(one, "held_back")
        else:
            useful = keys.get(one.verified.header.recipient) == HELD or unread(one)
            new[one.key] = one, STORED if useful else QUARANTINED
    # In one order here too.
    new = {key: new[key] for key in sorted(new, key=lambda key: (key[0].int, key[1].int))}
    rows = [_row(one, state, moment) for one, state in new.values()]
    for inserted in insert_new(session, Envelope, rows):
        one, becomes = new.pop((inserted[0], inserted[1]))
        answer(one, _of_one_new(one, becomes, missing))
    known = _known(session, new)
    for one, becomes in new.values():
        sha256, state, _ = known.get(one.key, (None, "", None))
        clash = _tell_of_clash(session, one, sha256, worker)
        if becomes == RESEAL:
            answer(one, "reseal")
        elif clash is not None:
            topic = topics.up_kind(one.verified.header.type)
            outcomes.append(keep_poison(session, one.kiosk, topic, one.data, clash, worker, owed))
        elif state == RESEAL:
            # Its key is back, and its kiosk has no other to seal it to.
            again = update(Envelope).where(has_key(one.key), Envelope.state == RESEAL)
            session.execute(again.values(_row(one, becomes, moment)))
            answer(one, _of_one_new(one, becomes, missing))
        else:
            answer(one, _of_one_known(one, state, missing))
    return outcomes


def _tell_of_clash(session: Session, one: _Good, sha256: bytes | None, worker: str) -> SetAside | None:
    """Raise the alarm where another has its id, of the hash `sha256`, or its place; which of the two."""
    if sha256 == one.verified.sha256:
        return None
    clash: SetAside = "sequence_used_twice" if sha256 is None else "same_id_other_hash"
    alarm(session, worker, one.kiosk, clash, message=str(one.verified.header.message_id))
    return clash


def _of_one_new(one: _Good, state: str, missing: Collection[Key]) -> Answer:
    """What its kiosk is told of one that is kept in this `state` from now on."""
    if state != QUARANTINED:
        return "reseal" if state == RESEAL else "stored"
    log.warning("no_opening_key", kiosk=str(one.kiosk), key=one.verified.header.recipient.hex())
    return "held_back" if one.key in missing else "quarantined"


def _of_one_known(one: _Good, state: str, missing: Collection[Key]) -> Answer:
    """The same of one that has been in this `state`."""
    if one.key in missing:
        return "held_back"
    # Not "duplicate", which lets the kiosk's copy go, as long as nobody could read it here.
    return "quarantined" if state in (QUARANTINED, DISCARDED) else "duplicate"


def _known(session: Session, keys: Collection[Key]) -> dict[Key, tuple[bytes, str, str | None]]:
    """Hash, state and reason of the envelopes that are there under these keys."""
    if not keys:
        return {}
    kiosks, ids = zip(*keys, strict=True)
    columns = Envelope.kiosk, Envelope.message_id, Envelope.sha256, Envelope.state, Envelope.reason
    rows = session.execute(
        select(*columns).where(Envelope.kiosk.in_(set(kiosks)), Envelope.message_id.in_(ids))
    )
    return {(kiosk, message_id): (sha256, state, why) for kiosk, message_id, sha256, state, why in rows}


def _waiting_for(session: Session, sealed: Sequence[_Good]) -> set[Key]:
    """Those of `sealed` but for what is here, unless it waits for its key or was to be sealed again.

    Their kiosk had better keep them, or seal them again.
    """
    keys = {one.key for one in sealed}
    return keys - {
        key
        for key, (_, state, reason) in _known(session, keys).items()
        if state not in (STORED, RESEAL) and not (state == QUARANTINED and reason == NO_KEY)
    }


def _row(one: _Good, state: str, moment: datetime) -> dict[str, object]:
    header = one.verified.header
    return {
        "message_id": header.message_id,
        "kiosk": one.kiosk,
        "epoch": header.epoch,
        "sequence": header.sequence,
        "type": header.type,
        "schema_version": header.schema_version,
        "recipient": header.recipient,
        "created_at": header.created_at,
        "received_at": moment,
        "sha256": one.verified.sha256,
        "data": b"" if state == RESEAL else one.data,
        "state": state,
        "reason": NO_KEY if state == QUARANTINED else None,
    }
