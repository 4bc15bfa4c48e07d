"""The scrubber: after erasures, has what was erased gone from the database's files too, now and then."""

from __future__ import annotations

import math
import threading
import time

import structlog

from sync.clinic.store.database import LONGEST_SCRUB_S, Database

# No more often, and no more than one of so many parts of the time: on PostgreSQL it takes longer than opening
# an envelope, and where it fails for taking too long, it does so each time.
SCRUB_S, SCRUB_PART = 10.0, 10

log = structlog.get_logger()


class Scrubber:
    """Scrubs a database for the one loop that erases.

    A large PostgreSQL takes long, and lets everybody read and write: there the loop goes on meanwhile. SQLite
    waits for nobody and is done at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._aside = database.engine.dialect.name == "postgresql"
        self._due = threading.Event()
        # A process may have ended between an erasure and this: nobody remembers it.
        self._due.set()
        self._from = -math.inf
        self._working: threading.Thread | None = None

    def note_erased(self) -> None:
        """Something is gone that the database's files may still hold."""
        self._due.set()

    def scrub_in_time(self) -> None:
        """Scrub, or begin to, if there is need and it is long enough ago."""
        if time.monotonic() >= self._from and self._due.is_set() and not self._at_work():
            self._begin()

    def scrub(self) -> None:
        """Scrub now, if there is need; on return it is done, or to be done again."""
        if self._working is not None:
            self._working.join(LONGEST_SCRUB_S)
        if self._due.is_set():
            self._scrub()

    def finish(self, seconds: float) -> None:
        """Before a stop: scrub as far as so many seconds suffice.

        A vacuum that takes longer goes on in PostgreSQL, and whoever starts next scrubs once more.
        """
        if self._due.is_set() and not self._at_work():
            self._begin()
        if self._working is not None:
            self._working.join(seconds)

    def _at_work(self) -> bool:
        return self._working is not None and self._working.is_alive()

    def _begin(self) -> None:
        if not self._aside:
            self._scrub()
            return
        working = threading.Thread(target=self._scrub_aside, name="scrub", daemon=True)
        working.start()
        self._working = working

    def _scrub_aside(self) -> None:
        try:
            self._scrub()
        except Exception as error:
            # Nobody waits for it, and it is done again.
            log.error("not_scrubbed", exc_info=error)

    def _scrub(self) -> None:
        began, done = time.monotonic(), False
        # Before: what is erased meanwhile is to be scrubbed too.
        self._due.clear()
        try:
            done = self._database.scrub()
        finally:
            if not done:
                self._due.set()
            took = time.monotonic() - began
            self._from = time.monotonic() + max(SCRUB_S, SCRUB_PART * took)
