"""The opening keys that the clinic has had: which of them the opener holds, misses, or has given up."""

from __future__ import annotations

from collections.abc import Collection

import structlog
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import AuditEvent, HeldKey

MISSING = "opening-key-missing"

log = structlog.get_logger()


def hold(session: Session, kids: Collection[bytes]) -> None:
    """Say that the opener holds these keys, and no other.

    One that it held before is missing now: what is here and sealed to it waits, and what comes sealed to it
    is held back, so that its kiosk keeps it. It may have been lost by mistake: nobody is asked to seal anew.
    """
    moment = now()
    for row in session.scalars(select(HeldKey)):
        if row.kid in kids:
            row.held, row.since = True, row.since if row.held else moment
        elif row.held:
            session.delete(row)
            note(session, "opener", MISSING, row.kid.hex())
    session.flush()
    for kid in kids:
        insert_once(session, HeldKey(kid=kid, held=True, since=moment))
    for name in missing(session):
        log.error("opening_key_missing", key=name)


def missing(session: Session) -> list[str]:
    """The keys that were held once, and are neither held nor retired now."""
    known = {kid.hex() for kid in session.scalars(select(HeldKey.kid))}
    noted = session.scalars(select(AuditEvent.subject).where(AuditEvent.event == MISSING).distinct())
    return sorted(name for name in noted if name is not None and name not in known)


def missing_among(session: Session, kids: Collection[bytes]) -> set[bytes]:
    """Those of these keys, neither held nor retired, that were held once."""
    if not kids:
        return set()
    noted = select(AuditEvent.subject).where(
        AuditEvent.event == MISSING, AuditEvent.subject.in_([kid.hex() for kid in kids])
    )
    return {bytes.fromhex(name) for name in session.scalars(noted.distinct()) if name is not None}


def held_elsewhere(kids: Collection[bytes]) -> Select[bytes]:
    """The keys that some opener holds, but for these."""
    return select(HeldKey.kid).where(HeldKey.held, HeldKey.kid.not_in(kids))


def retire(database: Database, name: str, actor: str) -> None:
    """Give up a missing key: kiosks seal again what they still have sealed to it. Raises ClinicUsageError."""
    with database.writing() as session:
        if name not in missing(session):
            raise ClinicUsageError(
                f"No opening key {name!r:.80} is missing: 'dermakiosk clinic status' names those that are. "
                "One that is held is missing once 'clinic open' was started without it in opener/opening.key."
            )
        session.add(HeldKey(kid=bytes.fromhex(name), held=False, since=now()))
        note(session, actor, "opening-key-retired", name)
