"""The clinic's database: its transactions, its schema version, what is left of what was erased."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog
from sqlalchemy import (
    URL,
    Connection,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sync.clinic.store.engine import (
    TURN_S,
    WORKERS_TURN_S,
    make_engine,
    settle,
    wait_to_make_tables,
)
from sync.clinic.store.errors import ClinicError
from sync.clinic.store.failure import lock_not_had, why_away
from sync.clinic.store.place import make_private, make_state, place_of, refuse_what_is_no_file, require
from sync.clinic.store.tables import REVISION
from sync.clinic.store.tombstones import Tombstones

if TYPE_CHECKING:
    from alembic.config import Config

# What a server may not be set to, for a power cut would take what a receipt has called stored.
LOSING = {"fsync": "off"}
# Where a withdrawn scan leaves dead rows.
_ERASED_FROM = ("scans", "findings", "envelopes", "reminders", "quarantine")
# A large PostgreSQL has much to look through.
LONGEST_SCRUB_S = 3600

log = structlog.get_logger()


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(timezone.utc)


def moment_at(session: Session) -> datetime:
    """This moment by the one clock that all who use the database share, UTC."""
    if session.get_bind().dialect.name == "postgresql":
        moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(timezone.utc)
    return now()


class Database:
    """One SQLite file or PostgreSQL database, used by any number of processes at once."""

    def __init__(self, url: URL, state: Path) -> None:
        self.engine = make_engine(url)
        # Beside the database, not in it: bringing back an old copy of the one leaves the other as it is.
        self.tombstones = Tombstones(state / "withdrawn.lines")

    @classmethod
    def at(cls, state: Path, url: str | None = None) -> Database:
        """The database at `url`, or `clinic.sqlite` in the state folder; it is made if it is not there."""
        place = place_of(state, url)
        make_state(state)
        if place.get_backend_name() == "sqlite":
            refuse_what_is_no_file(Path(place.database or ""))
            make_private(place.database)
        return cls(place, state)

    @classmethod
    def existing(cls, state: Path, url: str | None = None) -> Database:
        """The same, but nothing is made: raises ClinicUsageError where there is no clinic."""
        place = place_of(state, url)
        command = f"dermakiosk clinic migrate --state {state}" + (" --db URL" if url else "")
        require(state, command)
        if place.get_backend_name() == "sqlite":
            require(Path(place.database or ""), command)
            refuse_what_is_no_file(Path(place.database or ""))
        return cls(place, state)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only looks."""
        with Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self, *, gives_way: bool = False) -> Iterator[Session]:
        """A transaction that commits at the end of the block, or leaves nothing.

        Who `gives_way` lets others who wait to write go first, as a worker does that writes all the time.
        """
        turn = WORKERS_TURN_S if gives_way else TURN_S
        with (
            self._write_connection().execution_options(clinic_turn=turn) as connection,
            connection.begin(),
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session
            session.flush()

    def migrate(self, to: str = REVISION) -> str:
        """Bring the schema to the newest revision, or to another, and return its name. Raises ClinicError."""
        from alembic import command

        config = _migrations()
        with (
            self._write_connection() as connection,
            _foreign_keys_resting(connection),
            connection.begin(),
        ):
            wait_to_make_tables(connection)
            _refuse_a_newer(_revision(connection))
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            _check_foreign_keys(connection)
        return to

    def require_current(self) -> None:
        """Raise ClinicError unless the schema is the one this software was written for."""
        with self.engine.connect() as connection:
            revision = _revision(connection)
        if revision != REVISION:
            _refuse_a_newer(revision)
            has = f"at revision {revision}" if revision else "empty"
            raise ClinicError(
                f"The clinic's database is {has}, this software needs {REVISION}: "
                "run 'dermakiosk clinic migrate' first."
            )
        self._require_durable()

    def _require_durable(self) -> None:
        if self.engine.dialect.name != "postgresql":
            return
        with self.engine.connect() as connection:
            for name, value in LOSING.items():
                if connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) == value:
                    raise ClinicError(
                        f"The clinic's PostgreSQL has {name} = {value}, so that a power cut takes what "
                        "kiosks were told is stored: correct it in postgresql.conf and have it read that."
                    )

    def limit_statements(self, seconds: float) -> None:
        """From now on have PostgreSQL give up a statement after so long: somebody waits for its answer."""
        if self.engine.dialect.name == "postgresql":
            event.listen(self.engine, "connect", partial(settle, {"statement_timeout": ("0", f"{seconds}s")}))
            self.engine.dispose()

    def scrub(self) -> bool:
        """After an erasure: have what was erased gone from the files too; False where it could not be done.

        Others may be in the way, for instance. What is erased stays so, and whoever scrubs does it again.

        SQLite overwrites what is deleted, but its write-ahead log holds the old pages until it is emptied.
        PostgreSQL keeps dead rows until a vacuum, and may leave their bytes in free space and in its
        write-ahead log until they are used again: only its disk's encryption and age see to those.
        """
        if self.engine.dialect.name == "postgresql":
            try:
                with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    # Nobody else gets this connection, nor its deadline, afterwards.
                    connection.detach()
                    connection.exec_driver_sql(
                        f"SELECT set_config('statement_timeout', '{LONGEST_SCRUB_S}s', false)"
                        " WHERE current_setting('statement_timeout') = '0'"
                    )
                    connection.exec_driver_sql(f"VACUUM {', '.join(_ERASED_FROM)}")
            except DBAPIError as error:
                if not lock_not_had(error):
                    log.warning("not_scrubbed", kind=why_away(error))
                return False
            return True
        try:
            return self._empty_log()
        except sqlite3.Error as error:
            log.warning("not_scrubbed", kind=why_away(error))
            return False

    def scrub_at_once(self) -> bool:
        """The part of it that keeps nobody waiting: SQLite's.

        PostgreSQL's vacuum is the opener's, which begins with one and has one a day.
        """
        return self.engine.dialect.name == "sqlite" and self.scrub()

    def _empty_log(self) -> bool:
        with contextlib.closing(self.engine.raw_connection()) as raw:
            cursor = raw.cursor()
            # A checkpoint that waits for a reader lets nobody write meanwhile.
            (patience_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                ((busy, _, _),) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {patience_ms}")
            return not busy

    def close(self) -> None:
        self.engine.dispose()

    def _write_connection(self) -> Connection:
        return self.engine.connect().execution_options(clinic_writes=True)


def _revision(connection: Connection) -> str | None:
    """Which schema the database has; None where it has none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _migrations() -> Config:
    # Only 'migrate' and a refusal need Alembic; the daemons start quicker without it.
    from alembic.config import Config

    config = Config()
    # Alembic's options are a configparser's, in which a path's own % has to be doubled.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    return config


def _refuse_a_newer(revision: str | None) -> None:
    """Raise ClinicError for a revision of which this software knows nothing."""
    if revision in (None, REVISION):
        return
    from alembic.script import ScriptDirectory

    known = ScriptDirectory.from_config(_migrations()).walk_revisions()
    if revision not in {script.revision for script in known}:
        raise ClinicError(
            "The clinic's database is of a newer version of this software: update the software."
        )


@contextmanager
def _foreign_keys_resting(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew, and deletes what refers to the old one unless told not to."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = cast(sqlite3.Connection, connection.connection.driver_connection)
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _check_foreign_keys(connection: Connection) -> None:
    if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise ClinicError(
            "The clinic's database has rows that refer to nothing, and was left as it was: restore a backup."
        )
