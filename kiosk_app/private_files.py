"""Files that only this process's user may read, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def make_folder(folder: Path) -> Path:
    """Make `folder` (mode 0700) with its parents, and return it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a rename is not on disk before its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, *, wipe_old: bool = False) -> None:
    """Write `data` to `path` (mode 0600): after a crash the file is the old one or the new one, whole.

    `wipe_old` overwrites the replaced file's own blocks once the new one is durable. Flash storage may
    still keep older copies of a block; only a key store in hardware can promise more.
    """
    temporary = path.with_name(f".{path.name}.new")
    old = os.open(path, os.O_RDWR) if wipe_old and path.exists() else None
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        if old is not None:
            os.pwrite(old, b"\0" * os.fstat(old).st_size, 0)
            os.fsync(old)
    finally:
        if old is not None:
            os.close(old)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the advisory lock file `path`, so that the daemon and a command do not change the same keys."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
