"""Jobs: the rows of what has to be done, which workers lease one from the other.

A job that a killed worker had is taken over when its lease is over. So what it does outside of the database
may be done twice: then with the same key, which travels with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from sync.clinic.store.database import Database, moment_at
from sync.clinic.store.rows import core, insert_new
from sync.clinic.store.tables import Job

# Longer than anything that a job does: it has deadlines of its own, and none vacuums a large database. Nobody
# renews a lease.
LEASE = timedelta(minutes=5)
MOST_TRIES = 8
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=30), timedelta(hours=1)
# A job that each worker died of, as far as anybody can tell.
NOBODY_SURVIVED = "no_worker_survived_it"
# How long it is known that something was done, so that it is not asked for again.
REMEMBERED = timedelta(days=90)

log = structlog.get_logger()


class JobState(str, Enum):
    """What has become of a job."""

    WAITING = "waiting"
    """Nobody has it; from `due_at` on a worker takes it."""
    DOING = "doing"
    """A worker has leased it; from `due_at` on that one is taken for gone."""
    DONE = "done"
    """Remembered for as long as REMEMBERED, so that it is not asked for again."""
    FAILED = "failed"
    """Given up after so many tries: it needs a person."""


@dataclass(frozen=True)
class Leased:
    """One job that this worker has until its lease is over."""

    id: int
    kind: str
    key: str
    detail: Mapping[str, Any]
    tries: int
    lease: UUID


def add(
    session: Session,
    kind: str,
    key: str,
    detail: Mapping[str, Any] | None = None,
    not_before: datetime | None = None,
) -> int | None:
    """Have it done, once this transaction is committed; its row, or None where the key is known already."""
    moment = moment_at(session)
    row = {
        "kind": kind,
        "key": key,
        "detail": dict(detail or {}),
        "state": JobState.WAITING.value,
        "due_at": not_before or moment,
        "made_at": moment,
    }
    return next((int(found[0]) for found in insert_new(session, Job, [row])), None)


def any_due(database: Database, kinds: Collection[str]) -> bool:
    """Whether there is one of these kinds to take; to look costs nobody a turn to write."""
    with database.reading() as session:
        due = select(Job.id).where(Job.due_at <= moment_at(session), Job.kind.in_(kinds)).limit(1)
        return session.scalars(due).first() is not None


def lease(
    database: Database,
    kinds: Collection[str],
    most: int = 1,
    *,
    last: timedelta = LEASE,
    only: int | None = None,
) -> list[Leased]:
    """Take the jobs of these kinds that have been due the longest, up to so many, or the one of a row.

    Each is a try for all of them, so one that was tried before is taken alone: whatever its worker died of,
    the others have no part in it a second time.
    """
    token = uuid4()
    due = select(Job.id, Job.kind, Job.key, Job.detail, Job.tries).where(Job.kind.in_(kinds))
    if only is not None:
        due = due.where(Job.id == only)
    due = due.order_by(Job.due_at, Job.id).limit(most).with_for_update(skip_locked=True)
    with database.writing(gives_way=True) as session:
        moment = moment_at(session)
        found = session.execute(due.where(Job.due_at <= moment)).all()
        found = found[:1] if found and found[0].tries else [row for row in found if not row.tries]
        lost = [row.id for row in found if row.tries >= MOST_TRIES]
        for row in lost:
            log.error("job_given_up", job=row, reason=NOBODY_SURVIVED)
        if lost:
            given_up = {"state": JobState.FAILED.value, "reason": NOBODY_SURVIVED, "ended_at": moment}
            session.execute(
                update(core(Job)).where(Job.id.in_(lost)).values(due_at=None, lease=None, **given_up)
            )
        taken = [row for row in found if row.tries < MOST_TRIES]
        session.execute(
            update(core(Job))
            .where(Job.id.in_([row.id for row in taken]))
            .values(state=JobState.DOING.value, lease=token, due_at=moment + last, tries=Job.tries + 1)
        )
    return [Leased(row.id, row.kind, row.key, row.detail, row.tries + 1, token) for row in taken]


def finish(session: Session, job: Leased) -> bool:
    """It is done; False where the lease was over and another worker has taken it."""
    moment = moment_at(session)
    return _settle(session, job, state=JobState.DONE.value, due_at=None, reason=None, ended_at=moment)


def give_back(session: Session, job: Leased, reason: str) -> bool:
    """It did not work, for `reason`: later again, or no more; False where another worker has taken it."""
    moment = moment_at(session)
    if job.tries >= MOST_TRIES:
        log.error("job_given_up", job=job.id, reason=reason)
        over = {"state": JobState.FAILED.value, "due_at": None, "ended_at": moment}
        return _settle(session, job, reason=reason, **over)
    after = min(FIRST_RETRY * 2 ** (job.tries - 1), LONGEST_RETRY)
    return _settle(session, job, state=JobState.WAITING.value, due_at=moment + after, reason=reason)


def hand_back(session: Session, unbegun: Collection[Leased]) -> None:
    """Nobody has begun these: they are as they were, for another worker."""
    moment = moment_at(session)
    for job in unbegun:
        _settle(session, job, state=JobState.WAITING.value, due_at=moment, tries=job.tries - 1)


def forget_old(session: Session) -> None:
    """Forget what was done long ago."""
    old = (Job.state == JobState.DONE.value) & (Job.ended_at < moment_at(session) - REMEMBERED)
    session.execute(delete(core(Job)).where(old))


def _settle(session: Session, job: Leased, **values: Any) -> bool:
    held = update(core(Job)).where(Job.id == job.id, Job.lease == job.lease).values(lease=None, **values)
    result = session.execute(held)
    return isinstance(result, CursorResult) and result.rowcount == 1
