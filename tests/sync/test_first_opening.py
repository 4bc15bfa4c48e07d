"""Stores in SQLite that several processes open at once, of which one is the first."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardware.host.sqlite import execute_first
from sync.clinic.store import engine
from sync.clinic.store.database import Database
from sync.kiosk.outbox import Outbox

AT_ONCE = 16
# Where SQLite's index of the log has its lock of whoever writes: what a process holds that makes the index.
HOLDS = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 1, 120)
    print("held", flush=True)
    sys.stdin.read()
"""


def as_the_clinic(db: sqlite3.Connection) -> None:
    engine._prepare_sqlite(db, None)


def as_the_kiosk(db: sqlite3.Connection) -> None:
    execute_first(db, "PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("opens", [as_the_clinic, as_the_kiosk])
def test_a_process_that_is_long_at_being_the_first_keeps_no_other_from_the_store(
    tmp_path: Path, opens: Callable[[sqlite3.Connection], None]
) -> None:
    path, index = tmp_path / "store.sqlite", tmp_path / "store.sqlite-shm"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE kept (number)")
        db.commit()
        log = (tmp_path / "store.sqlite-wal").read_bytes()
    (tmp_path / "store.sqlite-wal").write_bytes(log)
    index.write_bytes(bytes(32768))
    tries = list[str]()
    command = [sys.executable, "-c", HOLDS, str(index)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:

        class Watched(sqlite3.Connection):
            def execute(self, *given: Any) -> sqlite3.Cursor:
                try:
                    return super().execute(*given)
                except sqlite3.OperationalError as error:
                    tries.append(str(error))
                    first.communicate(timeout=30)  # it has its turn, and lets go
                    raise

        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with contextlib.closing(sqlite3.connect(path, timeout=1, factory=Watched)) as db:
            opens(db)
            assert db.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    assert tries == ["locking protocol"]


def the_clinics(folder: Path) -> None:
    database = Database.at(folder)
    database.migrate()
    database.close()


def the_outbox(folder: Path) -> None:
    Outbox(folder / "outbox.sqlite").close()


@pytest.mark.parametrize("opens", [the_clinics, the_outbox])
def test_of_many_processes_that_open_a_new_store_at_once_each_has_it(
    tmp_path: Path, opens: Callable[[Path], None]
) -> None:
    forked = multiprocessing.get_context("fork")
    all_there = forked.Barrier(AT_ONCE)

    def one_of_them() -> None:
        all_there.wait(60)
        opens(tmp_path)

    processes = [forked.Process(target=one_of_them) for _ in range(AT_ONCE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * AT_ONCE
