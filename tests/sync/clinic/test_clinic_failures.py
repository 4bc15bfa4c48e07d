"""A clinic command whose database or disk fails ends in one sentence: what, why, what to do."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from structlog.testing import capture_logs

from sync.clinic.store.database import Database
from sync.clinic.store.failure import failed_itself, out_of_room, unusable
from sync.clinic.store.patience import Patience
from sync.clinic.store.tables import Poison
from tests.support.clinic_commands import READING, WRITING, made, said
from tests.support.full_disk import on_a_small_disk


def assert_one_sentence(code: object, err: str, *words: str) -> None:
    assert code == 1, err
    assert err.startswith("Error: ") and err.count("\n") == 1 and err.endswith(".\n"), err
    assert "not foreseen" not in err and "sqlalche" not in err and "Traceback" not in err, err
    for word in words:
        assert word in err, err


ON_A_DISK = """
import json, shutil, subprocess, tempfile
from kiosk_app.cli import main
from tests.support.clinic_commands import READING, WRITING, made
if {empty}:
    state = disk / "clinic"
    commands = {{"migrate": ("migrate", "--state", str(state))}}
else:
    state = disk / "clinic"
    commands = made(state)
if {kind!r} == "full":
    fill()
else:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
for name in {names!r}:
    sys.argv = ["dermakiosk", "clinic", *commands[name]]
    sys.stderr = tempfile.TemporaryFile("w+", dir="/tmp")
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    sys.stderr.seek(0)
    print(json.dumps([name, code, sys.stderr.read()]))
