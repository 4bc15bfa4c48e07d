"""Durable files of the clinic: private, written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from pathlib import Path

from sync.clinic.store.errors import ClinicUsageError

PRIVATE = 0o600
# Of a name's beginning: with what is added to it none is longer than the 255 bytes of a longest name.
_BEGINNING_BYTES = 200
# A disk that takes nothing: that is a failure, and no wrong path.
TAKES_NOTHING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def write_whole(path: Path, data: bytes, mode: int = PRIVATE, owner: tuple[int, int] | None = None) -> None:
    """Replace `path` in one step: after a power cut there is the old file or the new one.

    It belongs to `owner`, a user id and a group id, else to whoever calls this. Raises OSError.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_whole_in(folder, path.name, data, mode, owner)
    finally:
        os.close(folder)


def write_whole_in(
    folder: int, name: str, data: bytes, mode: int = PRIVATE, owner: tuple[int, int] | None = None
) -> None:
    """The same in the folder of this handle, whatever is at its path by now."""
    beginning = name.encode(errors="ignore")[:_BEGINNING_BYTES].decode(errors="ignore")
    half = f".{beginning}.{secrets.token_hex(8)}"
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(half, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(half, dir_fd=folder)
        raise
    os.fsync(folder)


def require_writable(folder: Path, option: str) -> None:
    """Make `folder` (mode 0700) if it is not there, and see that a file can be made in it.

    Raises ClinicUsageError, which names the `option` that named the folder, and OSError where its disk takes
    nothing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            sync_folder(folder)
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise
        raise ClinicUsageError(
            f"No file can be made in {folder}, which {option} names ({error.strerror}): name a folder that "
            "you may write to."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a file's name is on the disk only with its folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
