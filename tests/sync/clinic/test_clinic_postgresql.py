"""What the clinic asks of a PostgreSQL that it keeps its records in, and how long it waits for one."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, event, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.receipts import Owed, mark_sent, owe, owe_late, unsent
from sync.clinic.server import STATEMENT_S, serve_pages
from sync.clinic.store import database as database_module
from sync.clinic.store.database import LOSING, Database, now
from sync.clinic.store.engine import DEADLINES, wait_to_make_tables
from sync.clinic.store.errors import ClinicError
from sync.clinic.store.failure import unusable
from sync.clinic.store.tables import REVISION, Envelope
from sync.clinic.work.machines import MachinesWorker
from sync.wire.keys import OpeningKey
from tests.support.clinic import SealingKiosk, registered
from tests.support.waiting import wait_until
from tests.support.withdrawing import a_result, arrive


@pytest.fixture
def own(migrated_url: str, tmp_path: Path) -> Iterator[Callable[[str], Database]]:
    """A clinic on PostgreSQL, with these options after its URL."""
    made = list[Database]()

    def at(options: str = "") -> Database:
        made.append(Database.at(tmp_path / "clinic", migrated_url + options))
        return made[-1]

    yield at
    for database in made:
        database.close()


def setting(database: Database, name: str) -> str:
    with database.reading() as session:
        return str(session.scalar(text("SELECT current_setting(:name)"), {"name": name}))


def test_a_postgresql_that_does_not_write_through_is_refused(
    own: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    own("").require_current()
    monkeypatch.setattr(database_module, "LOSING", LOSING)
    with pytest.raises(ClinicError, match=r"fsync = off, so that a power cut takes .*\.$"):
        own("").require_current()


def refused(database: Database) -> list[str]:
    """What a command hears of `database`: one that makes it, and one that uses it."""
    said = []
    for use in (database.migrate, database.require_current):
        with pytest.raises(ClinicError) as caught:
            use()
        said.append(str(caught.value))
    database.close()
    return said


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_a_database_in_which_not_every_name_can_be_written_is_refused_by_every_command(
    postgresql_url: str, tmp_path: Path, encoding: str
) -> None:
    name = f"narrow_{uuid4().hex}"
    engine = create_engine(
        postgresql_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        made = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'"
        connection.execute(text(made))
    engine.dispose()
    url = make_url(postgresql_url).set(database=name).render_as_string(hide_password=False)
    for sentence in refused(Database.at(tmp_path / "clinic", url)):
        assert re.fullmatch(f"The clinic's database keeps text as {encoding}, [^\n]*UTF8[^\n]*\\.", sentence)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
@pytest.mark.parametrize("chosen_by", ["environment", "options", "url", "role"])
def test_text_comes_and_goes_as_utf_8_whatever_the_surroundings_say(
    own: Callable[[str], Database], chosen_by: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chosen_by == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", encoding)
    if chosen_by == "role":
        with own("").writing() as session:
            name = session.scalar(text("SELECT current_database()"))
            session.execute(text(f"ALTER DATABASE {name} SET client_encoding = '{encoding}'"))
    asked = {"options": f"&options=-c%20client_encoding%3D{encoding}", "url": f"&client_encoding={encoding}"}
    database = own(asked.get(chosen_by, ""))
    database.require_current()
    with database.reading() as session:
        assert session.scalar(text("SELECT 'Zo\u00eb \u5c71\u7530'")) == "Zo\u00eb \u5c71\u7530"
    many = MachinesWorker(database, {})
    many.make()
    with many._teller.open():
        found = many._teller.connector.execute_query_one(
            "SELECT current_setting('client_encoding') AS encoding"
        )
    assert found == {"encoding": "UTF8"}


def migrating(state: Path, url: str) -> subprocess.Popen[str]:
    program = "from kiosk_app.cli import main; main()"
    command = [sys.executable, "-c", program, "clinic", "migrate", "--state", str(state), "--db", url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_that_make_the_tables_at_once_one_waits_for_the_other(
    postgresql_url: str, tmp_path: Path
) -> None:
    first, another = Database.at(tmp_path / "clinic", postgresql_url), list[subprocess.Popen[str]]()
    watching = create_engine(
        postgresql_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )

    def another_begins(_: object, __: object, statement: str, *___: object) -> None:
        if "CREATE TABLE alembic_version" not in statement:
            return
        another.append(migrating(tmp_path / "clinic", postgresql_url))
        with watching.connect() as connection:
            wait_until(lambda: bool(connection.scalar(waits)), "the other one waits")

    event.listen(first.engine, "after_cursor_execute", another_begins)
    first.migrate()
    (other,) = another
    said, told = other.communicate(timeout=60)
    assert (other.returncode, told) == (0, "")
    assert f"at revision {REVISION}" in said
    watching.dispose()
    first.close()


@pytest.mark.parametrize("makes", ["migrate", "work"])
def test_who_makes_tables_waits_for_another_no_longer_than_for_any_lock(
    own: Callable[[str], Database], makes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = own("")
    monkeypatch.setattr("sync.clinic.store.engine.BUSY_S", 0.05)
    database = own("")
    with another.writing() as session:
        wait_to_make_tables(session.connection())
        with pytest.raises(DBAPIError) as caught:
            database.migrate() if makes == "migrate" else MachinesWorker(database, {}).make()
    assert "locked by another process, such as a migration" in str(
        unusable(caught.value, database.engine.url)
    )


def test_what_is_committed_is_on_the_disk_whatever_the_role_is_set_to(own: Callable[[str], Database]) -> None:
    database = own("&options=-c%20synchronous_commit%3Doff")
    assert setting(database, "synchronous_commit") == "on"
    # What is stronger than that stays.
    database = own("&options=-c%20synchronous_commit%3Dremote_apply")
    assert setting(database, "synchronous_commit") == "remote_apply"


def test_a_postgresql_that_is_gone_without_a_word_is_not_waited_for_for_ever(
    own: Callable[[str], Database],
) -> None:
    def given(database: Database) -> dict[str, str]:
        with database.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            found = driver.info.get_parameters()
        return {name: found[name] for name in DEADLINES}

    ours = {name: str(value) for name, value in DEADLINES.items()}
    assert given(own("")) == ours
    assert given(own("&keepalives_idle=7&connect_timeout=3")) == ours | {
        "keepalives_idle": "7",
        "connect_timeout": "3",
    }


def note_sent(session: Session, kiosk: SealingKiosk, messages: Sequence[UUID]) -> None:
    mark_sent(session, unsent(session, "ingest-1", now(), len(messages)), now())


def note_opened(session: Session, kiosk: SealingKiosk, messages: Sequence[UUID]) -> None:
    owe_late(session, [kiosk.id], messages)


@pytest.mark.parametrize("change", [note_sent, note_opened])
def test_whoever_changes_receipts_has_them_in_the_order_in_which_they_are_owed(
    postgresql: Database,
    opening_key: OpeningKey,
    tmp_path: Path,
    change: Callable[[Session, SealingKiosk, Sequence[UUID]], None],
) -> None:
    """Or two who change the same ones wait for each other in a ring."""
    kiosk = registered(postgresql, SealingKiosk(opening_key), tmp_path)
    first, *others, last = sorted(uuid4() for _ in range(5))
    opener = Opener(postgresql, [opening_key])

    def owed(message: UUID) -> Owed:
        with postgresql.reading() as session:
            (sha256,) = session.scalars(select(Envelope.sha256).where(Envelope.message_id == message))
        return Owed(kiosk.id, message, sha256, "quarantined", now())

    # On the disk the last one comes first.
    for message in (last, *others, first):
        arrive(postgresql, kiosk, a_result(kiosk, uuid4()), message)
    while opener.open_next():
        pass
    with postgresql.writing() as session:
        session.execute(text("DELETE FROM receipts"))
    for message in (last, *others, first):
        with postgresql.writing() as session:
            owe(session, [owed(message)], "ingest-1")

    def work() -> None:
        with postgresql.writing() as session:
            change(session, kiosk, [first, *others, last])

    def waits() -> bool:
        with postgresql.reading() as session:
            return session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) == 1

    with ThreadPoolExecutor() as workers:
        again = [owed(first)], [owed(last)]
        with postgresql.writing() as session:
            owe(session, again[0], "ingest-1")
            working = workers.submit(work)
            wait_until(waits, "one session waiting for a lock")
            owe(session, again[1], "ingest-1")
        working.result(30)


def test_a_page_waits_for_no_statement_for_ever(own: Callable[[str], Database]) -> None:
    database = own("")
    assert setting(database, "statement_timeout") == "0"
    database.limit_statements(0.05)
    with pytest.raises(DBAPIError, match="statement timeout"), database.reading() as session:
        session.execute(text("SELECT pg_sleep(20)"))
    database = own("&options=-c%20statement_timeout%3D7s")
    database.limit_statements(0.05)
    assert setting(database, "statement_timeout") == "7s"


def test_the_pages_are_served_with_that_limit(own: Callable[[str], Database], tmp_path: Path) -> None:
    database, stop = own(""), threading.Event()
    stop.set()
    serve_pages(database, tmp_path, "127.0.0.1", 0, behind_tls=False, stop=stop)
    assert setting(database, "statement_timeout") == f"{STATEMENT_S}s"
