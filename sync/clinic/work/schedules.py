"""Schedules: what is to be done at times of the clinic's day, once a day at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cronsim import CronSim
from sqlalchemy.orm import Session

from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import ScheduleRun
from sync.clinic.work import jobs

# Makes a job of a kind and a key, as `jobs.add` does.
Add = Callable[[Session, str, str], int | None]


@dataclass(frozen=True)
class Schedule:
    """When (a cron expression, in the clinic's zone) a job of which kind is made."""

    name: str
    cron: str
    kind: str


def fire(session: Session, schedules: Iterable[Schedule], local: datetime, add: Add = jobs.add) -> list[str]:
    """Make the jobs of these schedules for the day of `local`; the names of those for which nobody had."""
    return [each.name for each in schedules if _first(session, each, local, add)]


def is_due(schedule: Schedule, local: datetime) -> bool:
    """Whether its time has come on the day of `local`, the moment on the clinic's clock.

    A day on which nobody looked is over: its job is not made late.
    """
    begin = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # Where the clocks skip a time cronsim takes the next one, and where it comes twice the first.
    due: datetime = next(CronSim(schedule.cron, begin - timedelta(minutes=1)))
    return due.date() == local.date() and due.timestamp() <= local.timestamp()


def _first(session: Session, schedule: Schedule, local: datetime, add: Add) -> bool:
    day = local.date()
    if not insert_once(session, ScheduleRun(schedule=schedule.name, day=day, at=local)):
        return False
    return add(session, schedule.kind, f"{schedule.name} {day.isoformat()}") is not None
