"""The dose ledger: every UV pulse is written here, durably, before it is fired."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firmware.lights.witness import Witness, digest
from hardware.counts import counted
from hardware.host import sqlite
from hardware.host.errors import Fault
from hardware.profile import Limits

DAY_S = 86_400.0
# A wall clock that reads earlier than this has not been set: 2025-01-01 UTC.
EARLIEST_CREDIBLE = 1_735_689_600.0
# Nobody else writes; a copy that is being made may hold the file, and the lights' loop waits for this.
_LOCKED_S = 0.5
# Clocks are slewed by small steps; more than this backwards means that the time is not known.
_SLEW_S = 2.0
# Rows are forgotten when they are much older than any limit looks back.
_KEEP_S = 7 * DAY_S
_KEY_BYTES = 32


class DoseRefused(Fault):
    """The ledger does not allow the pulse. `code` names why."""


@dataclass(frozen=True)
class Moment:
    """One instant on both clocks: wall (Unix seconds), and seconds since `boot`, which no one can set.

    `known` is whether something vouches for the wall clock: see hardware.host.clock.
    """

    wall: float
    since_boot: float
    boot: str
    known: bool = True

    @classmethod
    def now(cls) -> Moment:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return cls(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot)


@dataclass(frozen=True)
class Dose:
    """UV at the eye plane, in J/m², given to a patient in a session."""

    reference: str
    session: str
    j_m2: float


class Ledger(Protocol):
    """What the light core needs of a ledger."""

    def charge(self, dose: Dose, elsewhere_j_m2: float, limits: Limits, at: Moment) -> None:
        """Write one pulse, or raise DoseRefused; when this returns the record survives a power cut."""

    def own_up(self, dose: Dose, at: Moment) -> None:
        """Write a dose that was given beyond what was charged, limits or no limits. Raises DoseRefused."""

    def latch(self, fault: str, at: Moment) -> None:
        """Keep `fault` over restarts. Raises DoseRefused when it cannot be written."""

    def latched(self) -> str | None:
        """The latched fault, if any: one that locks every light before one of UV alone. Raises DoseRefused
        when it cannot be read.
        """

    def clear(self, staff: str, at: Moment, only: str | None = None) -> None:
        """Keep that `staff` cleared what is latched, or `only` that fault of it. Raises DoseRefused when it
        cannot be written.
        """

    def refuse_unknown_day(self, at: Moment) -> None:
        """Raises DoseRefused for 24 h after staff cleared LEDGER_NEW."""

    def renew(self, light: str, staff: str, at: Moment) -> None:
        """Keep, together, that `staff` put a new lamp into `light` and that LAMP_NEW locks it, where no fault
        is kept yet that locks as much. Raises DoseRefused, as `charge` does.
        """

    def renewed_at(self, light: str) -> float | None:
        """When (Unix seconds) the lamp of `light` was put in; None for the first, UNKNOWN_SINCE where another
        may have been since. Raises DoseRefused.
        """


UNKNOWN_SINCE = math.inf

LAMP_NEW = "uv_lamp_new"
"""The fault of a lamp that was put in and has not been checked since."""

LEDGER_NEW = "uv_ledger_new"
"""The fault of a ledger that was lost, or that is not what it last was, such as an older copy of it: whom UV
was given to in the last 24 h is not known.
"""

FAULT_UNKNOWN = "fault_unknown"
"""The fault of such a ledger too, since which fault was latched is not known either; and of one that was not
read yet. It locks as much as any, until no light of the lamp is seen.
"""

# With these, UV alone is locked: white light needs neither the lamp nor the photodiode.
UV_ONLY = frozenset({"uv_unseen", "dark_unseen", LAMP_NEW, LEDGER_NEW})

# Those of before the first version number have these tables too, some without the last.
_TABLES = """
CREATE TABLE IF NOT EXISTS secret (key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pulses (
    id INTEGER PRIMARY KEY, reference BLOB NOT NULL, session BLOB NOT NULL,
    wall REAL NOT NULL, boot TEXT NOT NULL, since_boot REAL NOT NULL, dose_j_m2 REAL NOT NULL);
CREATE INDEX IF NOT EXISTS pulses_by_reference ON pulses (reference);
CREATE INDEX IF NOT EXISTS pulses_by_session ON pulses (session);
CREATE INDEX IF NOT EXISTS pulses_by_wall ON pulses (wall);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY, wall REAL NOT NULL, fault TEXT NOT NULL, cleared_by TEXT);
CREATE TABLE IF NOT EXISTS lamps (
    id INTEGER PRIMARY KEY, wall REAL NOT NULL, light TEXT NOT NULL, renewed_by TEXT NOT NULL);
