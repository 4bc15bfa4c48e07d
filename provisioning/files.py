"""The files of provisioning: what is written where, why it fails, who may change a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardware.host.durable import write_whole as write
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder, opened_folder, real_path
from hardware.host.own_file import PRIVATE, open_own
from hardware.host.regular_file import read_regular_file, read_regular_text

__all__ = [
    "PRIVATE",
    "PUBLIC",
    "FolderBusy",
    "PathFailed",
    "locked",
    "make_folder",
    "opened",
    "owner_of",
    "read",
    "read_own",
    "read_regular_file",
    "read_regular_text",
    "real_path",
    "write",
]

PUBLIC = 0o644

# What `opened` says of anything but a file or a folder by that very name.
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)

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
    errno.ELOOP: "choose a path without such links",
    errno.EINVAL: "choose another path",
    errno.EMLINK: "move it aside",
    errno.EFBIG: "move it aside",
}


class PathFailed(PlainError):
    """A file or a folder cannot be read or written; `exit_status` says whether its path is at fault."""

    def __init__(self, error: OSError) -> None:
        advice = _WRONG_PATH.get(error.errno or 0)
        self.exit_status = 1 if advice is None else 2
        super().__init__(
            f"{error.filename} cannot be used ({error.strerror}): "
            f"{advice or 'see to the disk, then run this command again'}."
        )


class FolderBusy(PlainError):
    """Another process is changing a folder."""


@contextmanager
def opened(path: Path | str, flags: int = 0, dir_fd: int | None = None) -> Iterator[int]:
    """What is at `path` itself, open for reading: no link is followed, no pipe waited for. Raises OSError.

    For root in the folder of an account that may have put anything there.
    """
    flags |= os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield handle
    finally:
        os.close(handle)


def read(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of the file at `path`, see `opened`; None where no file is. Raises OSError."""
    try:
        with opened(path) as handle:
            return os.read(handle, limit) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise


def read_own(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of the file at `path`, see `open_own`; None where none is. Raises OSError."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        return None


def owner_of(folder: Path) -> tuple[int, int] | None:
    """Whose `folder` is, for what root puts there: a service reads only its own. None where root does not."""
    if os.geteuid() != 0:
        return None
    with opened_folder(folder) as (handle, _):
        facts = os.fstat(handle)
    return facts.st_uid, facts.st_gid


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
