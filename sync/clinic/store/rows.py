"""The rows of a transaction: many in one statement, or one that may be there already."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Dialect,
    Float,
    Integer,
    Result,
    String,
    Table,
    TypeDecorator,
    Uuid,
    bindparam,
    column,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from sync.clinic.store.tables import Base

# What the columns that COPY takes are called there; the first that fits.
_COPIED = {Uuid: "uuid", BigInteger: "int8", Integer: "int4", String: "varchar", Float: "float8"}
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
    return {tuple(key) for key in _execute(session, _insert_new, table, rows)}


def insert_once(session: Session, row: Base) -> bool:
    """The same for one new object; True if it went in."""
    return bool(insert_new(session, type(row), [_values(row)]))


def put_all(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], once_true: tuple[str, ...] = ()
) -> None:
    """Insert `rows`, or give the row with its primary key these values; each row has every column.

    Of several with one key the last is what stays. What is true in a column `once_true` stays true.
    """
    if rows:
        keys = [key.name for key in _keys(table)]
        last = {tuple(row[key] for key in keys): row for row in rows}
        _execute(session, partial(_put, once_true=once_true), table, list(last.values()))


def put(session: Session, row: Base) -> None:
    """The same for one new object."""
    put_all(session, type(row), [_values(row)])


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


def as_given(session: Session, identity: UUID) -> UUID | str:
    """An id as `append` takes it: as text once, where SQLite's driver would make that of it for each row."""
    return identity.hex if session.connection().dialect.name == "sqlite" else identity


def listed(types: Mapping[str, Any]) -> Any:
    """On PostgreSQL: what `as_lists` makes of rows with these columns, as a table to join or insert from."""
    return (
        func.unnest(*(bindparam(name, type_=_AsColumn(kind)) for name, kind in types.items()))
        .table_valued(*(column(name, kind) for name, kind in types.items()))
        .render_derived("listed")
    )


class Column(list[Any]):
    """A column of rows, which goes to PostgreSQL in binary: as text it would be several times its bytes."""


class _AsColumn(TypeDecorator[Any]):
    impl = ARRAY
    cache_ok = True

    def __init__(self, kind: TypeEngine[Any]) -> None:
        super().__init__(kind)
        # By its name statements are kept: two kinds are two statements.
        self.kind = kind

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Column]:
        of_items = super().bind_processor(dialect)
        return lambda items: Column(of_items(items) if of_items else items)


def as_lists(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of rows that all have the same ones, one list each."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _values(row: Base) -> dict[str, Any]:
    names = [column.name for column in core(type(row)).columns]
    return {name: getattr(row, name) for name in names if name in row.__dict__}


def _execute(
    session: Session,
    insert: Callable[[type[Base], str, tuple[str, ...]], Any],
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
) -> Result[Any]:
    """One `insert` of all these rows, which have the same columns.

    PostgreSQL takes a column as one list: the statement is the same however many rows there are, so that
    nobody writes, reads and prepares a new one for each batch.
    """
    connection, names = session.connection(), tuple(rows[0])
    statement = insert(table, connection.dialect.name, names)
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, as_lists(rows))
    return connection.execute(statement, list(rows))


@cache
def _insert_new(table: type[Base], dialect: str, names: tuple[str, ...]) -> Any:
    return _insert(table, dialect, names).on_conflict_do_nothing().returning(*_keys(table))


@cache
def _put(table: type[Base], dialect: str, names: tuple[str, ...], once_true: tuple[str, ...]) -> Any:
    statement = _insert(table, dialect, names)
    keys = [key.name for key in _keys(table)]
    values = {name: value for name, value in statement.excluded.items() if name not in keys}
    values |= {name: or_(core(table).columns[name], values[name]) for name in once_true}
    return statement.on_conflict_do_update(index_elements=keys, set_=values)


def _insert(table: type[Base], dialect: str, names: tuple[str, ...]) -> Any:
    if dialect == "sqlite":
        return sqlite.insert(core(table))
    columns = [core(table).columns[name] for name in names]
    # Without its bound a text that is too long is refused, as anywhere: a cast would cut it off.
    types = {each.name: String() if isinstance(each.type, String) else each.type for each in columns}
    given = listed(types)
    return postgresql.insert(core(table)).from_select(names, select(*given.c))


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


def _keys(table: type[Base]) -> list[Any]:
    return list(core(table).primary_key)
