"""The opening keys that the clinic has had: which of them the opener holds, misses, or has given up."""

from __future__ import annotations

from collections.abc import Collection

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.store.database import Database, insert_once, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import AuditEvent, HeldKey

MISSING = "opening-key-missing"

log = structlog.get_logger()


def hold(session: Session, kids: Collection[bytes]) -> None:
    """Say that the opener holds these keys, and no other.

    One that it held before is missing now: what is sealed to it waits, and the kiosk keeps its copy, as for a
    key that nobody has ever held. It may have been lost by mistake, so nobody is asked to seal anew.
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
