"""Work that must happen once: leased rows, killed workers, many machines."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sync.clinic.store import database as database_module
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import Job
from sync.clinic.summary import as_text, summary
from sync.clinic.work import jobs
from sync.clinic.work import machines as machines_module
from sync.clinic.work.jobs import JobState, Leased
from sync.clinic.work.machines import MachinesWorker
from sync.clinic.work.worker import Worker
from tests.support import unhurried
from tests.support.dying_worker import KIND, Gateway
from tests.support.jobs import added, rows, states
from tests.support.killed_workers import (
    assert_each_was_sent_once,
    do_of_many_machines,
    until_all_are_done,
)
from tests.support.waiting import wait_until

# `make soak` has as many done by several machines: here it would take minutes.
MANY, MANY_TOLD = 2000, 600


def later(database: Database) -> None:
    """Let every lease and every wait be over."""
    with database.writing() as session:
        session.execute(update(Job).where(Job.due_at.is_not(None)).values(due_at=now()))


def test_a_job_is_done_and_its_row_says_so(database: Database) -> None:
    done: list[str] = []
    added(database, "a", "b")
    worker = Worker(database, {KIND: lambda _, job: done.append(f"{job.key}: {job.detail['text']}")})
    assert worker.do_some()
    assert not worker.do_some()
    assert done == ["a: for a", "b: for b"]
    assert rows(database) == {"a": ("done", None), "b": ("done", None)}


def test_a_job_that_is_known_by_its_key_is_not_made_again_even_when_it_is_done(database: Database) -> None:
    (first,) = added(database, "a")
    assert first is not None
    assert added(database, "a") == [None]
    Worker(database, {KIND: lambda *_: None}).do_some()
    assert added(database, "a") == [None]
    assert states(database) == {"done": 1}


def test_a_job_of_a_transaction_that_fails_is_none(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as session:
        jobs.add(session, KIND, "a")
        raise ZeroDivisionError
    assert rows(database) == {}


def test_a_job_waits_for_its_time_and_for_a_worker_that_knows_its_kind(database: Database) -> None:
    added(database, "later", not_before=now() + timedelta(hours=1))
    added(database, "now")
    assert not Worker(database, {"another": lambda *_: None}).do_some()
    assert [job.key for job in jobs.lease(database, [KIND], 10)] == ["now"]


def test_workers_that_lease_at_once_have_no_job_in_common(database: Database) -> None:
    added(database, *(str(number) for number in range(60)))
    taken: list[str] = []

    def work() -> None:
        while leased := jobs.lease(database, [KIND], 7):
            taken.extend(job.key for job in leased)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken, key=int) == [str(number) for number in range(60)]


def test_whose_lease_is_over_another_takes_the_job_and_the_first_has_no_say_in_it(database: Database) -> None:
    added(database, "a")
    (first,) = jobs.lease(database, [KIND])
    assert jobs.lease(database, [KIND]) == []
    later(database)
    (second,) = jobs.lease(database, [KIND])
    assert (second.key, second.tries) == ("a", 2)
    with database.writing() as session:
        assert not jobs.finish(session, first)
        assert not jobs.give_back(session, first, "too_late")
        assert jobs.finish(session, second)
    assert rows(database) == {"a": ("done", None)}


def test_a_job_that_fails_is_tried_again_later_and_at_last_is_a_persons(database: Database) -> None:
    def fail(_: Database, job: Leased) -> None:
        raise ValueError("ref-secret")

    added(database, "bad", "worse")
    worker = Worker(database, {KIND: fail})
    for _ in range(jobs.MOST_TRIES):
        assert worker.do_some()
        while worker.do_some():
            pass  # each is tried alone, and again only after a while
        later(database)
    assert not worker.do_some()
    assert rows(database) == dict.fromkeys(("bad", "worse"), ("failed", "not_foreseen:ValueError"))


def test_a_job_that_no_worker_survives_is_given_up(database: Database) -> None:
    added(database, "deadly")
    for _ in range(jobs.MOST_TRIES):
        assert len(jobs.lease(database, [KIND])) == 1
        later(database)
    assert jobs.lease(database, [KIND]) == []
    assert rows(database) == {"deadly": ("failed", jobs.NOBODY_SURVIVED)}


def test_a_job_that_no_worker_survives_takes_no_other_with_it(database: Database) -> None:
    class Killed(BaseException):
        """Whatever ends a process: no line of it runs any more."""

    def work(_: Database, job: Leased) -> None:
        if job.key == "deadly":
            raise Killed
        done.append(job.key)

    done: list[str] = []
    added(database, "before", "deadly", *(f"after {number}" for number in range(8)))
    for _ in range(jobs.MOST_TRIES):
        with pytest.raises(Killed):
            while True:
                Worker(database, {KIND: work}).do_some()
                later(database)
        later(database)
    for _ in range(10):
        Worker(database, {KIND: work}).do_some()
    assert sorted(done) == sorted({"before", *(f"after {number}" for number in range(8))})
    assert rows(database).pop("deadly") == ("failed", jobs.NOBODY_SURVIVED)
    assert states(database) == {"done": 9, "failed": 1}


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_begun(database: Database) -> None:
    """However often that happens: nobody died of them."""
    added(database, "first", *(f"other {number}" for number in range(5)))
    for _ in range(jobs.MOST_TRIES + 1):
        stop = threading.Event()
        stop.set()
        Worker(database, {KIND: lambda *_: None}).do_some(stop)
    stop = threading.Event()
    Worker(database, {KIND: lambda *_: stop.set()}).do_some(stop)
    with database.reading() as session:
        found = Counter(tuple(row) for row in session.execute(select(Job.state, Job.tries, Job.lease)))
    assert found == {("done", 1, None): 1, ("waiting", 0, None): 5}
    done: list[str] = []
    assert Worker(database, {KIND: lambda _, job: done.append(job.key)}).do_some()
    assert len(done) == 5


def test_a_worker_whose_database_failed_gives_back_what_it_has_not_begun(database: Database) -> None:
    added(database, *(f"number {number}" for number in range(4)))

    def fail(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("disk I/O error"))

    with pytest.raises(OperationalError):
        Worker(database, {KIND: fail}).do_some()
    with database.reading() as session:
        found = Counter(tuple(row) for row in session.execute(select(Job.state, Job.tries, Job.lease)))
    assert found["waiting", 0, None] == 3


def test_a_worker_that_has_nothing_to_give_back_asks_a_database_that_failed_for_nothing(
    database: Database,
) -> None:
    added(database, "alone")
    error = OperationalError("SELECT 1", {}, sqlite3.OperationalError("disk I/O error"))
    asked: list[str] = []

    def fail(*_: object) -> None:
        event.listen(database.engine, "begin", lambda _: asked.append("a transaction"))
        raise error

    with pytest.raises(OperationalError):
        Worker(database, {KIND: fail}).do_some()
    assert asked == []


@pytest.mark.parametrize("ahead", [timedelta(hours=2), -timedelta(hours=2)])
def test_a_machine_whose_clock_is_wrong_neither_takes_a_leased_job_nor_waits_for_one(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    moment = database_module.now
    for module in (database_module, jobs, machines_module):
        monkeypatch.setattr(module, "now", lambda: moment() + ahead, raising=False)
    added(postgresql, "here")
    monkeypatch.undo()
    assert [job.key for job in jobs.lease(postgresql, [KIND], 10)] == ["here"]
    added(postgresql, "there")
    for module in (database_module, jobs, machines_module):
        monkeypatch.setattr(module, "now", lambda: moment() + ahead, raising=False)
    assert jobs.any_due(postgresql, [KIND])
    assert [job.key for job in jobs.lease(postgresql, [KIND], 10)] == ["there"]
    machines = MachinesWorker(postgresql, {KIND: lambda *_: None})
    machines.make()
    assert machines.sweep() == 0


def test_who_looks_after_the_clinic_sees_how_many_jobs_wait_and_how_many_are_given_up(
    database: Database,
) -> None:
    each = [JobState.WAITING, JobState.WAITING, JobState.DOING, JobState.DONE, JobState.FAILED]
    added(database, *(f"key {number}" for number in range(len(each))))
    with database.writing() as session:
        for number, state in enumerate(each):
            session.execute(update(Job).where(Job.key == f"key {number}").values(state=state.value))
    with database.reading() as session:
        counts = summary(session)
    assert counts["jobs"] == {"waiting": 3, "failed": 1}
    assert "jobs              3 waiting, 1 given up" in as_text(counts)


@pytest.mark.parametrize("error", [ConnectionRefusedError, TimeoutError, FileNotFoundError, MemoryError])
def test_what_a_job_cannot_reach_is_no_fault_of_the_database(
    database: Database, error: type[Exception]
) -> None:
    def fail(_: Database, job: Leased) -> None:
        if job.key == "away":
            raise error

    added(database, "away", "other")
    assert Worker(database, {KIND: fail}).do_some()
    reason = f"not_foreseen:{error.__name__}"
    assert rows(database) == {"away": ("waiting", reason), "other": ("done", None)}


def test_two_thousand_jobs_are_each_done_though_workers_are_killed_at_random(
    database: Database, tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path / "gateway.sqlite")
    added(database, *(f"key {number}" for number in range(MANY)))
    deaths = until_all_are_done(database, tmp_path / "gateway.sqlite", MANY, 2)
    assert_each_was_sent_once(gateway, MANY, deaths)


def test_three_workers_of_many_machines_do_each_job_though_they_are_killed_at_random(
    postgresql: Database, tmp_path: Path
) -> None:
    do_of_many_machines(postgresql, tmp_path / "gateway.sqlite", MANY_TOLD, 3)


def messages(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) or 0


def test_a_transaction_that_fails_tells_no_machine(postgresql: Database) -> None:
    machines = MachinesWorker(postgresql, {KIND: lambda *_: None})
    machines.make()
    machines.make()
    with pytest.raises(ZeroDivisionError), postgresql.writing() as session:
        assert machines.add(session, KIND, "a") is not None
        raise ZeroDivisionError
    assert (messages(postgresql), rows(postgresql)) == (0, {})
    with postgresql.writing() as session:
        assert machines.add(session, KIND, "a") is not None
        assert machines.add(session, KIND, "a") is None
    assert messages(postgresql) == 1


def test_a_sweep_tells_of_a_row_that_nobody_knows_of_and_of_none_twice(postgresql: Database) -> None:
    machines = MachinesWorker(postgresql, {KIND: lambda *_: None})
    machines.make()
    added(postgresql, "missed")
    added(postgresql, "later", not_before=now() + timedelta(hours=1))
    assert [machines.sweep(), machines.sweep(), messages(postgresql)] == [1, 0, 1]


def test_machines_that_sweep_at_one_moment_tell_of_each_row_once(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another one told first costs the sweep nothing else that it does."""
    one, other = (MachinesWorker(postgresql, {KIND: lambda *_: None}) for _ in range(2))
    one.make()
    added(postgresql, "a", "b")
    tell, swept = one._tell, list[int]()

    def once_the_other_has_swept(session: Session, row: int) -> None:
        if not swept:
            swept.append(other.sweep())
            with postgresql.writing() as later:
                jobs.add(later, KIND, "later")
        tell(session, row)

    monkeypatch.setattr(one, "_tell", once_the_other_has_swept)
    assert (one.sweep(), swept, messages(postgresql)) == (2, [2], 2)
    assert (one.sweep(), messages(postgresql)) == (1, 3)