"""
# Within one boot a jump of the wall clock cannot make anything look older than it is.
_IN_DAY = "(wall > ? OR (boot = ? AND since_boot > ?))"

# A row that cannot be one of a pulse, or of a lamp.
_NO_SUCH_ROW = (
    "SELECT 1 FROM pulses WHERE typeof(dose_j_m2) <> 'real' OR dose_j_m2 < 0 OR typeof(wall) <> 'real'"
    " OR typeof(since_boot) <> 'real' OR typeof(reference) <> 'blob' OR typeof(session) <> 'blob'"
    " UNION ALL SELECT 1 FROM lamps WHERE typeof(wall) <> 'real' LIMIT 1"
)

# When staff cleared LEDGER_NEW: the doses of the 24 h before are not known.
_LOSSES = "CREATE TABLE losses (wall REAL NOT NULL, boot TEXT NOT NULL, since_boot REAL NOT NULL)"
# The digest of what it held before the last change: the witness may not have heard of that one yet.
_PAST = "CREATE TABLE past (digest TEXT NOT NULL)"
_STEPS = (_TABLES, _LOSSES, _PAST)
_ANOTHER = "another one was put in its place, so it is read anew: look at 'dermakiosk lights status'"


class DoseLedger:
    """The ledger in SQLite at `path`. References and sessions are kept as HMACs, under a key made here.

    Every method fails closed: whatever goes wrong with the file, the disk or the clock is a DoseRefused. A
    file that is gone, or empty, is not a fresh start where there was one before: it is made anew with
    LEDGER_NEW and FAULT_UNKNOWN latched in it. So are they in one that does not hold what it last held: an
    older copy of it, or one in which a row is another. What it last held the file `.made` beside it says.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._witness = None if self._path == ":memory:" else Witness(Path(self._path).with_suffix(".made"))
        self._database: sqlite3.Connection | None = None
        self._key = b""
        self._held = ""
        self._seen = 0

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def charge(self, dose: Dose, elsewhere_j_m2: float, limits: Limits, at: Moment) -> None:
        """See Ledger.charge. Raises DoseRefused: clock_unknown, dose_limit, pulse_limit, ledger_failed."""
        with self._transaction() as database:
            self._refuse_unknown_time(database, at)
            pulses, in_scan = database.execute(
                "SELECT count(*), coalesce(sum(dose_j_m2), 0) FROM pulses WHERE session = ?",
                (self._hmac(b"session", dose.session),),
            ).fetchone()
            in_day = database.execute(
                f"SELECT coalesce(sum(dose_j_m2), 0) FROM pulses WHERE reference = ? AND {_IN_DAY}",
                (self._hmac(b"reference", dose.reference), *_day_before(at)),
            ).fetchone()[0]
            if pulses >= limits.uv_pulses_per_scan:
                raise DoseRefused("pulse_limit", f"This scan has had its {counted(pulses, 'UV pulse')}.")
            if not in_scan + dose.j_m2 <= limits.uv_dose_per_scan_j_m2:
                raise DoseRefused("dose_limit", "This scan has had all the UV that one scan may have.")
            if not in_day + elsewhere_j_m2 + dose.j_m2 <= limits.uv_dose_per_day_j_m2:
                raise DoseRefused("dose_limit", "This patient has had all the UV of 24 hours.")
            self._insert(database, dose, at)
            # Never the newest row, which says that the clock does not run backwards; nor one of this boot
            # that only a jump of the wall clock has made old.
            database.execute(
                "DELETE FROM pulses WHERE wall < ? AND wall < (SELECT max(wall) FROM pulses)"
                " AND (boot <> ? OR since_boot < ?)",
                (at.wall - _KEEP_S, at.boot, at.since_boot - _KEEP_S),
            )

    def own_up(self, dose: Dose, at: Moment) -> None:
        """See Ledger.own_up."""
        with self._transaction() as database:
            self._insert(database, dose, at)

    def latch(self, fault: str, at: Moment) -> None:
        """See Ledger.latch."""
        with self._transaction() as database:
            database.execute("INSERT INTO faults (wall, fault) VALUES (?, ?)", (at.wall, fault))

    def latched(self) -> str | None:
        """See Ledger.latched."""
        with self._transaction() as database:
            rows = database.execute("SELECT fault FROM faults WHERE cleared_by IS NULL ORDER BY id DESC")
            faults = [str(fault) for (fault,) in rows]
        return max(faults, key=lambda fault: fault not in UV_ONLY, default=None)

    def clear(self, staff: str, at: Moment, only: str | None = None) -> None:
        """See Ledger.clear."""
        with self._transaction() as database:
            if only is None:
                database.execute(
                    "INSERT INTO losses (wall, boot, since_boot) SELECT ?, ?, ?"
                    " WHERE EXISTS (SELECT 1 FROM faults WHERE cleared_by IS NULL AND fault = ?)",
                    (at.wall, at.boot, at.since_boot, LEDGER_NEW),
                )
            database.execute(
                "UPDATE faults SET cleared_by = ? WHERE cleared_by IS NULL AND fault = coalesce(?, fault)",
                (staff, only),
            )

    def refuse_unknown_day(self, at: Moment) -> None:
        """See Ledger.refuse_unknown_day. Raises DoseRefused: ledger_new, ledger_failed."""
        with self._transaction() as database:
            lost = database.execute(f"SELECT 1 FROM losses WHERE {_IN_DAY}", _day_before(at)).fetchone()
        if lost is not None:
            raise DoseRefused(
                "ledger_new",
                "The dose ledger was lost, or an older copy put back, so there is no UV until 24 h after that"
                " was cleared.",
            )

    def renew(self, light: str, staff: str, at: Moment) -> None:
        """See Ledger.renew. A lamp put in at a time that is not known could pass for one measured since."""
        with self._transaction() as database:
            self._refuse_unknown_time(database, at)
            database.execute(
                "INSERT INTO lamps (wall, light, renewed_by) VALUES (?, ?, ?)", (at.wall, light, staff)
            )
            # A fault that is latched but could not be written yet would not outlive this process.
            database.execute(
                "INSERT INTO faults (wall, fault) SELECT ?, ?"
                " WHERE NOT EXISTS (SELECT 1 FROM faults WHERE cleared_by IS NULL)",
                (at.wall, LAMP_NEW),
            )

    def renewed_at(self, light: str) -> float | None:
        """See Ledger.renewed_at."""
        with self._transaction() as database:
            newest = "SELECT wall FROM lamps WHERE light = ? ORDER BY id DESC LIMIT 1"
            row = database.execute(newest, (light,)).fetchone()
        return None if row is None else float(row[0])

    def _refuse_unknown_time(self, database: sqlite3.Connection, at: Moment) -> None:
        if not (at.known and at.wall >= EARLIEST_CREDIBLE):
            raise DoseRefused("clock_unknown", "The time is not known, so there is no UV.")
        newest = database.execute("SELECT max(wall) FROM pulses").fetchone()[0]
        if newest is not None and at.wall < newest - _SLEW_S:
            raise DoseRefused("clock_unknown", "The clock ran backwards, so there is no UV.")

    def _insert(self, database: sqlite3.Connection, dose: Dose, at: Moment) -> None:
        who, scan = self._hmac(b"reference", dose.reference), self._hmac(b"session", dose.session)
        database.execute(
            "INSERT INTO pulses (reference, session, wall, boot, since_boot, dose_j_m2)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (who, scan, at.wall, at.boot, at.since_boot, dose.j_m2),
        )

    def _hmac(self, kind: bytes, text: str) -> bytes:
        return hmac.digest(self._key, kind + b"\0" + text.encode(), hashlib.sha256)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            database = self._database = self._database or self._open()
            before, held = database.total_changes, None
            with sqlite.transaction(database):
                if self._witness is not None and _data_version(database) != self._seen:
                    # Opened anew, it locks the lights where the witness says another thing too.
                    raise sqlite3.DatabaseError(_ANOTHER)
                yield database
                if database.total_changes != before:
                    held = self._after_change(database)
            if self._witness is not None and held is not None:
                self._witness.say(held)
                self._held = held
        except (sqlite3.Error, OSError) as error:
            self.close()
            # Of its two files the one that is in the way.
            path = Path(getattr(error, "filename", None) or self._path)
            raise DoseRefused(
                "ledger_failed",
                f"The dose ledger {path} failed, so no UV is given and no fault is cleared:"
                f" {sqlite.cause(error, path)}.",
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._path == ":memory:":
            database = sqlite3.connect(self._path, timeout=_LOCKED_S, isolation_level=None)
        else:
            database = sqlite.connect(Path(self._path), _LOCKED_S, make=True)
        try:
            # EXTRA also syncs the folder when the journal goes, so a commit outlives a power cut.
            database.execute("PRAGMA synchronous = EXTRA")
            # What an index has lost would be missing in a sum.
            checked = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if checked != "ok":
                raise sqlite3.DatabaseError(f"it is damaged: {checked}")
            said = None if self._witness is None else self._witness.said()
            self._seen = _data_version(database)
            found = digest(database)  # before a step changes it, which the witness hears of only then
            sqlite.bring_up(database, _STEPS, (lambda db: _add_past(db, found)) if said else None)
            # It would make the sum of a day smaller, or pass off a lamp for one that was measured since.
            if database.execute(_NO_SUCH_ROW).fetchone() is not None:
                raise sqlite3.DatabaseError(sqlite.MALFORMED)
            past = _past(database)
            row = database.execute("SELECT key FROM secret").fetchone()
            if row is None:
                row = _begin(database, made_before=said is not None)
            elif (said or past) and said not in (found, *past):
                _lock_unknown(database)
            if not isinstance(row[0], bytes) or len(row[0]) != _KEY_BYTES:
                raise sqlite3.DatabaseError(sqlite.MALFORMED)  # nobody would be known by another key
            self._key = row[0]
            if self._witness is not None:
                self._held = digest(database)
                if said != self._held:
                    self._witness.say(self._held)
                if not _past(database):
                    # From now on it says itself that it has a witness, should that be gone.
                    with sqlite.transaction(database):
                        _add_past(database, self._held)
                    self._held = digest(database)
                    self._witness.say(self._held)
                self._witness.tidy()
        except BaseException:
            database.close()
            raise
        return database

    def _after_change(self, database: sqlite3.Connection) -> str | None:
        """What the ledger holds now, and in it what it held before; None where nobody witnesses it."""
        if self._witness is None:
            return None
        database.execute("DELETE FROM past")
        _add_past(database, self._held)
        return digest(database)


def _day_before(at: Moment) -> tuple[float, str, float]:
    """What _IN_DAY asks for."""
    return at.wall - DAY_S, at.boot, at.since_boot - DAY_S


def _data_version(database: sqlite3.Connection) -> int:
    """Another number where anybody but this connection has changed the file, or put another one over it."""
    version: int = database.execute("PRAGMA data_version").fetchone()[0]
    return version


def _past(database: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(held for (held,) in database.execute("SELECT digest FROM past"))


def _add_past(database: sqlite3.Connection, held: str) -> None:
    database.execute("INSERT INTO past (digest) VALUES (?)", (held,))


def _begin(database: sqlite3.Connection, *, made_before: bool) -> tuple[bytes]:
    """Make the key of a ledger that has none. The faults come first, lest a power cut leave them out."""
    if database.execute("SELECT count(*) FROM pulses").fetchone()[0]:
        raise sqlite3.DatabaseError("its key is gone")
    if made_before:
        _lock_unknown(database)
    row = (secrets.token_bytes(_KEY_BYTES),)
    database.execute("INSERT INTO secret (key) VALUES (?)", row)
    return row


def _lock_unknown(database: sqlite3.Connection) -> None:
    """Lock the lights: what was given and latched is not known, nor which lamps were put in since."""
    wall = Moment.now().wall
    database.execute(
        "INSERT INTO lamps (wall, light, renewed_by) SELECT DISTINCT ?, light, '' FROM lamps",
        (UNKNOWN_SINCE,),
    )
    database.execute(
        "INSERT INTO faults (wall, fault) VALUES (?, ?), (?, ?)", (wall, LEDGER_NEW, wall, FAULT_UNKNOWN)
    )
