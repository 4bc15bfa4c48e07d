"""Durable files of the clinic: private, written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

# A disk that takes nothing: that is a failure, and no wrong path.
TAKES_NOTHING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` (mode 0600) in one step: after a power cut there is the old file or the new one.

    Raises OSError.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a file's name is on the disk only with its folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
