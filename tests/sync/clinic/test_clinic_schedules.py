"""Work that falls due by the clock: once a day though the clocks change, and house is kept once a night."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update

from sync.clinic.housekeeping import HANDLERS, SCHEDULES, keep_house
from sync.clinic.people.throttle import REMEMBERED
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import Account, Job, ScheduleRun, SignInTries, WebSession
from sync.clinic.work import jobs, schedules
from sync.clinic.work import worker as worker_module
from sync.clinic.work.jobs import Leased
from sync.clinic.work.machines import MachinesWorker
from sync.clinic.work.schedules import Schedule
from sync.clinic.work.worker import Worker
from tests.support.dying_worker import KIND
from tests.support.effort import statements
from tests.support.jobs import added, rows, states

NEW_YORK = ZoneInfo("America/New_York")


def fired(
    database: Database, schedule: Schedule, zone: ZoneInfo, begin: datetime, end: datetime
) -> list[datetime]:
    """When the jobs of a schedule are made, by two workers that look each ten minutes."""
    made, moment = [], begin
    while moment < end:
        local = moment.astimezone(zone)
        if schedules.is_due(schedule, local):
            for _ in range(2):
                with database.writing() as session:
                    made += [moment] * len(schedules.fire(session, [schedule], local))
        moment += timedelta(minutes=10)
    return made


@pytest.mark.parametrize(
    ("day", "cron", "at"),
    [
        # 1 November 2026, 01:30 comes twice: at 05:30 and at 06:30 UTC.
        (datetime(2026, 11, 1), "30 1 * * *", ["05:30"]),
        # 8 March 2026, 02:30 does not come: 03:00 in New York is 07:00 UTC.
        (datetime(2026, 3, 8), "30 2 * * *", ["07:00"]),
        (datetime(2026, 3, 8), "30 1 * * *", ["06:30"]),
        (datetime(2026, 6, 1), "30 1 * * *", ["05:30"]),
        (datetime(2026, 6, 1), "30 1 * * 2", []),
    ],
)
def test_a_schedule_fires_once_a_day_though_the_clocks_change(
    sqlite: Database, day: datetime, cron: str, at: list[str]
) -> None:
    begin = day.replace(tzinfo=NEW_YORK).astimezone(timezone.utc)
    end = (day + timedelta(days=1)).replace(tzinfo=NEW_YORK).astimezone(timezone.utc)
    made = fired(sqlite, Schedule("nightly", cron, KIND), NEW_YORK, begin, end)
    assert [f"{moment:%H:%M}" for moment in made] == at
    assert list(rows(sqlite)) == [f"nightly {day:%Y-%m-%d}"] * len(at)


def test_workers_that_see_a_schedule_at_once_make_one_job(database: Database) -> None:
    schedule, local = Schedule("nightly", "0 0 * * *", KIND), now()
    made: list[str] = []

    def look() -> None:
        with database.writing() as session:
            made.extend(schedules.fire(session, [schedule], local))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == ["nightly"]
    assert states(database) == {"waiting": 1}


def test_days_on_which_nobody_looked_are_not_made_up_for(sqlite: Database) -> None:
    schedule = Schedule("nightly", "30 23 * * *", KIND)
    made = fired(
        sqlite,
        schedule,
        NEW_YORK,
        datetime(2026, 6, 9, 12, tzinfo=timezone.utc),
        datetime(2026, 6, 9, 13, tzinfo=timezone.utc),
    )
    assert made == []
    assert rows(sqlite) == {}


def test_whichever_machine_is_free_is_told_of_a_schedules_job_as_it_is_made(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to sweep for it, and of two that look at the clock one tells."""
    monkeypatch.setattr(worker_module, "now", lambda: datetime(2026, 6, 2, 4, 0, tzinfo=timezone.utc))
    for _ in range(2):
        machines = MachinesWorker(postgresql, HANDLERS, SCHEDULES, ZoneInfo("UTC"))
        machines.make()
        machines._worker.look_at_the_clock()
    assert machines.sweep() == 0
    assert states(postgresql) == {"waiting": 1}


def test_a_worker_keeps_house_once_a_night(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    night = datetime(2026, 6, 2, 4, 0, tzinfo=timezone.utc)
    ended = night - timedelta(days=60)
    with database.writing() as session:
        session.add(Account(name="ann", password_hash="x", created_at=ended))
        session.flush()
        session.add(WebSession(token_hash=b"t" * 32, account="ann", started_at=ended, seen_at=ended))
        session.add(SignInTries(key_hash=b"k" * 32, tries=1, at=now() - 2 * REMEMBERED, until=ended))
    monkeypatch.setattr(worker_module, "now", lambda: night)
    for _ in range(2):
        worker = Worker(database, HANDLERS, SCHEDULES, ZoneInfo("UTC"))
        worker.look_at_the_clock()
        worker.look_at_the_clock()
        worker.do_some()
    assert rows(database) == {"housekeeping 2026-06-02": ("done", None)}
    with database.reading() as session:
        assert session.scalars(select(ScheduleRun.schedule)).all() == ["housekeeping"]
        assert session.scalars(select(WebSession)).all() == []
        assert session.scalars(select(SignInTries)).all() == []


def test_what_was_done_long_ago_is_forgotten_and_what_failed_is_not(database: Database) -> None:
    added(database, "old", "failed", "new")
    long_ago = now() - 2 * jobs.REMEMBERED
    with database.writing() as session:
        for key, state, ended_at in (
            ("old", "done", long_ago),
            ("failed", "failed", long_ago),
            ("new", "done", now()),
        ):
            session.execute(
                update(Job).where(Job.key == key).values(state=state, ended_at=ended_at, due_at=None)
            )
    (job,) = [Leased(0, "housekeeping", "k", {}, 1, None)]  # type: ignore[arg-type]
    keep_house(database, job)
    assert set(rows(database)) == {"failed", "new"}


def test_a_night_does_nothing_that_takes_longer_than_its_lease_where_the_database_is_large(
    database: Database,
) -> None:
    added_at_night = Leased(0, "housekeeping", "k", {}, 1, uuid4())
    with statements(database) as said:
        keep_house(database, added_at_night)
    assert said and not [each for each, _ in said if each.startswith(("VACUUM", "REINDEX", "CLUSTER"))]
