"""The clinic's jobs: added, and what became of them."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select

from sync.clinic.store.database import Database
from sync.clinic.store.tables import Job
from sync.clinic.work import jobs
from tests.support.dying_worker import KIND


def added(database: Database, *keys: str, **more: object) -> list[int | None]:
    with database.writing() as session:
        return [jobs.add(session, KIND, key, {"text": f"for {key}"}, **more) for key in keys]  # type: ignore[arg-type]


def rows(database: Database) -> dict[str, tuple[str, str | None]]:
    with database.reading() as session:
        return {row.key: (row.state, row.reason) for row in session.scalars(select(Job))}


def states(database: Database) -> Counter[str]:
    with database.reading() as session:
        return Counter(dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all()))  # type: ignore[arg-type]