"""


@pytest.mark.parametrize(
    ("kind", "empty", "names", "words"),
    [
        ("full", False, WRITING, "make room on it"),
        ("full", True, ("migrate",), "make room on"),
        ("read-only", False, (*WRITING, *READING), "take writing"),
        ("read-only", True, ("migrate",), "take writing"),
    ],
)
def test_a_disk_that_takes_nothing(
    tmp_path: Path, kind: str, empty: bool, names: Sequence[str], words: str
) -> None:
    script = ON_A_DISK.format(kind=kind, empty=empty, names=tuple(names))
    heard = [json.loads(line) for line in on_a_small_disk(tmp_path, script).splitlines() if line[:2] == '["']
    assert [name for name, _, _ in heard] == list(names)
    for _, code, err in heard:
        assert_one_sentence(code, err, words)


@pytest.mark.parametrize("name", [*WRITING, "migrate"])
def test_a_database_that_somebody_else_holds(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = made(tmp_path / "clinic")[name]
    monkeypatch.setattr("sync.clinic.store.engine.BUSY_S", 0.05)
    blocker = sqlite3.connect(tmp_path / "clinic" / "clinic.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert_one_sentence(*said(capsys, command), "locked by another process", "run the command again")
    blocker.close()


@pytest.mark.parametrize("name", [*WRITING, *READING, "migrate"])
@pytest.mark.parametrize("damage", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 200])
def test_a_database_that_is_damaged(
    tmp_path: Path, name: str, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    command = made(tmp_path / "clinic")[name]
    with (tmp_path / "clinic" / "clinic.sqlite").open("r+b") as file:
        file.write(damage)
    assert_one_sentence(*said(capsys, command), "damaged", "bring back the newest copy")


@contextmanager
def a_standby(url: str) -> Iterator[None]:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    engine.dispose()
    yield


USED = "accounts, kiosks, quarantine, opening_keys, alembic_version"


@contextmanager
def locked_tables(url: str, tables: str = USED) -> Iterator[None]:
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text(f"LOCK TABLE {tables}"))
        yield
    engine.dispose()


def in_psycopg(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:")


@pytest.mark.parametrize("name", [*WRITING, "migrate"])
def test_a_postgresql_that_takes_no_writing_or_is_held(
    tmp_path: Path,
    name: str,
    postgresql_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = made(tmp_path / "clinic", postgresql_url)[name]
    monkeypatch.setattr("sync.clinic.store.engine.BUSY_S", 0.05)
    with locked_tables(in_psycopg(postgresql_url)):
        assert_one_sentence(*said(capsys, command), "locked by another process")
    if name == "migrate":
        return  # there is nothing to migrate, so nothing is written
    with a_standby(in_psycopg(postgresql_url)):
        assert_one_sentence(*said(capsys, command), "can read it at most", "take writing")


def test_what_was_discarded_is_discarded_though_its_dead_rows_cannot_be_cleared_yet(
    tmp_path: Path,
    postgresql_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = made(tmp_path / "clinic", postgresql_url)
    monkeypatch.setattr("sync.clinic.store.engine.BUSY_S", 0.05)
    database = Database.existing(tmp_path / "clinic", postgresql_url)
    # Not the table that is written to: only what clears dead rows wants all of them.
    with locked_tables(in_psycopg(postgresql_url), "findings"):
        code, err = said(capsys, commands["discard"])
        assert (code, err) == (0, "")
        assert not database.scrub()
    assert database.scrub()
    with database.reading() as session:
        assert session.get(Poison, 1) is None
    database.close()


@pytest.mark.parametrize("name", [*WRITING, *READING, "migrate"])
def test_a_postgresql_that_cannot_be_reached(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = made(tmp_path / "clinic")[name]
    url = "postgresql://ann:hush-hush@127.0.0.1:1/clinic"
    code, err = said(capsys, [*command, "--db", url])
    assert_one_sentence(code, err, "nothing listens there", "see that PostgreSQL runs")
    assert "hush" not in err


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("revision", ["9999", "0000", "f3a9c1d2e4b5"])
def test_a_database_of_a_newer_version_is_told_for_one_and_left_as_it_is(
    tmp_path: Path,
    kind: str,
    revision: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = request.getfixturevalue("postgresql_url") if kind == "postgresql" else None
    commands = made(tmp_path / "clinic", url)
    database = Database.existing(tmp_path / "clinic", url)
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    for command in commands.values():
        code, err = said(capsys, command)
        assert_one_sentence(code, err, "of a newer version of this software: update the software")
        assert "migrate" not in err
    with database.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == revision
    database.close()


def all_taken(url: URL) -> list[psycopg.Connection]:
    """Every connection that the server at `url` lets its user have."""
    taken = []
    while True:
        try:
            taken.append(psycopg.connect(url.set(drivername="postgresql").render_as_string()))
        except psycopg.OperationalError:
            return taken


@pytest.mark.parametrize("limited", ["server", "database", "role"])
def test_a_postgresql_that_has_no_connection_left_is_told_for_it(
    tmp_path: Path, limited: str, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = made(tmp_path / "clinic", postgresql_url)
    ann = make_url(postgresql_url).set(username="ann")
    engine = create_engine(in_psycopg(postgresql_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE ann LOGIN"))
        if limited != "server":
            what = f"DATABASE {ann.database}" if limited == "database" else "ROLE ann"
            connection.execute(text(f"ALTER {what} CONNECTION LIMIT 0"))
        taken = all_taken(ann)
        try:
            for name in ("status", "migrate"):
                command = [*commands[name], "--db", ann.render_as_string()]
                assert_one_sentence(*said(capsys, command), "has no connection left", "run it again when")
        finally:
            for each in taken:
                each.close()
            connection.execute(text("DROP ROLE ann"))
    engine.dispose()


def test_a_postgresql_without_room_is_told_by_its_own_word(tmp_path: Path, postgresql_url: str) -> None:
    """Its disk cannot be filled here: the server raises what it raises then."""
    database = Database.at(tmp_path / "clinic", postgresql_url)
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    with pytest.raises(DBAPIError) as caught, database.writing() as session:
        session.execute(text(full))
    database.close()
    assert failed_itself(caught.value)
    assert "make room on it" in str(unusable(caught.value, database.engine.url))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("42P01", "'dermakiosk --debug"),
        (None, "PostgreSQL runs"),
        ("28P01", "PostgreSQL runs"),
        ("53300", "no connection left"),
    ],
)
def test_what_postgresql_answers_is_not_taken_for_its_absence(state: str | None, words: str) -> None:
    original = type("Odd", (Exception,), {"sqlstate": state})("odd")
    sentence = str(unusable(DBAPIError("", {}, original), make_url("postgresql://u@h/d")))
    assert words in sentence


@pytest.mark.parametrize(
    ("error", "event", "kind"),
    [
        (DBAPIError("", {}, sqlite3.OperationalError("away")), "database_away", "OperationalError"),
        (sqlite3.OperationalError("away"), "database_away", "OperationalError"),
        (PoolTimeout(), "database_away", "TimeoutError"),
        (OSError(errno.ENOSPC, "No space left on device"), "machine_failed", "ENOSPC"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "machine_failed", "ENOENT"),
        (OSError("of no number"), "machine_failed", "OSError"),
        (MemoryError(), "machine_failed", "MemoryError"),
    ],
)
def test_a_daemon_that_waits_names_what_failed_and_calls_only_the_databases_failures_so(
    error: Exception, event: str, kind: str
) -> None:
    with capture_logs() as logged:
        Patience().tell(error, worker="a")
    assert logged == [{"event": event, "kind": kind, "wait_s": 0.5, "worker": "a", "log_level": "error"}]


def test_a_database_whose_folder_is_gone_gets_its_sentence_too(tmp_path: Path) -> None:
    original = sqlite3.OperationalError("unable to open database file")
    error = DBAPIError("", {}, original)
    url = make_url(f"sqlite:///{tmp_path / 'gone' / 'clinic.sqlite'}")
    assert "correct the rights" in str(unusable(error, url))
    assert not out_of_room(error, url)
