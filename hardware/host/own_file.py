"""A regular file, opened by its own name: no link, no pipe, and no other account's."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from hardware.host.folders import opened_folder

PRIVATE = 0o600
_ITSELF = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_own(path: Path, flags: int) -> int:
    """The regular file at `path`, open with `flags` of os.open but O_TRUNC; O_CREAT makes it private (0600).

    For root in the folder of an account that may have put anything there: no link is followed, no pipe waited
    for, no file taken that has another name besides and another owner than the folder. Raises OSError, which
    names `path` and says what stands there instead.
    """
    try:
        with opened_folder(path.parent) as (folder, _):
            return open_own_in(folder, path.name, flags)
    except OSError as error:
        error.filename = str(path)
        raise


def open_own_in(folder: int, name: str, flags: int) -> int:
    """`open_own` of the file `name` in an open folder. Raises OSError."""
    try:
        handle = os.open(name, flags | _ITSELF, PRIVATE, dir_fd=folder)
    except OSError:
        with contextlib.suppress(FileNotFoundError):  # what keeps it from being made is the cause
            _check(os.stat(name, dir_fd=folder, follow_symlinks=False), folder)
        raise
    try:
        _check(os.fstat(handle), folder)
    except OSError:
        os.close(handle)
        raise
    return handle


def check_own(path: Path) -> None:
    """Raises OSError where `open_own` would not take what is at `path`; it is not opened."""
    with opened_folder(path.parent) as (folder, _):
        _check(os.stat(path.name, dir_fd=folder, follow_symlinks=False), folder)


def no_file(mode: int) -> str | None:
    """What stands where a file has to be, for the middle of a sentence; None for a file."""
    if stat.S_ISREG(mode):
        return None
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"))
    what = next((words for is_one, words in kinds if is_one(mode)), "a pipe, a socket or a device")
    return f"it is {what}, where a file has to be"


def _check(found: os.stat_result, folder: int) -> None:
    what = no_file(found.st_mode)
    if what is not None:
        raise OSError(errno.ELOOP if stat.S_ISLNK(found.st_mode) else errno.EINVAL, what)
    if found.st_nlink > 1 and found.st_uid != os.fstat(folder).st_uid:
        raise OSError(errno.EMLINK, "it is another account's file, which was linked there")
