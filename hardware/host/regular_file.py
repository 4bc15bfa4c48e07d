"""The bytes of a regular file, within a bound: never a pipe, a device or a socket that would hold us up."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# More than any key, statement or note of a state folder.
SMALL_BYTES = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NoRegularFile(OSError):
    """Something else stands where a file has to be: `kind` says what."""

    def __init__(self, path: Path, mode: int) -> None:
        self.kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        super().__init__(errno.EINVAL, f"it is {self.kind}, where a file has to be", str(path))


class FileTooBig(OSError):
    """The file holds more than what is read of one."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(errno.EFBIG, f"it has more than {limit} bytes, so it is something else", str(path))


def read_regular_file(path: Path, limit: int = SMALL_BYTES) -> bytes:
    """What the regular file at `path`, or at what it links to, holds: `limit` bytes at most.

    Raises OSError: NoRegularFile, FileTooBig among them. The file is opened without waiting and looked at
    before it is read: a name can mean another file by then.
    """
    # Some drivers act when they are opened: what is no file is told by its name where that is possible.
    _require_file(path, os.stat(path).st_mode)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _require_file(path, os.fstat(handle).st_mode)
        # Not by its size alone: a file may grow meanwhile, and those in /proc say that they are empty.
        data = b"".join(_pieces(file, limit + 1))
    if len(data) > limit:
        raise FileTooBig(path, limit)
    return data


def read_regular_text(path: Path, limit: int = SMALL_BYTES) -> str:
    """`read_regular_file` as UTF-8. Raises UnicodeDecodeError besides."""
    return read_regular_file(path, limit).decode()


def _pieces(file: BinaryIO, most: int) -> Iterator[bytes]:
    """What the file holds, so many bytes at most; asked for at once they take the memory of so many."""
    while most > 0 and (piece := file.read(min(most, SMALL_BYTES))):
        yield piece
        most -= len(piece)


def _require_file(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NoRegularFile(path, mode)