def test_many_machines_need_a_database_that_they_share(sqlite: Database) -> None:
    with pytest.raises(ClinicUsageError, match="PostgreSQL"):
        MachinesWorker(sqlite, {})


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from kiosk_app.cli import main; main()", "clinic", "work", *arguments]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--zone", "Europe/Atlantis"), "no time zone that this computer knows"),
        (("--zone", "../etc/passwd"), "no time zone that this computer knows"),
        (("--zone", "Europe"), "no time zone that this computer knows"),
        (("--zone", "Europe/Berlin/Mitte"), "no time zone that this computer knows"),
        (("--zone", "E" * 5000), "no time zone that this computer knows"),
        (("--many-machines",), "name a PostgreSQL with --db"),
    ],
)
def test_a_worker_that_cannot_start_says_what_to_do(
    sqlite: Database, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = subprocess.run(
        command("--state", str(tmp_path / "clinic"), *arguments), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


def test_a_worker_works_until_it_is_told_to_end(sqlite: Database, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with sqlite.writing() as session:
        jobs.add(session, "housekeeping", "now")
    with log.open("wb") as file:
        argv = [*unhurried.CLINIC, "work", "--state", str(tmp_path / "clinic")]
        worker = subprocess.Popen(argv, stdout=file, stderr=file)
    try:
        wait_until(lambda: rows(sqlite)["now"] == ("done", None), "the house is kept")
        worker.terminate()
        assert worker.wait(unhurried.STOP_S) == 0
    finally:
        worker.kill()
        worker.wait(60)
    assert '"stopped"' in log.read_text()
