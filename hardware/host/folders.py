"""Folders: opened and made by a way on which no other account can lead elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

ANOTHERS_LINK = "another account's link on the way leads out of its folders"
_MOST_LINKS = 40  # as the kernel's own
_ROOT = 0
_THE_WAY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def opened_folder(folder: Path, make: bool = False) -> Iterator[tuple[int, Path]]:
    """`folder`, open to be searched, and its path without links; `make` it (mode 0700) with its parents.

    For root in the folder of an account that may have put anything there: a link on the way is followed where
    root or whoever calls this made it, or where it leads to a folder of its own maker, who gains nothing by
    it. Raises OSError, which names the part of the way that it is about.
    """
    handle, path = _walk(folder, make)
    try:
        yield handle, path
    finally:
        os.close(handle)


def make_folder(folder: Path) -> Path:
    """Make `folder` (mode 0700) with its parents, and return it. Raises OSError, see `opened_folder`."""
    with opened_folder(folder, make=True):
        return folder


def real_path(folder: Path) -> Path:
    """The path of `folder` without links, as `opened_folder` came to it. Raises OSError."""
    with opened_folder(folder) as (_, path):
        return path


def _walk(folder: Path, make: bool) -> tuple[int, Path]:
    here, at = os.open("/", _THE_WAY), Path("/")
    names = [*reversed(folder.absolute().parts)]
    # Of each link that is being followed: how many names are left behind its end, whose it is, and its path.
    links: list[tuple[int, int, Path]] = []
    followed = 0
    try:
        while names:
            name = names.pop()
            step = at.parent if name == ".." else at / name
            try:
                found = _open(name, here, make and not links)
                facts = os.fstat(found)
                if stat.S_ISLNK(facts.st_mode):
                    followed += 1
                    links.append((len(names), facts.st_uid, step))
                    names += reversed(_target(found, followed).parts)
                else:
                    os.close(here)
                    here, at = found, step
                    if not stat.S_ISDIR(facts.st_mode):
                        raise _error(errno.EEXIST if make else errno.ENOTDIR)
                while links and links[-1][0] == len(names):
                    _, owner, step = links.pop()
                    if owner not in (_ROOT, os.geteuid(), os.fstat(here).st_uid):
                        raise OSError(errno.ELOOP, ANOTHERS_LINK)
            except OSError as error:
                error.filename = str(step)
                raise
    except BaseException:
        os.close(here)
        raise
    return here, at


def _open(name: str, here: int, make: bool) -> int:
    try:
        return _open_as_it_is(name, here)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):  # another process made it at this moment
            os.mkdir(name, 0o700, dir_fd=here)
        return _open_as_it_is(name, here)


def _open_as_it_is(name: str, here: int) -> int:
    try:
        # Asked for as a folder, what is mounted at its first use is mounted.
        return os.open(name, _THE_WAY | os.O_DIRECTORY, dir_fd=here)
    except NotADirectoryError:
        return os.open(name, _THE_WAY, dir_fd=here)


def _target(link: int, followed: int) -> Path:
    """Where an open link leads; it is closed."""
    try:
        if followed > _MOST_LINKS:
            raise _error(errno.ELOOP)
        return Path(os.readlink("", dir_fd=link))
    finally:
        os.close(link)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
