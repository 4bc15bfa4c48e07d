"""Connections to SQLite and PostgreSQL: how each is prepared, how long it waits, how SQLite's turn is had."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.place import FORMS, ODD_OPTION
from sync.clinic.store.rows import Column

BUSY_S = 15
# Of a PostgreSQL that is gone without a word, as when its machine loses power, TCP itself tells after a
# quarter of an hour, and of one that we only listen to never.
DEADLINES = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_MAKING = 0x636C696E  # whoever makes tables in PostgreSQL holds this lock of its
_HELD_BY_A_FIRST, _TRIES = "locking protocol", 3
# How often somebody who would write to SQLite looks whether the one before has ended: a person's page, and a
# worker that has much to do and lets a page go first.
TURN_S, WORKERS_TURN_S = 0.001, 0.01


def make_engine(url: URL) -> Engine:
    kind = url.get_backend_name()
    arguments = {"timeout": BUSY_S} if kind == "sqlite" else arguments_of(url)
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
        raise ClinicUsageError(ODD_OPTION) from error
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        _require_known_options(url)
        event.listen(engine, "do_connect", _connect_postgresql)
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def arguments_of(url: URL) -> dict[str, Any]:
    """What a connection to PostgreSQL is made with: text in UTF-8, and deadlines where its URL sets none."""
    deadlines = {name: value for name, value in DEADLINES.items() if name not in url.query}
    return {"client_encoding": "utf8", **deadlines}


def wait_to_make_tables(connection: Connection) -> None:
    """Until the end of the transaction nobody else makes tables; waited for as long as any lock is.

    On SQLite whoever writes is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MAKING})


def _require_known_options(url: URL) -> None:
    """Only libpq's own: the driver takes others, and fails by them later."""
    from psycopg.pq import Conninfo

    if set(url.query) - {option.keyword.decode() for option in Conninfo.get_defaults()}:
        raise ClinicUsageError(ODD_OPTION)


def _connect_postgresql(dialect: Any, record: object, given: list[Any], options: dict[str, Any]) -> Any:
    try:
        connection = dialect.connect(*given, **options)
    except (TypeError, ValueError) as error:
        # A host that no name can have, letters that are none.
        raise ClinicUsageError(f"--db has something that is no host or no text: {FORMS}.") from error
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise ClinicError(
            f"The clinic's database keeps text as {encoding}, in which not every name can be written: make "
            "one with 'createdb --encoding=UTF8 --template=template0', and name that with --db."
        )
    return connection


def _prepare_postgresql(connection: Any, record: object) -> None:
    from psycopg.types.array import ListBinaryDumper

    connection.adapters.register_dumper(Column, ListBinaryDumper)
    settings = {
        # A lock is waited for as long as SQLite's is, not for ever.
        "lock_timeout": ("0", f"{BUSY_S}s"),
        # A commit is on the disk before a receipt says so, whatever role or database are set to.
        "synchronous_commit": ("off", "on"),
    }
    settle(settings, connection, record)


def settle(settings: Mapping[str, tuple[str, str]], connection: Any, record: object) -> None:
    """Set what stands at its first value here to the second; anything else somebody has chosen."""
    for name, (found, ours) in settings.items():
        connection.execute(
            "SELECT set_config(%(name)s, %(ours)s, false) WHERE current_setting(%(name)s) = %(found)s",
            {"name": name, "ours": ours, "found": found},
        )
    connection.commit()


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # The driver's own BEGIN comes too late to hold a lock from the first read on: we say it ourselves.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        _execute_first(connection, f"PRAGMA {pragma}")


def _execute_first(connection: sqlite3.Connection, statement: str) -> None:
    """Execute what may be the first to read the database.

    Whoever opens one that nobody has open makes the index of its log, and the next one waits for that: by
    SQLite's own count for 10 s, whatever it was told to wait, which a process that gets no turn can take. So
    it is tried again, a few times.
    """
    for left in reversed(range(_TRIES)):
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if str(error) != _HELD_BY_A_FIRST or not left:
                raise


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get("clinic_writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    driver = cast(sqlite3.Connection, connection.connection.driver_connection)
    turn = connection.get_execution_options().get("clinic_turn", TURN_S)
    (patience_ms,) = driver.execute("PRAGMA busy_timeout").fetchone()
    # Waiting is ours alone: SQLite would wait as long once more for what only says why the turn did not come.
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        if not _begun_in_turn(driver, turn, time.monotonic() + patience_ms / 1000):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {patience_ms}")


def _begun_in_turn(driver: sqlite3.Connection, turn_s: float, deadline: float) -> bool:
    """Begin to write as soon as nobody else does; False where that did not come about in time.

    SQLite itself looks again after up to 100 ms, and a worker that has much to do writes again after a few:
    a page waited for many of its transactions, and now for the one that it comes upon.
    """
    while time.monotonic() < deadline:
        try:
            driver.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as error:
            if not str(error).startswith(("database is locked", _HELD_BY_A_FIRST)):
                return False
        time.sleep(turn_s)
    return False
