"""The reserve: room on the disk that is kept for deletions, which write before they give anything free."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hardware.host.durable import sync_folder
from hardware.host.errors import PlainError
from hardware.host.own_file import open_own

RESERVE_MB = 16  # at least
# A deletion wraps the key of every kept scan anew, and SQLite logs each row of it whole, with its Findings.
# One that ended half-way is brought to its end before.
TIMES_THE_RECORDS = 3
_MEBIBYTE = 1 << 20
T = TypeVar("T")


class DiskFull(PlainError):
    """There is no room on the disk for what should be written."""


class Reserve:
    """A file `path` that holds nothing, of RESERVE_MB or more as the file `records` grows."""

    def __init__(self, path: Path, records: Path) -> None:
        self._path, self._records = path, records

    def fill(self) -> bool:
        """Take the room, where there is as much again beside it; whether it is there now."""
        records = self._records.stat().st_size if self._records.exists() else 0
        size = max(RESERVE_MB * _MEBIBYTE, TIMES_THE_RECORDS * records)
        there = self._path.lstat().st_size if os.path.lexists(self._path) else 0
        if there >= size:
            return True
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < 2 * (size - there):
            return False
        try:
            handle = open_own(self._path, os.O_WRONLY | os.O_CREAT)
            try:
                os.posix_fallocate(handle, 0, size)
            finally:
                os.close(handle)
        except OSError:  # somebody else took the room: another time
            self._path.unlink(missing_ok=True)
            return False
        return True

    def lend(self, step: Callable[[], T]) -> T:
        """What `step` gives. Where the disk is full it is taken once more, with the room of the reserve.

        Another process may have lent it at this moment: then there is room as well.
        """
        try:
            return step()
        except DiskFull:
            self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)
        return step()
