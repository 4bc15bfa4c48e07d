"""The opening keys that the clinic has had: which of them openers hold, nobody holds, or staff gave up.

Who sends what is sealed to one that was given up is asked to seal it again by `sync.clinic.receiving.intake`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.receiving.receipts import let_go
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import HELD, MISSING, QUARANTINED, RETIRED, Envelope, HeldKey

# An opener says so often which keys it holds, for as long as it can write.
SAY_S = 60.0
# After so many words of its own without one about another's key it calls that one missing. In five minutes an
# opener that was started anew is back, and one that waits for the same database has tried again many times;
# what kiosks send meanwhile is taken in, which they no longer keep.
UNHEARD = 5

# Sealed to a key that no opener says it holds: kept until one does.
NO_KEY: Final = "no_opening_key"

log = structlog.get_logger()


class Heard(NamedTuple):
    """What one opener knows, after a word of its own, of the words of others."""

    # Of each key that only others hold: when it was last said to be held, and how many of our own words ago.
    of_others: Mapping[bytes, tuple[datetime, int]]
    # One of our own was missing, or given up, until now.
    back: bool


def hold(session: Session, kids: Collection[bytes]) -> Heard:
    """An opener begins, and says that it holds these keys, also those that were missing or given up."""
    moment = now()
    for kid in sorted(kids):
        insert_once(session, HeldKey(kid=kid, state=HELD, since=moment, seen=moment))
    heard = _say(session, kids, (HELD, MISSING, RETIRED), {})
    for name in missing(session):
        log.error("opening_key_missing", key=name)
    return heard._replace(back=True)


def say(session: Session, kids: Collection[bytes], before: Heard) -> Heard:
    """An opener says once more that it holds these keys, and calls missing what nobody says anything of.

    Such a key may have been lost by mistake: what is here and sealed to it waits, and nobody is asked to seal
    anew. No clock is compared with another's, and while the database is away nobody hears anything, nor
    misses it.
    """
    return _say(session, kids, (HELD, MISSING), before.of_others)


def _say(
    session: Session,
    kids: Collection[bytes],
    states: Collection[str],
    before: Mapping[bytes, tuple[datetime, int]],
) -> Heard:
    """Say that those of these keys that are in one of these states are held."""
    moment, back, of_others = now(), False, dict[bytes, tuple[datetime, int]]()
    # In one order for all openers, so that two of them do not wait for each other in a ring.
    for row in session.scalars(select(HeldKey).order_by(HeldKey.kid).with_for_update()).all():
        if row.kid in kids:
            if row.state in states:
                back |= row.state != HELD
                row.since = row.since if row.state == HELD else moment
                row.state, row.seen = HELD, moment
        elif row.state == HELD:
            seen, words = before.get(row.kid, (None, 0))
            of_others[row.kid] = row.seen, words + 1 if row.seen == seen else 0
            if of_others[row.kid][1] >= UNHEARD:
                row.state, row.since = MISSING, moment
                note(session, "opener", "opening_key_missing", row.kid.hex())
                log.error("opening_key_missing", key=row.kid.hex())
    session.flush()
    return Heard(of_others, back)


def missing(session: Session) -> list[str]:
    """The keys that some opener held once, and none does now, though staff have not given them up."""
    found = session.scalars(select(HeldKey.kid).where(HeldKey.state == MISSING))
    return sorted(kid.hex() for kid in found)


class Unread(NamedTuple):
    """How many envelopes wait for a key that staff gave up: that a kiosk was asked for again, and the others.

    Those others were "stored" before the key was lost, so their kiosks let go of them: here is the only copy.
    """

    asked_again: int
    only_here: int


def sealed_to_retired(session: Session) -> Unread:
    """What waits for a key that staff gave up.

    Nobody here knows which of what was asked for came again: that is told inside, of one result at most.
    """
    retired = select(HeldKey.kid).where(HeldKey.state == RETIRED)
    waits = (Envelope.state == QUARANTINED) & (Envelope.reason == NO_KEY)
    counts = select(func.count(), func.count().filter(let_go())).where(waits, Envelope.recipient.in_(retired))
    total, only_here = session.execute(counts).one()
    return Unread(total - only_here, only_here)


def held_elsewhere(kids: Collection[bytes]) -> Select[bytes]:
    """The keys that some opener holds, but for these."""
    return select(HeldKey.kid).where(HeldKey.state == HELD, HeldKey.kid.not_in(kids))


def retire(database: Database, name: str, actor: str) -> None:
    """Give up a missing key: kiosks seal again what they still have sealed to it. Raises ClinicUsageError."""
    with database.writing() as session:
        given_up = update(HeldKey).where(HeldKey.kid == _kid(name), HeldKey.state == MISSING)
        retired = given_up.values(state=RETIRED, since=now()).returning(HeldKey.kid)
        if session.execute(retired).first() is None:
            raise ClinicUsageError(
                f"No opening key {name!r:.80} is missing: 'dermakiosk clinic status' names those that are. "
                "One that is held is missing once 'clinic open' has run without it in opener/opening.key for "
                f"{SAY_S * UNHEARD / 60:g} minutes, and no other 'clinic open' with it."
            )
        note(session, actor, "opening_key_retired", name)


def _kid(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:
        return b""
