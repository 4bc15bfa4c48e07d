"""Failures of the clinic's database: whose fault one is, and the sentence that a person reads."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from errno import errorcode
from typing import NamedTuple

from sqlalchemy import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sync.clinic.store.errors import ClinicError

# What SQLite says where a file beside the database could not be made, or could not grow.
_VAGUE = ("disk I/O error", "unable to open database file")


class _Cause(NamedTuple):
    """How PostgreSQL (beginnings of an SQLSTATE) and SQLite (beginnings of its words) say it; what to do.

    What the driver says is only looked at, never shown: it quotes the URL, and with that a password.
    """

    sqlstates: tuple[str, ...]
    words: tuple[str, ...]
    mend: str


_FULL = _Cause(
    ("53100",),
    ("database or disk is full",),
    "its disk is full, and what is stored is safe; make room on it, then run the command again",
)
_READ_ONLY = _Cause(
    ("25006", "42501"),
    ("attempt to write a readonly database", "access permission denied"),
    "this user can read it at most; become one who may write it and its folder, or have its disk or server "
    "take writing",
)
_NO_CONNECTION_LEFT = _Cause(
    ("53300",),
    (),
    "it has no connection left for this command; run it again when others have ended, or raise "
    "max_connections in postgresql.conf, or the limit of this database or user",
)
_CAUSES = (
    _FULL,
    _NO_CONNECTION_LEFT,
    _READ_ONLY,
    _Cause(
        ("55P03", "40P01"),
        ("database is locked", "database table is locked", "locking protocol"),
        "it is locked by another process, such as a migration; run the command again when that has ended",
    ),
    _Cause(
        ("XX001", "XX002"),
        ("database disk image is malformed",),
        "it is damaged; stop the clinic's processes and bring back the newest copy of it",
    ),
    _Cause(
        (),
        ("file is not a database",),
        "its file is no database of SQLite, or a damaged one; have --db name the right file, or stop the "
        "clinic's processes and bring back the newest copy of it",
    ),
    _Cause((), _VAGUE, "correct the rights of it and its folder, or have its disk looked at"),
)
# What PostgreSQL's driver says where there is no connection, and no state says why; the first that is found.
_AWAY = {
    (
        "too many clients",
        "too many connections for ",
        "connection slots are reserved",
        "no more connections allowed",
    ): _NO_CONNECTION_LEFT.mend,
    (
        "Connection refused",
        "No such file",
    ): "nothing listens there; see that PostgreSQL runs, and correct host and port in --db",
    ("resolve host", "translate host"): "nobody knows its host; correct it in --db, where an @ in a password "
    "is written %40 and a / %2F",
    ("timeout", "timed out", "unreachable", "No route"): "its host does not answer; see that PostgreSQL runs "
    "there, and that the network leads to it",
    ("password", "authentication", "pg_hba.conf", 'role "'): "it does not let this user in; correct user and "
    "password in --db",
    ("invalid ", "unrecognized ", "requires a value"): "it does not take the port or an option that --db "
    "gives; correct it",
    ('database "',): "there is none of that name; correct the name in --db, or have the database made",
}
_NOT_IN = ("08", "28", "3D", "57P")
_ANY_AWAY = (
    "it is not reached; see that PostgreSQL runs and that --db names its host, database and user rightly"
)
_UNKNOWN = "run the command again, and if that does not help, 'dermakiosk --debug …' tells more"


def failed_itself(error: BaseException) -> bool:
    """Whether the database (or this machine) failed, and not what it was given.

    Then everything waits and is tried again, and no message is to blame. What is given can be out of range,
    against a constraint, or beyond a limit of the database (SQLSTATE 22, 23, 54).
    """
    if isinstance(error, DBAPIError):
        given = isinstance(error, DataError | IntegrityError) or _sqlstate(error.orig).startswith("54")
        return error.connection_invalidated or not given
    return isinstance(error, PoolTimeout | sqlite3.Error | OSError | MemoryError)


def what_failed(error: BaseException) -> str:
    """What an event calls that which failed of itself: the database, or this machine (a disk, its memory)."""
    of_database = isinstance(error, DBAPIError | PoolTimeout | sqlite3.Error)
    return "database_away" if of_database else "machine_failed"


def why_away(error: BaseException) -> str:
    """A word for what befell the database, or this machine: SQLITE_FULL, DiskFull, ENOSPC, …"""
    if isinstance(error, OSError) and (name := errorcode.get(error.errno or 0)):
        return name
    said = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(said, "sqlite_errorname", None) or type(said).__name__)


def out_of_room(error: DBAPIError, url: URL) -> bool:
    """Whether the database at `url` failed because its disk is full."""
    return _cause(error, url) is _FULL


def unusable(error: DBAPIError | PoolTimeout, url: URL) -> ClinicError:
    """What a person reads where the database at `url` failed a command: what, why, what to do."""
    if not isinstance(error, DBAPIError):
        return ClinicError("The clinic's database has too much to do: run the command again in a minute.")
    cause = _cause(error, url)
    mend = cause.mend if cause else _why_not_reached(error, url) or _UNKNOWN
    code = _code(error.orig)
    return ClinicError(f"The clinic's database cannot be used{f' ({code})' if code else ''}: {mend}.")


def lock_not_had(error: DBAPIError) -> bool:
    """Whether PostgreSQL gave up waiting for a lock that somebody else has."""
    return _sqlstate(error.orig) == "55P03"


def _cause(error: DBAPIError, url: URL) -> _Cause | None:
    said = str(error.orig)
    if not isinstance(error.orig, sqlite3.Error):
        state = _sqlstate(error.orig)
        return next((cause for cause in _CAUSES if state and state.startswith(cause.sqlstates)), None)
    if said.startswith(_VAGUE):
        folder = os.path.dirname(url.database or "") or "."
        with contextlib.suppress(OSError):  # its folder is gone: the sentence for what is vague says enough
            disk = os.statvfs(folder)
            if disk.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
                return _READ_ONLY
            if disk.f_bavail == 0:
                return _FULL
    return next((cause for cause in _CAUSES if said.startswith(cause.words)), None)


def _why_not_reached(error: DBAPIError, url: URL) -> str | None:
    """What to do where PostgreSQL did not answer (there is no state then), or did not let us in."""
    if url.get_backend_name() != "postgresql" or not (_sqlstate(error.orig) or "08").startswith(_NOT_IN):
        return None
    said = str(error.orig)
    return next((mend for words, mend in _AWAY.items() if any(word in said for word in words)), _ANY_AWAY)


def _code(error: BaseException | None) -> str | None:
    """What the documentation of the database lists this failure under."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None)


def _sqlstate(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", None) or "")
