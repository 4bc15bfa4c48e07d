"""The rows of a transaction: many in one statement, or one that may be there already."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import BigInteger, Connection, Float, Integer, String, Table, Uuid
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sync.clinic.store.tables import Base

# What the columns that COPY takes are called there; the first that fits.
_COPIED = {Uuid: "uuid", BigInteger: "int8", Integer: "int4", String: "varchar", Float: "float8"}
_DIALECTS: dict[str, Any] = {"sqlite": sqlite, "postgresql": postgresql}
# As SQLAlchemy writes them, for what goes to the driver as it is.
sqlite3.register_adapter(UUID, lambda value: value.hex)


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
