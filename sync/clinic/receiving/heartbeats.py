"""Heartbeats: what a kiosk says of itself once a minute, noted in the order in which it said it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from sync.clinic.audit.log import alarm
from sync.clinic.receiving.poison import take_poison
from sync.clinic.receiving.reasons import SetAside
from sync.clinic.receiving.registry import STATUS, key_finder
from sync.clinic.store.database import now
from sync.clinic.store.tables import Kiosk, Poison
from sync.wire.statement import StatementError
from sync.wire.status import CLOCK_AHEAD, Status

FROM_THE_FUTURE: Final = "heartbeat_from_the_future"
OF_ANOTHER_EPOCH: Final = "heartbeat_of_another_epoch"
OUT_OF_ORDER = "heartbeat_out_of_order"
# A kiosk says one a minute. What waited with a worker that was away is older than that when it is noted, or
# comes when newer ones have just been. Of a kiosk whose clock is further off nobody can tell.
LIVE, SILENT = timedelta(minutes=2), timedelta(minutes=3)

HeartbeatOutcome = Literal["heartbeat", "quarantined", "withdrawn", "dropped"]


def check_heartbeat(
    kiosk: UUID, data: bytes, find_key: Callable[[UUID, bytes], Ed25519PublicKey | None]
) -> Status | None:
    """The heartbeat of `kiosk` in `data`; anything else on that topic is a hint at best, and None."""
    try:
        status = Status.verify(data, lambda kid: find_key(kiosk, kid))
    except StatementError:
        return None
    return status if status.kiosk == kiosk else None


def lock_kiosks(session: Session, kiosks: Sequence[UUID]) -> None:
    """Wait here for whoever notes heartbeats of these kiosks, in an order in which nobody waits in a ring."""
    if not kiosks:
        return
    wanted = select(Kiosk.id).where(Kiosk.id.in_(set(kiosks))).order_by(Kiosk.id)
    session.execute(wanted.with_for_update(key_share=True)).all()


def take_heartbeat(
    session: Session, kiosk: UUID, data: bytes, worker: str, received_at: datetime | None = None
) -> HeartbeatOutcome:
    """Check and note a heartbeat. `received_at` is when it came, if that is not now."""
    status = check_heartbeat(kiosk, data, key_finder(session, STATUS))
    return "dropped" if status is None else note_heartbeat(session, status, data, worker, received_at)


def note_heartbeat(
    session: Session, status: Status, data: bytes, worker: str, received_at: datetime | None = None
) -> HeartbeatOutcome:
    """Note the heartbeat `status`, which has been checked; `data` is what it came in.

    Heartbeats are in the order of their counter. One that does not come after the last, such as the same one
    said again by somebody else, shows nothing of how the kiosk is now. Nor does one that no kiosk can have
    counted so: it is kept for a person, with an alarm.
    """
    kiosk = status.kiosk
    # Shared with those who store envelopes, which only refer to the kiosk: they need not wait for each other.
    known = session.get(Kiosk, kiosk, with_for_update={"key_share": True})
    if known is None:
        return "dropped"
    moment = now()
    if status.counter is not None and known.epoch not in (None, status.epoch):
        if not status.online and known.epoch is not None and status.epoch < known.epoch:
            # The last word of the kiosk as it was before it was enrolled anew.
            return "dropped"
        return _refuse_heartbeat(session, kiosk, data, OF_ANOTHER_EPOCH, worker)
    if _of_the_future(status.order, moment):
        return _refuse_heartbeat(session, kiosk, data, FROM_THE_FUTURE, worker)
    last = (known.heartbeat_epoch, known.heartbeat_counter)
    # The last one can be of the future only if this computer's clock was, or an earlier version took it.
    if status.order <= last and not _of_the_future(last, moment):
        if status.order < last and _is_live(status, moment) and _is_silent(known, moment):
            alarm(session, worker, kiosk, OUT_OF_ORDER)
        return "heartbeat"
    known.heartbeat_epoch, known.heartbeat_counter = status.order
    if status.counter is not None:
        known.epoch = status.epoch
    if received_at is None:
        known.last_seen_at = moment
    elif known.last_seen_at is None or known.last_seen_at < received_at:
        known.last_seen_at = min(received_at, moment)
    known.heartbeat = status.model_dump(mode="json")
    return "heartbeat"


def _is_live(status: Status, moment: datetime) -> bool:
    """Whether the kiosk says it now: no last word, nothing that waited or was said again."""
    return status.online and abs(status.at - moment) <= LIVE


def _is_silent(known: Kiosk, moment: datetime) -> bool:
    """Whether nothing newer has been heard for so long that a kiosk that speaks now must count otherwise."""
    return known.last_seen_at is not None and known.last_seen_at <= moment - SILENT


def _of_the_future(order: tuple[int, int], moment: datetime) -> bool:
    end = (moment + CLOCK_AHEAD).timestamp()
    epoch, counter = order
    return epoch > end or counter > end * 1000


def _refuse_heartbeat(
    session: Session, kiosk: UUID, data: bytes, reason: SetAside, worker: str
) -> HeartbeatOutcome:
    """Tell of a heartbeat that cannot be its kiosk's; one of each kind is kept for a person to look at."""
    alarm(session, worker, kiosk, reason)
    of_kind = select(Poison.id).where(Poison.kiosk == kiosk, Poison.reason == reason)
    if session.scalars(of_kind.limit(1)).first() is not None:
        return "dropped"
    return take_poison(session, kiosk, STATUS, data, reason, worker)
