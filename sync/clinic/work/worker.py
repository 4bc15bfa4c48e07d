"""A worker: one of any number of processes that lease jobs and do them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sync.clinic.store.database import Database, now
from sync.clinic.store.failure import failed_itself, why_away
from sync.clinic.store.notify import Notifier
from sync.clinic.store.patience import Patience
from sync.clinic.work import jobs
from sync.clinic.work.jobs import LEASE, Leased
from sync.clinic.work.schedules import Add, Schedule, fire, is_due

POLL_S = 1.0
# So many are leased at once: what a killed worker had waits for its lease to end.
AT_ONCE = 10

# Does one job. It may be called twice for the same one, with the same key.
Handler = Callable[[Database, Leased], None]

log = structlog.get_logger()


class Worker:
    """Does the jobs of the kinds that it has handlers for."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        schedules: Sequence[Schedule] = (),
        zone: ZoneInfo | None = None,
        *,
        lease: timedelta = LEASE,
        poll_s: float = POLL_S,
        add: Add = jobs.add,
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._schedules = schedules
        self._zone = zone or ZoneInfo("UTC")
        self._lease = lease
        self._poll_s = poll_s
        self._add = add
        self._notifier = Notifier()
        # The day on which each is known to have fired, here or elsewhere.
        self._fired: dict[str, date] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the job at hand is finished before."""
        patience = Patience()
        self._notifier.ready()
        while not stop.is_set():
            self._notifier.alive()
            try:
                self.look_at_the_clock()
                self._notifier.alive()
                if not self.do_some(stop):
                    stop.wait(self._poll_s)
                patience.over()
            except Exception as error:  # noqa: BLE001  it is told below
                patience.tell(error)
                patience.wait(stop, self._notifier.alive)
        self._notifier.stopping()
        self._notifier.close()
        log.info("stopped")

    def look_at_the_clock(self) -> None:
        """Make the jobs whose time of day has come."""
        local = now().astimezone(self._zone)
        due = [each for each in self._schedules if self._fired.get(each.name) != local.date()]
        due = [each for each in due if is_due(each, local)]
        if not due:
            return
        with self._database.writing(gives_way=True) as session:
            fired = fire(session, due, local, self._add)
        self._fired.update({each.name: local.date() for each in due})
        for name in fired:
            log.info("fired", schedule=name)

    def do_some(self, stop: threading.Event | None = None) -> bool:
        """Do some of the jobs that are due; False if there is none."""
        if not jobs.any_due(self._database, self._handlers):
            return False
        half_over = time.monotonic() + self._lease.total_seconds() / 2
        leased = jobs.lease(self._database, self._handlers, AT_ONCE, last=self._lease)
        for number, job in enumerate(leased):
            if (stop is not None and stop.is_set()) or time.monotonic() > half_over:
                self._hand_back(leased[number:])
                break
            self._notifier.alive()
            try:
                # When its lease is over another worker takes it for gone anyway.
                with self._notifier.long_step(self._lease.total_seconds()):
                    self.do(job)
            except Exception:
                self._hand_back_if_possible(leased[number + 1 :])
                raise
        return bool(leased)

    def _hand_back(self, unbegun: Sequence[Leased]) -> None:
        if not unbegun:
            return
        with self._database.writing(gives_way=True) as session:
            jobs.hand_back(session, unbegun)

    def _hand_back_if_possible(self, unbegun: Sequence[Leased]) -> None:
        """After a failure, perhaps of the database: otherwise they wait for their lease to end."""
        try:
            self._hand_back(unbegun)
        except Exception as error:
            if not failed_itself(error):
                raise
            log.warning("not_handed_back", jobs=len(unbegun), kind=why_away(error))

    def do(self, job: Leased) -> None:
        """Do one job, and say so in its row; what it raises becomes the reason why it is tried again."""
        try:
            self._handlers[job.kind](self._database, job)
        except Exception as error:
            if isinstance(error, DBAPIError | PoolTimeout) and failed_itself(error):
                raise
            log.error("job_failed", kind=job.kind, job=job.id, tries=job.tries, exc_info=error)
            with self._database.writing(gives_way=True) as session:
                jobs.give_back(session, job, f"not_foreseen:{type(error).__name__}"[:64])
            return
        with self._database.writing(gives_way=True) as session:
            kept = jobs.finish(session, job)
        if not kept:
            log.warning("lease_was_over", kind=job.kind, job=job.id)
