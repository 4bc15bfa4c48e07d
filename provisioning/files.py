"""Files that matter: written whole or not at all, with the mode they need from their first byte."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


class FolderBusy(Exception):
    """Another process is changing a folder."""

    exit_status = 1


def make_folder(path: Path) -> Path:
    """The folder `path`; it, or any above it, is made with mode 0700 if it is new."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def write(path: Path, data: bytes | str, mode: int) -> None:
    """Replace `path` by `data` in one step; after a power loss there is the old file or the new one."""
    content = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    _sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that changes `folder`, as far as others ask too; raises FolderBusy."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise FolderBusy(f"Another command is changing {folder}: run this one again after it.") from error
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
