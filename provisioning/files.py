"""Files that matter: written whole or not at all, with the mode they need from their first byte."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


# The path is not one that can be used so; everything else is a failure of the machine.
_WRONG_PATH = {
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EACCES: "choose another path, or become a user who may write there",
    errno.EPERM: "choose another path, or become a user who may write there",
    errno.EROFS: "choose a path on a disk that can be written",
    errno.ENOENT: "choose another path",
    errno.ENOTDIR: "choose a path on which every part above the last is a folder",
    errno.EISDIR: "choose a path where no folder is",
    errno.EEXIST: "choose a path where no file is",
    errno.ELOOP: "choose a path without links that lead in a circle",
}


class PathFailed(Exception):
    """A file or a folder cannot be read or written; `exit_status` says whether its path is at fault."""

    def __init__(self, error: OSError) -> None:
        advice = _WRONG_PATH.get(error.errno or 0)
        self.exit_status = 1 if advice is None else 2
        super().__init__(
            f"{error.filename} cannot be used ({error.strerror}): "
            f"{advice or 'see to the disk, then run this command again'}."
        )


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
    try:
        _replace(path, content, mode)
    except OSError as error:
        # Not the name of the temporary file, which nobody asked for.
        error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _replace(path: Path, content: bytes, mode: int) -> None:
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
