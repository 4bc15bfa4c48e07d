"""House-keeping: what the clinic's database is rid of each night, and what is looked at once more."""

from __future__ import annotations

from sync.clinic.people import accounts, throttle
from sync.clinic.receiving import erasing
from sync.clinic.store.database import Database, moment_at
from sync.clinic.work import jobs
from sync.clinic.work.jobs import Leased
from sync.clinic.work.schedules import Schedule
from sync.clinic.work.worker import Handler

KIND = "housekeeping"
SCHEDULES = (Schedule("housekeeping", "30 3 * * *", KIND),)


def keep_house(database: Database, _: Leased) -> None:
    """Twice is as good as once. A vacuum is the opener's: it may take longer than any lease."""
    with database.writing(gives_way=True) as session:
        erasing.catch_up(session)
        accounts.forget_ended(session)
        jobs.forget_old(session)
        throttle.forget_old(session, moment_at(session))
    database.scrub_at_once()


HANDLERS: dict[str, Handler] = {KIND: keep_house}
