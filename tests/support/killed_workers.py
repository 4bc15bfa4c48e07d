"""Jobs that are each done once, though their workers are killed at random."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

from sqlalchemy import func, select

from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import Job
from sync.clinic.work import jobs
from sync.clinic.work.jobs import JobState
from sync.clinic.work.machines import MachinesWorker
from tests.support.dying_worker import KIND, Gateway, is_of
from tests.support.waiting import wait_until

DEATHS = 8  # or so, at random


def do_of_many_machines(
    database: Database, gateway: Path, jobs_in_all: int, workers_at_once: int, seconds: float = 200.0
) -> int:
    """Have the workers of several machines do so many jobs, each once; how often one of them died."""
    calls = Gateway(gateway)
    machines = MachinesWorker(database, {KIND: lambda *_: None})
    machines.make()
    with database.writing() as session:
        for number in range(jobs_in_all):
            # Of every other one nobody is told: it is for the sweep to find them.
            add = jobs.add if number % 2 else machines.add
            add(session, KIND, f"key {number}", {"text": f"for key {number}"})
    deaths = until_all_are_done(database, gateway, jobs_in_all, workers_at_once, "many", seconds=seconds)
    assert_each_was_sent_once(calls, jobs_in_all, deaths)
    return deaths


def until_all_are_done(
    database: Database,
    gateway: Path,
    jobs_in_all: int,
    workers_at_once: int,
    *many: str,
    seconds: float = 200.0,
) -> int:
    """Have so many workers, each started anew when it has died, do the jobs; how often one died."""
    url = database.engine.url.render_as_string(hide_password=False)
    where = [str(database.tombstones.path.parent), url if "postgresql" in url else ""]
    command = [sys.executable, "-m", "tests.support.dying_worker", *where, str(gateway)]
    seeds, workers, dead = count(1), list[subprocess.Popen[bytes]](), list[int]()

    def all_done() -> bool:
        for worker in [each for each in workers if each.poll() is not None]:
            assert worker.returncode == -signal.SIGKILL
            dead.append(worker.pid)
            end_leases_of(database, worker.pid)
            workers.remove(worker)
        while len(workers) < workers_at_once:
            worker = [*command, str(next(seeds)), str(DEATHS / jobs_in_all), *many]
            workers.append(subprocess.Popen(worker, stdout=subprocess.DEVNULL))  # its log
        return done(database) == jobs_in_all

    try:
        wait_until(all_done, "every job is done", seconds)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(60)
    return len(dead)


def end_leases_of(database: Database, pid: int) -> None:
    """As if the time of all that a dead worker had leased were over."""
    with database.writing() as session:
        for job in session.scalars(select(Job).where(Job.state == JobState.DOING.value)):
            if job.lease is not None and is_of(job.lease, pid):
                job.due_at = now()


def assert_each_was_sent_once(gateway: Gateway, jobs_in_all: int, deaths: int) -> None:
    calls = gateway.calls()
    assert deaths > 0
    assert dict(calls) == {f"key {number}": f"for key {number}" for number in range(jobs_in_all)}
    # Each death costs one call at most, which the gateway knows by its key.
    assert len(calls) - jobs_in_all <= deaths


def done(database: Database) -> int:
    """How many jobs are done."""
    with database.reading() as session:
        finished = select(func.count()).select_from(Job).where(Job.state == JobState.DONE.value)
        return session.scalar(finished) or 0
