"""How much a database does for a piece of work, in numbers that are the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event

from sync.clinic.store.database import Database

STEPS = 10


@contextmanager
def statements(database: Database, *, writing: bool = False) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the database gets meanwhile, each with its values; or those of `writing` only."""
    said: list[tuple[str, Any]] = []

    def note(connection: Connection, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        writes = connection.get_execution_options().get("clinic_writes", False)
        if statement.split()[0] != "BEGIN" and writes >= writing:
            said.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


@contextmanager
def effort(database: Database) -> Iterator[list[int]]:
    """What the queries of the block cost: SQLite's steps, or the rows that PostgreSQL looks at."""
    total = [0]
    if database.engine.dialect.name == "sqlite":

        def count() -> None:
            total[0] += STEPS

        with database.reading() as session:
            # One connection is in the pool, and the block's is the same.
            driver: Any = session.connection().connection.driver_connection
        driver.set_progress_handler(count, STEPS)
        try:
            yield total
        finally:
            driver.set_progress_handler(None, 0)
        return
    with statements(database) as said:
        yield total
    with database.reading() as session:
        for statement, values in said:
            if statement.startswith("SELECT"):
                explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
                (plan,) = session.connection().exec_driver_sql(explained, values).scalar_one()
                total[0] += _rows(plan["Plan"])


def _rows(plan: dict[str, Any]) -> int:
    if "Plans" in plan:
        return sum(_rows(each) for each in plan["Plans"])
    looked_at = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return int(sum(plan.get(kind, 0) for kind in looked_at) * plan["Actual Loops"])


def analyse(database: Database) -> None:
    """Let the planner know how much there is, as it does by itself after a while."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
