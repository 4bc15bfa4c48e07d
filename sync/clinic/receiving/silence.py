"""Silence: what has not come, or was not opened, for longer than that takes where everything runs."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sync.clinic.store.database import now
from sync.clinic.store.tables import STORED, Envelope, Kiosk

# A kiosk says once a minute that it is there, and dials again within one; the opener looks at once, and what
# hangs is started again sooner.
LONGEST = timedelta(minutes=5)
# So much may the clock of the computer that hears a kiosk be ahead of this one's.
AHEAD = timedelta(minutes=1)

_ASK = "ask whoever looks after the clinic's computers to look at"


def silence(session: Session) -> list[str]:
    """A sentence for each silence that needs a person; none where everything runs."""
    moment = now()
    return [*_of_the_kiosks(session, moment), *_of_the_opener(session, moment)]


def _of_the_kiosks(session: Session, moment: datetime) -> list[str]:
    heard = func.coalesce(Kiosk.last_seen_at, Kiosk.registered_at)
    if session.scalar(select(Kiosk.id).limit(1)) is None:
        return []
    # What was heard while this computer's clock was ahead says nothing of since when nobody is. That of the
    # computer that hears may be a little ahead of this one's.
    last = session.scalar(select(func.max(heard)).where(heard <= moment + AHEAD))
    if last is not None and moment - last <= LONGEST:
        return []
    since = (
        "since this computer's clock was ahead" if last is None else f"for {_as_people_say(moment - last)}"
    )
    return [
        f"No kiosk has been heard from {since}, so new scans wait where they were taken: see that a kiosk is "
        f"on and has its network; if so, {_ASK} the broker and 'clinic ingest', and to start both again."
    ]


def _of_the_opener(session: Session, moment: datetime) -> list[str]:
    oldest = session.scalar(select(func.min(Envelope.received_at)).where(Envelope.state == STORED))
    if oldest is None or moment - oldest <= LONGEST:
        return []
    return [
        f"What came {_as_people_say(moment - oldest)} ago has not been opened, so scans are missing here: if "
        f"it stays so, {_ASK} 'clinic open', and to start it again."
    ]


def _as_people_say(time: timedelta) -> str:
    """Some minutes or more: "12 minutes", "3 hours", "2 days"."""
    one, name = next((one, name) for one, name in _UNITS if time >= 2 * one or name == "minutes")
    return f"{time // one} {name}"


_UNITS = ((timedelta(days=1), "days"), (timedelta(hours=1), "hours"), (timedelta(minutes=1), "minutes"))
