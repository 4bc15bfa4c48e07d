"""Many machines: procrastinate tells whichever worker is free of a job's row; on PostgreSQL only.

The row stays the job, with its lease, tries and key. A message that is lost costs the time until somebody
sweeps, and one too many finds the row taken.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import DeleteJobCondition, Status
from procrastinate.schema import SchemaManager
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session

from sync.clinic.store.database import Database, moment_at
from sync.clinic.store.engine import arguments_of, wait_to_make_tables
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.failure import failed_itself, what_failed, why_away
from sync.clinic.store.notify import Notifier
from sync.clinic.store.tables import Job
from sync.clinic.work import jobs
from sync.clinic.work.jobs import LEASE
from sync.clinic.work.schedules import Schedule
from sync.clinic.work.worker import Handler, Worker

QUEUE, TASK = "clinic", "job"
SWEEP_S = 10.0
STOP_POLL_S = 0.2
# What a connection that broke waits before it is made anew.
AWAY_S = 5.0
# Longer than a PostgreSQL that is gone without a word is waited for, twice.
LONGEST_SWEEP_S = 180.0
MOST_SWEPT = 1000

log = structlog.get_logger()


class MachinesWorker:
    """A worker among others on any number of machines that share one PostgreSQL."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        schedules: Sequence[Schedule] = (),
        zone: ZoneInfo | None = None,
        *,
        lease: timedelta = LEASE,
        sweep_s: float = SWEEP_S,
    ) -> None:
        if database.engine.dialect.name != "postgresql":
            raise ClinicUsageError(
                "Several machines need a database that they all reach: name a PostgreSQL with --db, or leave "
                "out --many-machines."
            )
        self._database = database
        self._handlers = handlers
        self._lease = lease
        self._sweep_s = sweep_s
        self._worker = Worker(database, handlers, schedules, zone, add=self.add)
        self._notifier = Notifier()
        # Since when the job at hand is done, and the rows are swept; None between two.
        self._doing_since: float | None = None
        self._sweeping_since: float | None = None
        url = database.engine.url
        _, arguments = database.engine.dialect.create_connect_args(url)
        arguments = {**arguments, **arguments_of(url)}
        self._app = App(connector=PsycopgConnector(kwargs=arguments))
        self._app.task(name=TASK, queue=QUEUE)(self._do)
        # One that is at work speaks to its own connections only.
        self._teller = App(connector=SyncPsycopgConnector(kwargs=arguments))

    def make(self) -> None:
        """Make procrastinate's tables, if they are not there."""
        with self._database.writing() as session:
            wait_to_make_tables(session.connection())
            if not inspect(session.connection()).has_table("procrastinate_jobs"):
                schema = SchemaManager.get_schema()
                session.connection().exec_driver_sql(schema.replace("%", "%%"))

    def add(
        self,
        session: Session,
        kind: str,
        key: str,
        detail: Mapping[str, Any] | None = None,
        not_before: datetime | None = None,
    ) -> int | None:
        """As `jobs.add`; on the same connection somebody is told, so that a rollback tells nobody."""
        row = jobs.add(session, kind, key, detail, not_before)
        if row is not None and (not_before is None or not_before <= moment_at(session)):
            self._tell(session, row)
        return row

    def sweep(self) -> int:
        """Tell of the rows that are due and of which nobody is told: those of killed workers among them."""
        told = text(
            "SELECT queueing_lock FROM procrastinate_jobs WHERE queue_name = :queue AND status = 'todo'"
        )
        with self._database.writing(gives_way=True) as session:
            due = select(Job.id).where(Job.due_at <= moment_at(session), Job.kind.in_(self._handlers))
            known = set(session.scalars(told, {"queue": QUEUE}))
            rows = session.scalars(due.order_by(Job.due_at, Job.id).limit(MOST_SWEPT)).all()
            missed = [row for row in rows if str(row) not in known]
            for row in missed:
                self._tell(session, row)
        return len(missed)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        self.make()
        sweeping = threading.Thread(target=self._keep_sweeping, args=(stop,), name="sweep", daemon=True)
        sweeping.start()
        self._notifier.ready()
        while not stop.is_set():
            try:
                asyncio.run(self._work(stop))
            except ConnectorException as error:
                log.error("database_away", kind=type(error.__cause__ or error).__name__, wait_s=AWAY_S)
                self._say_alive()
                stop.wait(AWAY_S)
        self._notifier.stopping()
        sweeping.join(self._sweep_s)
        self._notifier.close()
        log.info("stopped")

    async def _work(self, stop: threading.Event) -> None:
        async with self._app.open_async():
            working = asyncio.ensure_future(
                self._app.run_worker_async(
                    queues=[QUEUE], install_signal_handlers=False, delete_jobs=DeleteJobCondition.ALWAYS
                )
            )
            rescued = 0.0
            while not stop.is_set() and not working.done():
                self._say_alive()
                await asyncio.sleep(STOP_POLL_S)
                if time.monotonic() - rescued >= self._sweep_s:
                    await self._rescue()
                    rescued = time.monotonic()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            if not working.cancelled() and (error := working.exception()) is not None:
                raise error

    def _say_alive(self) -> None:
        """Tell the watchdog that work is done here, unless a job or the sweeping hangs in its thread."""
        lease_s = self._lease.total_seconds()
        if _age(self._doing_since) < lease_s and _age(self._sweeping_since) < LONGEST_SWEEP_S:
            self._notifier.alive()

    async def _rescue(self) -> None:
        """Take away what killed workers had been told of: procrastinate leaves it as being done for ever."""
        for stalled in await self._app.job_manager.get_stalled_jobs(queue=QUEUE):
            await self._app.job_manager.finish_job(stalled, status=Status.FAILED, delete_job=True)

    def _keep_sweeping(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._sweeping_since = time.monotonic()
            try:
                self._worker.look_at_the_clock()
                self.sweep()
            except Exception as error:
                if failed_itself(error):
                    event = what_failed(error)
                    log.error(event, kind=why_away(error), wait_s=self._sweep_s)
                else:
                    log.error("not_foreseen", wait_s=self._sweep_s, exc_info=error)
            self._sweeping_since = None
            stop.wait(self._sweep_s)

    def _tell(self, session: Session, row: int) -> None:
        try:
            with session.begin_nested():
                # Asked for here: the savepoint is made with the first thing that is asked of the session.
                connection = session.connection().connection.driver_connection
                self._teller.configure_task(
                    TASK, queue=QUEUE, queueing_lock=str(row), connection=connection
                ).defer(row=row)
        except AlreadyEnqueued:
            log.debug("told_already", job=row)  # another one sweeps at this moment

    def _do(self, row: int) -> None:
        self._doing_since = time.monotonic()
        try:
            for job in jobs.lease(self._database, self._handlers, last=self._lease, only=row):
                self._worker.do(job)
        finally:
            self._doing_since = None


def _age(since: float | None) -> float:
    return 0.0 if since is None else time.monotonic() - since
