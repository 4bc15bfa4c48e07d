"""The clinic's database: where it is, its transactions, its schema version."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from .durable import TAKES_NOTHING
from .errors import ClinicError, ClinicUsageError
from .tables import REVISION, Base
from .tombstones import Tombstones

BUSY_SECONDS = 15
CONNECT_SECONDS = 10
# Where a withdrawn scan leaves dead rows.
_ERASED_FROM = ("scans", "findings", "envelopes", "reminders", "quarantine")


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(timezone.utc)


class Database:
    """One SQLite file or PostgreSQL database, used by any number of processes at once."""

    def __init__(self, url: URL, state: Path) -> None:
        self.engine = _engine(url)
        # Beside the database, not in it: bringing back an old copy of the one leaves the other as it is.
        self.tombstones = Tombstones(state / "withdrawn.lines")

    @classmethod
    def at(cls, state: Path, url: str | None = None) -> Database:
        """The database at `url`, or `clinic.sqlite` in the state folder; it is made if it is not there."""
        place = _place(state, url)
        _make_state(state)
        if place.get_backend_name() == "sqlite":
            _make_private(place.database)
        return cls(place, state)

    @classmethod
    def existing(cls, state: Path, url: str | None = None) -> Database:
        """The same, but nothing is made: raises ClinicUsageError where there is no clinic."""
        place = _place(state, url)
        command = f"dermakiosk clinic migrate --state {state}" + (" --db URL" if url else "")
        _require(state, command)
        if place.get_backend_name() == "sqlite":
            _require(Path(place.database or ""), command)
        return cls(place, state)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only looks."""
        with Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that commits at the end of the block, or leaves nothing."""
        with (
            self._write_connection() as connection,
            connection.begin(),
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session
            session.flush()

    def migrate(self, to: str = REVISION) -> str:
        """Bring the schema to the newest revision, or to another, and return its name. Raises ClinicError."""
        # Only this command needs Alembic; the daemons start quicker without it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        # Alembic's options are a configparser's, in which a path's own % has to be doubled.
        migrations = str(Path(__file__).parent / "migrations").replace("%", "%%")
        config.set_main_option("script_location", migrations)
        with (
            self._write_connection() as connection,
            _foreign_keys_resting(connection),
            connection.begin(),
        ):
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            _check_foreign_keys(connection)
        return to

    def require_current(self) -> None:
        """Raise ClinicError unless the schema is the one this software was written for."""
        with self.engine.connect() as connection:
            known = inspect(connection).has_table("alembic_version")
            revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if known else None
        if revision != REVISION:
            has = f"at revision {revision}" if revision else "empty"
            raise ClinicError(
                f"The clinic's database is {has}, this software needs {REVISION}: "
                "run 'dermakiosk clinic migrate' first."
            )

    def scrub(self) -> bool:
        """After an erasure: have what was erased gone from the files too; False if others are in the way now.

        SQLite overwrites what is deleted, but its write-ahead log holds the old pages until it is emptied.
        PostgreSQL keeps dead rows until a vacuum, and may leave their bytes in free space and in its
        write-ahead log until they are used again: only its disk's encryption and age see to those.
        """
        if self.engine.dialect.name == "postgresql":
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"VACUUM {', '.join(_ERASED_FROM)}")
            return True
        with contextlib.closing(self.engine.raw_connection()) as raw:
            cursor = raw.cursor()
            # A checkpoint that waits for a reader lets nobody write meanwhile.
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                ((busy, _, _),) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
            return not busy

    def close(self) -> None:
        self.engine.dispose()

    def _write_connection(self) -> Connection:
        return self.engine.connect().execution_options(clinic_writes=True)


def insert_once(session: Session, row: Base) -> bool:
    """Insert `row` unless a row with one of its unique keys is there; True if it went in.

    No exception breaks the transaction, and of two processes that insert the same one exactly one gets True.
    """
    statement = _insert(session, row).on_conflict_do_nothing().returning(*row.__table__.primary_key)
    return session.execute(statement).first() is not None


def put(session: Session, row: Base) -> None:
    """Insert `row`, or give the row with its primary key these values."""
    keys = [column.name for column in row.__table__.primary_key]
    statement = _insert(session, row)
    values = {name: value for name, value in statement.excluded.items() if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=values))


def _insert(session: Session, row: Base) -> Any:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    columns = [column.name for column in row.__table__.columns]
    values = {name: getattr(row, name) for name in columns if name in row.__dict__}
    return dialect.insert(row.__table__).values(values)


def _place(state: Path, text: str | None) -> URL:
    """Where the database is; nothing is looked at or made."""
    if not text:
        return URL.create("sqlite", database=os.path.abspath(state / "clinic.sqlite"))
    try:
        url = make_url(text)
        if "@" in (url.host or ""):
            raise ValueError("what follows an unescaped @ is part of the password")
    except (ArgumentError, ValueError) as error:
        raise ClinicUsageError(
            "--db is not a database URL: write sqlite:////path/clinic.sqlite or postgresql://user@host/name, "
            "and %40 for an @ in a password."
        ) from error
    return url


def _engine(url: URL) -> Engine:
    kind = url.get_backend_name()
    if kind == "postgresql":
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    elif kind == "sqlite":
        arguments = {"timeout": BUSY_SECONDS}
    else:
        raise ClinicUsageError(f"--db names {kind}: the clinic's records live in SQLite or PostgreSQL.")
    try:
        # What SQLAlchemy says of an error would quote the values: patients' references, measurements.
        engine = create_engine(
            url, connect_args=arguments, pool_pre_ping=kind == "postgresql", hide_parameters=True
        )
    except ModuleNotFoundError as error:
        raise ClinicError(
            f"PostgreSQL needs a driver that is not installed ({error.name}): "
            "install the package with its extra, dermakiosk[postgresql]."
        ) from error
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _require(path: Path, command: str) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClinicUsageError(
            f"There is no clinic at {path}: correct the path, or make a clinic there with '{command}'."
        ) from error
    except OSError as error:
        raise ClinicUsageError(
            f"{path} cannot be opened ({error.strerror}): correct the path, or become a user who may read it."
        ) from error


def _make_state(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise
        raise ClinicUsageError(
            f"The clinic's folder {state} cannot be made ({error.strerror}): name another --state."
        ) from error


def _make_private(path: str | None) -> None:
    """Make the file before SQLite does, readable by nobody else; SQLite gives its log the same mode."""
    try:
        os.close(os.open(path or "", os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise
        raise ClinicUsageError(
            f"The clinic's database {path or 'without a path'} cannot be made ({error.strerror}): "
            "name a file in a folder that you may write to."
        ) from error


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # The driver's own BEGIN comes too late to hold a lock from the first read on: we say it ourselves.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: Any, record: object) -> None:
    # A lock is waited for as long as SQLite's is, not for ever.
    connection.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
    connection.commit()


@contextmanager
def _foreign_keys_resting(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew, and deletes what refers to the old one unless told not to."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
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


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("clinic_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
