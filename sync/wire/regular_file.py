"""The bytes of a small regular file: what else stands in its place is not waited for, nor fills memory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# More than any key, certificate or entry.
SMALL_BYTES = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def read_regular_file(path: Path, limit: int = SMALL_BYTES) -> bytes:
    """What the file at `path`, or at what it links to, holds: `limit` bytes at most.

    Raises OSError, which says what stands there instead of a file, or that it is larger.
    """
    # Some drivers act when they are opened: what is no file is told by its name where that is possible.
    _require_file(path, os.stat(path).st_mode)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        _require_file(path, os.fstat(file.fileno()).st_mode)
        data = b"".join(_pieces(file, limit + 1))
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes, so it is something else", str(path))
    return data


def _pieces(file: BinaryIO, most: int) -> Iterator[bytes]:
    """What the file holds, so many bytes at most; asked for at once they take the memory of so many."""
    while most > 0 and (piece := file.read(min(most, SMALL_BYTES))):
        yield piece
        most -= len(piece)


def _require_file(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}, where a file has to be", str(path))
