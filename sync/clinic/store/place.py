"""Where the clinic's database is: a file in the state folder, or what `--db` names."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sync.clinic.store.durable import TAKES_NOTHING
from sync.clinic.store.errors import ClinicUsageError

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
FORMS = (
    "write sqlite:////path/clinic.sqlite or postgresql://user:password@host/name, and in a password %40 for "
    "an @ and %2F for a /"
)
ODD_OPTION = "--db has an option after its ? that the database does not take: correct it or leave it out."


def place_of(state: Path, text: str | None) -> URL:
    """Where the database is; nothing is looked at or made. Of a URL that is wrong nothing is shown."""
    if not text:
        return URL.create("sqlite", database=os.path.abspath(state / "clinic.sqlite"))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ClinicUsageError(f"--db is not a database URL: {FORMS}.") from error
    if url.drivername not in _DRIVERS:
        raise ClinicUsageError(
            f"--db names another database or driver than SQLite or PostgreSQL with their own: {FORMS}."
        )
    of_a_server = (url.host, url.username, url.password, url.port)
    if url.get_backend_name() == "sqlite" and (any(of_a_server) or url.database in (None, "", ":memory:")):
        raise ClinicUsageError(f"--db names no file for SQLite: {FORMS}.")
    # What is written like a server's is no path: it would be shown as one, with a password in it.
    if url.get_backend_name() == "sqlite" and (url.query or re.search(":.*@", url.database or "")):
        raise ClinicUsageError(ODD_OPTION if url.query else f"--db names no file for SQLite: {FORMS}.")
    # What follows an unescaped @ is part of the password.
    if url.get_backend_name() == "postgresql" and "@" in f"{url.host}{url.database}":
        raise ClinicUsageError(f"--db has more than one @: {FORMS}.")
    return url.set(drivername=_DRIVERS[url.drivername])


def files_of(place: URL) -> list[Path]:
    """The database's file, and what SQLite keeps beside it while it is used; none of a server's."""
    if place.get_backend_name() != "sqlite":
        return []
    file = os.path.realpath(place.database or "")
    return [Path(f"{file}{ending}") for ending in ("", "-wal", "-shm", "-journal")]


def require(path: Path, command: str) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClinicUsageError(
            f"There is no clinic at {path}: correct the path, or make a clinic there with '{command}'."
        ) from error
    except OSError as error:
        raise ClinicUsageError(
            f"{path} cannot be opened ({error.strerror}): correct the path, or become a user who may read it."
        ) from error


def refuse_what_is_no_file(path: Path) -> None:
    """SQLite would say of a folder that it cannot be opened, and of a pipe or a device less than that."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # it is not there yet, or whoever opens it says why not
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ClinicUsageError(
            f"{path} is {what}, and the clinic's database is a file: name one with --db, such as "
            "sqlite:////path/clinic.sqlite."
        )


def make_state(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise
        raise ClinicUsageError(
            f"The clinic's folder {state} cannot be made ({error.strerror}): name another --state."
        ) from error


def make_private(path: str | None) -> None:
    """Make the file before SQLite does, readable by nobody else; SQLite gives its log the same mode."""
    try:
        os.close(os.open(path or "", os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise
        raise ClinicUsageError(
            f"The clinic's database {path or 'without a path'} cannot be made ({error.strerror}): "
            "name a file in a folder that you may write to."
        ) from error
