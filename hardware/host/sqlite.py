"""SQLite as the kiosk's stores use it: transactions, schema steps, and a failure's first cause in words."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hardware.host.folders import ANOTHERS_LINK, opened_folder
from hardware.host.own_file import PRIVATE, check_own, no_file

_FULL = "the disk is full: make room on it, then it goes on by itself"
_HELD = "database is locked"
_HELD_BY_A_FIRST, _TRIES = "locking protocol", 3
MALFORMED = "database disk image is malformed"  # what a store says, too, that holds what it cannot
_DAMAGED = "the file is damaged: move it aside"
_FULL_DISK, _NOT_OPENED = "database or disk is full", "unable to open database file"
# By what SQLite says, for Python 3.10 gives no code of it.
_CAUSES = {
    _FULL_DISK: _FULL,
    MALFORMED: _DAMAGED,
    "malformed database schema": _DAMAGED,
    "malformed JSON": _DAMAGED,
    "Could not decode to UTF-8": _DAMAGED,
    "file is not a database": _DAMAGED,
    "disk I/O error": "the disk reports an error: check its health",
    **dict.fromkeys((_HELD, _HELD_BY_A_FIRST), "another process holds it: try again in a moment"),
    "attempt to write a readonly database": "it cannot be written: give the file to this user",
    ANOTHERS_LINK: f"{ANOTHERS_LINK}: name the folder itself",
    _NOT_OPENED: "it cannot be opened: check its folder and whose it is",
}
_HIDES_IT = ("disk I/O error", _NOT_OPENED)


class LaterVersion(sqlite3.DatabaseError):
    """A store is of a version that this software does not know; what to do stands in the words."""


class EarlierVersion(sqlite3.DatabaseError):
    """A store is of a version that this software would bring up, and it is only to be read."""


class _Store(sqlite3.Connection):
    """A connection that says it also of a garbled schema, which SQLite quotes, that the file is damaged."""

    def execute(self, *statement: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*statement)
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError(MALFORMED) from error


def connect(
    path: Path,
    wait_s: float,
    *,
    make: bool = False,
    read_only: bool = False,
    check_same_thread: bool = True,
) -> sqlite3.Connection:
    """The store in the file `path` itself, with isolation_level None; `make` it (0600) where none is.

    Root opens it in the folder of an account that may have put a link there to any other file: none is
    followed, see `own_file`. Raises sqlite3.Error, for `cause`.
    """
    try:
        with opened_folder(path.parent) as (folder, real):
            if make:
                with contextlib.suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    os.close(os.open(path.name, flags, PRIVATE, dir_fd=folder))
        itself = real / path.name
        # It is not opened for that: closing it would let go of the locks that this process has on it.
        check_own(itself)
    except OSError as error:
        said = ANOTHERS_LINK if error.strerror == ANOTHERS_LINK else _NOT_OPENED
        raise sqlite3.OperationalError(_FULL_DISK if is_full(error, path) else said) from error
    db = sqlite3.connect(
        f"{itself.as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=wait_s,
        isolation_level=None,
        check_same_thread=check_same_thread,
        factory=_Store,
    )
    try:
        # SQLite follows links: one that came there since, to a file that was there, has changed nothing yet.
        db.text_factory = bytes
        ((_, _, opened),) = db.execute("PRAGMA database_list")
        db.text_factory = str
        if opened != os.fsencode(itself):
            raise sqlite3.OperationalError(_NOT_OPENED)
    except BaseException:
        db.close()
        raise
    return db


def execute_first(db: sqlite3.Connection, statement: str) -> None:
    """Execute the first statement of a connection that reads the store. Raises sqlite3.Error.

    Whoever opens a store that nobody has open makes the index of its log, and the next one waits for that: by
    SQLite's own count for 10 s, whatever it was told to wait, which a process that gets no turn can take. So
    it is tried again, a few times.
    """
    for left in reversed(range(_TRIES)):
        try:
            db.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if not _is_held_by_a_first(error) or not left:
                raise


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One durable change, or none; `db` has isolation_level None. What is raised is the first cause."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled it back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def empty_log(db: sqlite3.Connection) -> bool:
    """Empty the write-ahead log, which may hold old pages; False where another one reads or writes now.

    That is not waited for: nobody could write meanwhile. Raises sqlite3.Error.
    """
    ((patience_ms,),) = db.execute("PRAGMA busy_timeout").fetchall()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        ((kept_from_it, *_),) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")
    return not kept_from_it


def bring_up(
    db: sqlite3.Connection, steps: Sequence[str], then: Callable[[sqlite3.Connection], object] | None = None
) -> None:
    """Bring the schema of an open store up to this software: `steps[n]` leads from version n to n + 1.

    Where it takes a step, `then` is done with it or not at all.

    A store of a later version raises LaterVersion. Steps are only ever added; none has a semicolon
    within a statement.
    """
    if _version(db, steps) == len(steps):
        return
    with transaction(db):
        for step in steps[_version(db, steps) :]:
            for statement in step.split(";"):
                db.execute(statement)
        if then is not None:
            then(db)
        db.execute(f"PRAGMA user_version = {len(steps)}")


def require_version(db: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Raises EarlierVersion, LaterVersion where a store that is only read is not of this software's version.

    One of an earlier version is brought up by what writes to it, with `bring_up`.
    """
    found = _version(db, steps)
    if found < len(steps):
        raise EarlierVersion(f"its schema is {found}, this software brings it up to {len(steps)}")


def _version(db: sqlite3.Connection, steps: Sequence[str]) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= found <= len(steps):
        raise LaterVersion(
            f"its schema is {found}, this software knows {len(steps)}: use the version that made it"
        )
    return found


def is_full(error: BaseException, store: Path) -> bool:
    """Whether `error` came about since the disk of the file `store` has no room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if str(error).startswith(_HIDES_IT):
        # The file beside the store could not grow: SQLite says only that something failed.
        with contextlib.suppress(OSError):
            return os.statvfs(store.parent).f_bavail == 0
    return _CAUSES.get(str(error)) == _FULL


def is_damaged(error: BaseException) -> bool:
    """Whether what the store holds cannot be read any more, whatever holds it."""
    return _in_words(error) == _DAMAGED


def is_held(error: BaseException) -> bool:
    """Whether another process held the store for longer than `error`'s caller waited."""
    return str(error) in (_HELD, _HELD_BY_A_FIRST)


def cause(error: BaseException, store: Path) -> str:
    """What is wrong with `store` and what to do, for the middle of a sentence.

    `error` is an sqlite3.Error or an OSError.
    """
    with contextlib.suppress(OSError):  # it is not there, or not for this user: that has words of its own
        what = no_file(store.lstat().st_mode)
        if what is not None:
            return f"{what}: move it aside"
    if is_full(error, store):
        return _FULL
    if isinstance(error, PermissionError):
        return "this user may not write it: run this as the user whose it is"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return _in_words(error) or str(error)


def _in_words(error: BaseException) -> str | None:
    said = str(error)
    return next((words for start, words in _CAUSES.items() if said.startswith(start)), None)


def _is_held_by_a_first(error: sqlite3.Error) -> bool:
    return str(error) == _HELD_BY_A_FIRST
