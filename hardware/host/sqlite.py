"""SQLite as the kiosk's stores use it: transactions, and a failure's first cause in words."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_FULL = "the disk is full: make room on it, then it goes on by itself"
# By what SQLite says, for Python 3.10 gives no code of it.
_CAUSES = {
    "database or disk is full": _FULL,
    "database disk image is malformed": "the file is damaged: move it aside",
    "file is not a database": "the file is damaged: move it aside",
    "disk I/O error": "the disk reports an error: check its health",
    "database is locked": "another process holds it: try again in a moment",
    "attempt to write a readonly database": "it cannot be written: give the file to this user",
    "unable to open database file": "it cannot be opened: check its folder and whose it is",
}
_HIDES_IT = ("disk I/O error", "unable to open database file")


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


def is_full(error: BaseException, store: Path) -> bool:
    """Whether `error` came about since the disk of the file `store` has no room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if str(error).startswith(_HIDES_IT):
        # The file beside the store could not grow: SQLite says only that something failed.
        with contextlib.suppress(OSError):
            return os.statvfs(store.parent).f_bavail == 0
    return _CAUSES.get(str(error)) == _FULL


def cause(error: BaseException, store: Path) -> str:
    """What is wrong with `store` and what to do, for the middle of a sentence.

    `error` is an sqlite3.Error or an OSError.
    """
    if is_full(error, store):
        return _FULL
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said = str(error)
    return next((words for start, words in _CAUSES.items() if said.startswith(start)), said)
