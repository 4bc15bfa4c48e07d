"""The opener: the one process that reads results, with the clinic's opening key."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import structlog
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sync.clinic.receiving import erasing, opening_keys
from sync.clinic.receiving.erasing_from_files import Scrubber
from sync.clinic.receiving.exports import Exports, ExportsUnusable
from sync.clinic.receiving.opening_alone import Alone
from sync.clinic.receiving.opening_keys import NO_KEY
from sync.clinic.receiving.opening_together import open_together
from sync.clinic.receiving.results import Key
from sync.clinic.receiving.sealed import Seals, waiting
from sync.clinic.store.database import Database, now
from sync.clinic.store.notify import Notifier
from sync.clinic.store.patience import Patience
from sync.clinic.store.tables import QUARANTINED, STORED, Envelope, Poison
from sync.wire.keys import OpeningKey

POLL_S = 0.25
# One commit for so many envelopes at most. On SQLite whoever else writes waits for it.
BATCH, POSTGRESQL_BATCH = 25, 100
LOOK_AGAIN_S = 24 * 3600.0
# Shorter than systemd waits for a service that it stops.
LAST_SCRUB_S = 5.0
# An envelope with which the database has failed so often in a row lets the others go first for a while: the
# database may be well, and only this one more than it can take in a way that nobody has foreseen.
STRIKES = 5
ASIDE_S = 15 * 60.0
PROBE_BYTES = 256 * 1024
# How long exports that could not be written, or not be named or deleted, are left until they are tried again.
EXPORTS_WAIT_S = 10.0

log = structlog.get_logger()


class Opener:
    """Opens what is stored, oldest first."""

    def __init__(self, database: Database, keys: Sequence[OpeningKey], export: Path | None = None) -> None:
        self._database = database
        self._seals = Seals(database, keys)
        self._heard = opening_keys.Heard({}, back=False)
        self._exports = Exports(export)
        self._alone = Alone(database, self._seals, self._exports)
        self._notifier = Notifier()
        self._scrubber = Scrubber(database)
        self._held: set[Key] = set()
        self._strikes: Counter[Key] = Counter()
        self._aside: dict[Key, float] = {}
        self._took_nothing = False
        self._looked_again = time.monotonic()
        self._say_from = self._write_from = self._settle_from = -math.inf

    def begin(self, *, again: bool = False) -> None:
        """Say which keys are held, and look once more at what waited for one.

        With `again`, quarantined envelopes are tried once more too. Raises ClinicError where the folder of
        the exports cannot be used.
        """
        self._exports.require_usable()
        erasing.reapply(self._database)
        self._exports.catch_up(self._database)
        self._settle_exports()
        with self._database.writing() as session:
            self._heard = opening_keys.hold(session, self._seals.kids)
            self._take_back(session)
            erasing.catch_up(session)
            if again:
                quarantined = update(Envelope).where(Envelope.state == QUARANTINED)
                session.execute(quarantined.values(state=STORED, reason=None))
        self._say_from = time.monotonic() + opening_keys.SAY_S

    def say_keys(self) -> None:
        """Say once more which keys are held."""
        # Also where it fails: between two tries the others have their turn.
        self._say_from = time.monotonic() + opening_keys.SAY_S
        with self._database.writing(gives_way=True) as session:
            heard = opening_keys.say(session, self._seals.kids, self._heard)
            # Once more a while later: somebody may have been about to quarantine what was sealed to it.
            if heard.back or self._heard.back:
                self._take_back(session)
        self._heard = heard

    def _take_back(self, session: Session) -> None:
        """Look once more at what another opener has quarantined for want of a key that this one has."""
        has_key = (Envelope.reason == NO_KEY) & Envelope.recipient.in_(self._seals.kids)
        apart = update(Envelope).where(Envelope.state == QUARANTINED, has_key)
        session.execute(apart.values(state=STORED, reason=None))

    def run(self, stop: threading.Event) -> None:
        """Open envelopes as they come, until `stop` is set."""
        patience = Patience()
        batch = POSTGRESQL_BATCH if self._database.engine.dialect.name == "postgresql" else BATCH
        self._notifier.ready()
        while not stop.is_set():
            self._notifier.alive()
            try:
                if time.monotonic() >= self._say_from:
                    self.say_keys()
                    self._notifier.alive()
                if not self.open_next(batch):
                    self._look_again()
                    stop.wait(POLL_S)
                patience.over()
            except Exception as error:  # noqa: BLE001  it is told below
                patience.tell(error)
                patience.wait(stop, self._notifier.alive)
        self._notifier.stopping()
        self._note_erased()
        self._scrubber.finish(LAST_SCRUB_S)
        self._notifier.close()
        log.info("stopped")

    def open_next(self, most: int = 1) -> bool:
        """Open the oldest envelopes that wait, up to so many; False if there is none.

        While the exports cannot be written none is opened, and that is told; but for withdrawals of what has
        no file there that cannot be deleted.
        Whatever a message raises, its envelope is quarantined. What the database raises of itself comes out,
        and nothing has changed but for the envelopes that were opened before.
        """
        found = False
        if time.monotonic() >= self._write_from:
            try:
                found = self._open_some(most)
            except ExportsUnusable as error:
                self._write_from = _told(error)
                self._held.clear()
                found = self._withdraw_some(most)
        else:
            found = self._withdraw_some(most)
        self._settle_exports()
        self._notifier.alive()
        self._note_erased()
        self._scrubber.scrub_in_time()
        return found

    def _open_some(self, most: int) -> bool:
        self._exports.write_owed(self._database, self._seals)
        which = waiting(
            most, self._seals.kids, self._set_aside(), tombstones_rest=self._alone.tombstones_rest()
        )
        taken = open_together(self._database, self._seals, self._exports, which)
        self._settle_exports()
        for key in taken.left:
            self._notifier.alive()
            self._open_alone(key)
            self._settle_exports()
        if self._took_nothing:
            # While it was away each message was as good as the next.
            self._took_nothing = False
            self._aside.clear()
        return taken.found > 0

    def _withdraw_some(self, most: int) -> bool:
        """Act on withdrawals while the exports rest; one of what has a file there is held, and told."""
        but = [*self._set_aside(), *self._held]
        rest = self._alone.tombstones_rest()
        which = waiting(most, self._seals.kids, but, tombstones_rest=rest, exports_rest=True)
        with self._database.reading() as session:
            keys = [(kiosk, message) for kiosk, message in session.execute(which)]
        for key in keys:
            self._notifier.alive()
            try:
                self._open_alone(key, exports_rest=True)
            except ExportsUnusable as error:
                if not self._held:  # of any number of them once
                    log.error("withdrawal_waits", why=str(error), wait_s=EXPORTS_WAIT_S)
                self._held.add(key)
        return bool(keys)

    def _settle_exports(self) -> None:
        if time.monotonic() >= self._settle_from:
            try:
                self._exports.settle(self._database)
            except ExportsUnusable as error:
                self._settle_from = _told(error)

    def _open_alone(self, key: Key, *, exports_rest: bool = False) -> None:
        try:
            self._alone.open(key, exports_rest=exports_rest)
        except ExportsUnusable:
            raise
        except Exception:
            self._notifier.alive()
            self._strike(key)
            raise
        self._strikes.pop(key, None)

    def scrub(self) -> None:
        """After an erasure: have what was erased gone from the files too, if nobody is in the way."""
        self._note_erased()
        self._scrubber.scrub()

    def _note_erased(self) -> None:
        if self._alone.has_erased:
            self._alone.has_erased = False
            self._scrubber.note_erased()

    def _look_again(self) -> None:
        """Once in a while, see to what could not be opened or acted on, or not wholly, when it came."""
        if time.monotonic() - self._looked_again >= LOOK_AGAIN_S:
            with self._database.writing() as session:
                self._take_back(session)
                erasing.catch_up(session)
            self._exports.forget_withdrawn(self._database)
            self._looked_again = time.monotonic()
            # Also what a command had erased while somebody was in the way.
            self._scrubber.note_erased()

    def _strike(self, key: Key) -> None:
        """Count a failure of the database against a message, unless it takes no other one either."""
        if not self._takes_writing(key):
            self._took_nothing = True
            return
        self._strikes[key] += 1
        if self._strikes[key] >= STRIKES:
            del self._strikes[key]
            self._aside[key] = time.monotonic() + ASIDE_S
            log.warning("set_aside", message=str(key[1]), for_s=ASIDE_S)

    def _takes_writing(self, key: Key) -> bool:
        """Whether the database takes more than any message needs, of which nothing is left."""
        probe = Poison(kiosk=key[0], sha256=b"", data=bytes(PROBE_BYTES), reason=NO_KEY, received_at=now())
        try:
            with self._database.writing() as session:
                session.add(probe)
                session.flush()
                session.delete(probe)
        except DBAPIError:
            return False
        return True

    def _set_aside(self) -> list[Key]:
        self._aside = {key: until for key, until in self._aside.items() if until > time.monotonic()}
        return list(self._aside)


def _told(error: ExportsUnusable) -> float:
    """Tell of it; the moment from which it is tried again."""
    log.error("exports_unusable", why=str(error), wait_s=EXPORTS_WAIT_S)
    return time.monotonic() + EXPORTS_WAIT_S
