"""Tombstones: which scans were withdrawn, in a file that bringing back an old database does not turn back."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from sync.clinic.store.durable import sync_folder
from sync.clinic.store.errors import ClinicError
from sync.wire.regular_file import read_regular_file

LONGEST_LINE = 64 * 1024
# Millions of withdrawals: what is larger is something else.
_LARGEST = 1 << 30
# A writer holds the file for as long as one line takes to be on the disk.
LOCKED_S = 10.0
LOCKED_POLL_S = 0.02


class TombstonesUnusable(ClinicError):
    """The file of tombstones cannot be written or read now."""


class Tombstone(BaseModel):
    """What stays of a withdrawn scan: ids, time, reason.

    `message_id` is the withdrawal itself, `messages` are those that carried the scan's result. An `unseen`
    one is of a scan that never came, and its withdrawal waits in quarantine: another line follows once it is
    acted on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kiosk: UUID
    scan: UUID
    message_id: UUID
    messages: tuple[UUID, ...]
    at: AwareDatetime
    reason: str
    unseen: bool = False


class Tombstones:
    """The file `path`: a line for each withdrawal, `<SHA-256 of the rest> <JSON>`, only ever added to.

    The sum tells a damaged line from a good one. It is no signature: whoever may write this file may write
    the database too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, tombstone: Tombstone) -> None:
        """Add one line; on return it is on the disk. Raises TombstonesUnusable.

        One that stands among the last is written over: what came after it failed, and is done once more.
        """
        text = tombstone.model_dump_json(exclude_defaults=True).encode()
        line = b"%s %s\n" % (hashlib.sha256(text).hexdigest().encode(), text)
        try:
            with self._locked() as file:
                # What follows the last whole line was being written when the power went: nothing rests on it.
                size = os.fstat(file).st_size
                begin = max(0, size - LONGEST_LINE)
                last = os.pread(file, size - begin, begin)
                whole = last.rfind(b"\n") + 1
                os.ftruncate(file, begin + whole)
                found = last.find(line)
                place = begin + (whole if found < 0 else found)
                written = 0
                while written < len(line):  # a disk that fills up takes a part, and says so only of the rest
                    written += os.pwrite(file, line[written:], place + written)
                os.fsync(file)
            sync_folder(self.path.parent)
        except BlockingIOError as error:
            raise TombstonesUnusable(
                f"Another process has held {self.path} for {LOCKED_S:g} s, and no scan is erased before"
                " it is named there: end that process ('fuser' names it)."
            ) from error
        except OSError as error:
            raise TombstonesUnusable(
                f"{self.path} cannot be written ({error.strerror}), and no scan is erased before it is named"
                " there: make room, or have it be a file that this user may write."
            ) from error

    def read(self) -> list[Tombstone]:
        """Every tombstone, oldest first. Raises TombstonesUnusable where a line is damaged."""
        try:
            data = read_regular_file(self.path, _LARGEST)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TombstonesUnusable(
                f"{self.path} cannot be read ({error.strerror}), and without it a withdrawn scan could come"
                " back: have it be a file that this user may read."
            ) from error
        *lines, _torn = data.split(b"\n")
        return [self._parse(number, line) for number, line in enumerate(lines, 1)]

    def _parse(self, number: int, line: bytes) -> Tombstone:
        found, _, text = line.partition(b" ")
        try:
            if found.decode() != hashlib.sha256(text).hexdigest():
                raise ValueError("the sum is another")
            return Tombstone.model_validate_json(text)
        except (ValueError, ValidationError) as error:
            raise TombstonesUnusable(
                f"Line {number} of {self.path} is damaged, and a withdrawn scan could come back: bring back"
                " the newest copy of this file."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, made if it is not there, for one writer at a time."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(file, time.monotonic() + LOCKED_S)
            yield file
        finally:
            os.close(file)


def _lock(file: int, deadline: float) -> None:
    """Raises BlockingIOError once `deadline` is over."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(LOCKED_POLL_S)
