"""The bytes of a regular file, within a bound: never a pipe, a device or a socket that would hold us up."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hardware.picture_file.unreadable import TOO_BIG, Unreadable

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def read_regular_file(path: Path, limit: int) -> bytes:
    """What the regular file at `path`, or at what it links to, holds. Raises Unreadable, OSError.

    The file is opened without waiting and looked at before it is read: a name can mean another file by then.
    """
    # Some drivers act when they are opened: what is no file is told by its name where that is possible.
    _require_file(os.stat(path).st_mode)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _require_file(os.fstat(handle).st_mode)
        # Not by its size alone: a file may grow meanwhile, and those in /proc say that they are empty.
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unreadable(TOO_BIG, "too_big")
    return data


def _require_file(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise Unreadable(f"This is {kind}, and only a regular file is read: name one.", "not_a_file")
