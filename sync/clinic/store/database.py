"""The clinic's database: where it is, its transactions, its schema version."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Engine,
    Float,
    Integer,
    String,
    Table,
    Uuid,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from sync.clinic.store.durable import TAKES_NOTHING
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.failure import lock_not_had, why_away
from sync.clinic.store.tables import REVISION, Base
from sync.clinic.store.tombstones import Tombstones

BUSY_SECONDS = 15
# Of a PostgreSQL that is gone without a word, as when its machine loses power, TCP itself tells after a
# quarter of an hour, and of one that we only listen to never.
DEADLINES = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# What a server may not be set to, for a power cut would take what a receipt has called stored.
LOSING = {"fsync": "off"}
# How often somebody who would write to SQLite looks whether the one before has ended: a person's page, and a
# worker that has much to do and lets a page go first.
TURN_SECONDS, WORKERS_TURN_SECONDS = 0.001, 0.01
# Where a withdrawn scan leaves dead rows.
_ERASED_FROM = ("scans", "findings", "envelopes", "reminders", "quarantine")


_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
# What the columns that COPY takes are called there; the first that fits.
_COPIED = {Uuid: "uuid", BigInteger: "int8", Integer: "int4", String: "varchar", Float: "float8"}
_DIALECTS: dict[str, Any] = {"sqlite": sqlite, "postgresql": postgresql}
_FORMS = (
    "write sqlite:////path/clinic.sqlite or postgresql://user:password@host/name, and in a password %40 for "
    "an @ and %2F for a /"
)
_ODD_OPTION = "--db has an option after its ? that the database does not take: correct it or leave it out."
# As SQLAlchemy writes them, for what goes to the driver as it is.
sqlite3.register_adapter(UUID, lambda value: value.hex)

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
        self.engine = _engine(url)
        # Beside the database, not in it: bringing back an old copy of the one leaves the other as it is.
        self.tombstones = Tombstones(state / "withdrawn.lines")

    @classmethod
    def at(cls, state: Path, url: str | None = None) -> Database:
        """The database at `url`, or `clinic.sqlite` in the state folder; it is made if it is not there."""
        place = _place(state, url)
        _make_state(state)
        if place.get_backend_name() == "sqlite":
            _refuse_what_is_no_file(Path(place.database or ""))
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
            _refuse_what_is_no_file(Path(place.database or ""))
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
        turn = WORKERS_TURN_SECONDS if gives_way else TURN_SECONDS
        with (
            self._write_connection().execution_options(clinic_turn=turn) as connection,
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
            event.listen(
                self.engine, "connect", partial(_settle, {"statement_timeout": ("0", f"{seconds}s")})
            )
            self.engine.dispose()

    def scrub(self) -> bool:
        """After an erasure: have what was erased gone from the files too; False if others are in the way now.

        SQLite overwrites what is deleted, but its write-ahead log holds the old pages until it is emptied.
        PostgreSQL keeps dead rows until a vacuum, and may leave their bytes in free space and in its
        write-ahead log until they are used again: only its disk's encryption and age see to those.
        """
        if self.engine.dialect.name == "postgresql":
            try:
                with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"VACUUM {', '.join(_ERASED_FROM)}")
            except DBAPIError as error:
                if lock_not_had(error):
                    return False
                raise
            return True
        try:
            return self._empty_log()
        except sqlite3.Error as error:
            # Such as a disk without room: what is erased stays so, and whoever scrubs does it again.
            log.warning("not_scrubbed", kind=why_away(error))
            return False

    def _empty_log(self) -> bool:
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


def core(table: type[Base]) -> Table:
    """The table itself, for statements about many rows that need no object each."""
    return cast(Table, table.__table__)


def insert_new(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]
) -> set[tuple[Any, ...]]:
    """Insert `rows` but for those of which a unique key is there; the primary keys of those that went in.

    No exception breaks the transaction, and of two processes that insert the same one exactly one has it in
    its answer. All rows have the same columns.
    """
    if not rows:
        return set()
    statement = _insert_new(table, session.get_bind().dialect.name)
    return {tuple(key) for key in session.execute(statement, list(rows))}


def put_all(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows`, or give the row with its primary key these values; each row has every column."""
    if rows:
        session.execute(_put(table, session.get_bind().dialect.name), list(rows))


