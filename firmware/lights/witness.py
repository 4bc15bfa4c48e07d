"""Witness: what the dose ledger last held, as a digest in a file beside it. By it an older copy is known."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path

from hardware.host.durable import write_whole
from hardware.host.own_file import open_own

_LONGEST_BYTES = 1024


class Witness:
    """The file at `path`. It is there from the first ledger on; that of an earlier version is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def said(self) -> str | None:
        """What was said last; None where there is no such file. Raises OSError."""
        try:
            handle = open_own(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.read(handle, _LONGEST_BYTES).decode("ascii", errors="replace")
        finally:
            os.close(handle)

    def say(self, held: str) -> None:
        """On return it is on the disk. Raises OSError."""
        write_whole(self._path, held)

    def tidy(self) -> None:
        """Delete what a process that ended in a `say` left beside it."""
        for left in self._path.parent.glob(f".{self._path.name}.{'[0-9a-f]' * 8}"):
            with contextlib.suppress(OSError):
                left.unlink()


def digest(database: sqlite3.Connection) -> str:
    """SHA-256 of every row of every table, whichever they are, in the order in which they came."""
    names = database.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    ).fetchall()
    found = hashlib.sha256()
    for (name,) in names:
        found.update(f"{name}\n".encode())
        for row in database.execute(f'SELECT * FROM "{name}" ORDER BY rowid'):
            found.update(f"{row!r}\n".encode())
    return found.hexdigest()