def append(session: Session, table: type[Base], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many small `rows` of every column, in their order, that nobody else can have.

    Ids, numbers and texts only: they go to the driver as they are, since so much work on each row as on one
    that comes alone is most of what an opened result costs. PostgreSQL takes them by COPY, about three times
    as fast as by INSERT.
    """
    if not rows:
        return
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_append(table), list(rows))
    else:
        _copy(connection, table, rows)


def insert_once(session: Session, row: Base) -> bool:
    """The same for one new object; True if it went in."""
    return bool(insert_new(session, type(row), [_values(row)]))


def put(session: Session, row: Base) -> None:
    """The same for one new object."""
    put_all(session, type(row), [_values(row)])


def _values(row: Base) -> dict[str, Any]:
    names = [column.name for column in core(type(row)).columns]
    return {name: getattr(row, name) for name in names if name in row.__dict__}


@cache
def _insert_new(table: type[Base], dialect: str) -> Any:
    return _DIALECTS[dialect].insert(core(table)).on_conflict_do_nothing().returning(*_keys(table))


@cache
def _append(table: type[Base]) -> str:
    columns = core(table).columns
    names, values = ", ".join(each.name for each in columns), ", ".join("?" for _ in columns)
    return f"INSERT INTO {table.__tablename__} ({names}) VALUES ({values})"


def _copy(connection: Connection, table: type[Base], rows: Sequence[tuple[Any, ...]]) -> None:
    """What fails is raised as SQLAlchemy raises it of its own statements."""
    columns = core(table).columns
    names = ", ".join(each.name for each in columns)
    statement = f"COPY {table.__tablename__} ({names}) FROM STDIN (FORMAT BINARY)"
    driver = cast(Any, connection.connection.driver_connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([_copied(each.type) for each in columns])
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        lost = connection.dialect.is_disconnect(error, driver, None)
        raise DBAPIError.instance(
            statement,
            None,
            error,
            connection.dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=connection.dialect,
        ) from error


def _copied(kind: Any) -> str:
    return next(name for of, name in _COPIED.items() if isinstance(kind, of))


@cache
def _put(table: type[Base], dialect: str) -> Any:
    statement = _DIALECTS[dialect].insert(core(table))
    keys = [key.name for key in _keys(table)]
    values = {name: value for name, value in statement.excluded.items() if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=values)


def _keys(table: type[Base]) -> list[Any]:
    return list(core(table).primary_key)


def _place(state: Path, text: str | None) -> URL:
    """Where the database is; nothing is looked at or made. Of a URL that is wrong nothing is shown."""
    if not text:
        return URL.create("sqlite", database=os.path.abspath(state / "clinic.sqlite"))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ClinicUsageError(f"--db is not a database URL: {_FORMS}.") from error
    if url.drivername not in _DRIVERS:
        raise ClinicUsageError(
            f"--db names another database or driver than SQLite or PostgreSQL with their own: {_FORMS}."
        )
    of_a_server = (url.host, url.username, url.password, url.port)
    if url.get_backend_name() == "sqlite" and (any(of_a_server) or url.database in (None, "", ":memory:")):
        raise ClinicUsageError(f"--db names no file for SQLite: {_FORMS}.")
    # What is written like a server's is no path: it would be shown as one, with a password in it.
    if url.get_backend_name() == "sqlite" and (url.query or re.search(":.*@", url.database or "")):
        raise ClinicUsageError(_ODD_OPTION if url.query else f"--db names no file for SQLite: {_FORMS}.")
    # What follows an unescaped @ is part of the password.
    if url.get_backend_name() == "postgresql" and "@" in f"{url.host}{url.database}":
        raise ClinicUsageError(f"--db has more than one @: {_FORMS}.")
    return url.set(drivername=_DRIVERS[url.drivername])


def _engine(url: URL) -> Engine:
    kind = url.get_backend_name()
    arguments = {"timeout": BUSY_SECONDS} if kind == "sqlite" else deadlines(url)
    try:
        # What SQLAlchemy says of an error would quote the values: patients' references, measurements.
        engine = create_engine(
            url, connect_args=arguments, pool_pre_ping=kind == "postgresql", hide_parameters=True
        )
    except ModuleNotFoundError as error:
        raise ClinicError(
            f"PostgreSQL needs a driver that is not installed ({error.name}): "
            "install the package with its extra, dermakiosk[clinic]."
        ) from error
    except (ArgumentError, NoSuchModuleError, TypeError, ValueError) as error:
        raise ClinicUsageError(_ODD_OPTION) from error
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        _require_known_options(url)
        event.listen(engine, "do_connect", _connect_postgresql)
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def deadlines(url: URL) -> dict[str, Any]:
    """What a connection to PostgreSQL is made with, but for what its URL says itself."""
    return {name: value for name, value in DEADLINES.items() if name not in url.query}


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


def _refuse_what_is_no_file(path: Path) -> None:
    """SQLite would say of a folder that it cannot be opened, and of a pipe or a device less than that."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # it is not there yet, or whoever opens it says why not
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ClinicUsageError(
            f"{path} is {what}, and the clinic's database is a file: name one with --db, such as "
            "sqlite:////path/clinic.sqlite."
        )


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


def _require_known_options(url: URL) -> None:
    """Only libpq's own: the driver takes others, and fails by them later."""
    from psycopg.pq import Conninfo

    if set(url.query) - {option.keyword.decode() for option in Conninfo.get_defaults()}:
        raise ClinicUsageError(_ODD_OPTION)


def _connect_postgresql(dialect: Any, record: object, given: list[Any], options: dict[str, Any]) -> Any:
    try:
        return dialect.connect(*given, **options)
    except (TypeError, ValueError) as error:
        # A host that no name can have, letters that are none.
        raise ClinicUsageError(f"--db has something that is no host or no text: {_FORMS}.") from error


def _prepare_postgresql(connection: Any, record: object) -> None:
    settings = {
        # A lock is waited for as long as SQLite's is, not for ever.
        "lock_timeout": ("0", f"{BUSY_SECONDS}s"),
        # A commit is on the disk before a receipt says so, whatever role or database are set to.
        "synchronous_commit": ("off", "on"),
    }
    _settle(settings, connection, record)


def _settle(settings: Mapping[str, tuple[str, str]], connection: Any, record: object) -> None:
    """Set what stands at its first value here to the second; anything else somebody has chosen."""
    for name, (found, ours) in settings.items():
        connection.execute(
            "SELECT set_config(%(name)s, %(ours)s, false) WHERE current_setting(%(name)s) = %(found)s",
            {"name": name, "ours": ours, "found": found},
        )
    connection.commit()


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


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get("clinic_writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    driver = cast(sqlite3.Connection, connection.connection.driver_connection)
    turn = connection.get_execution_options().get("clinic_turn", TURN_SECONDS)
    (patience_ms,) = driver.execute("PRAGMA busy_timeout").fetchone()
    # Waiting is ours alone: SQLite would wait as long once more for what only says why the turn did not come.
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        if not _begun_in_turn(driver, turn, time.monotonic() + patience_ms / 1000):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {patience_ms}")


def _begun_in_turn(driver: sqlite3.Connection, turn_seconds: float, deadline: float) -> bool:
    """Begin to write as soon as nobody else does; False where that did not come about in time.

    SQLite itself looks again after up to 100 ms, and a worker that has much to do writes again after a few:
    a page waited for many of its transactions, and now for the one that it comes upon.
    """
    while time.monotonic() < deadline:
        try:
            driver.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as error:
            if not str(error).startswith("database is locked"):
                return False
        time.sleep(turn_seconds)
    return False
