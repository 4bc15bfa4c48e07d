"""Where a run of the tests writes: in memory, where no disk is waited for, and gone with the run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

MEMORY, ROOM_BYTES = Path("/dev/shm"), 16 * 2**30
PREFIX = "dkt-"  # short: a socket's path has its limit
_MODE = 0o1777  # as any folder for temporary files has: tests run commands as other accounts
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def has_room() -> bool:
    """Whether all that the tests write fits into memory, and what they write there to be run can be."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) >= ROOM_BYTES


class OwnFolder:
    """A new folder in `memory`, which no other run removes for as long as this process lives."""

    def __init__(self, memory: Path = MEMORY) -> None:
        unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=memory))
        self._held = os.open(unnamed, _FOLDER)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.chmod(_MODE)
        self.path = unnamed.rename(memory / unnamed.name[1:])  # only now another one looks at it

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def remove_what_killed_runs_left(memory: Path = MEMORY) -> None:
    """It would stay in memory until the next boot. What a process held the kernel lets go of when it dies."""
    for folder in memory.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _opened(folder) as handle:  # it is gone by now, or another's
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_IMODE(os.fstat(handle).st_mode) == _MODE:  # else somebody's who has the name by chance
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, _FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


def shared_memory() -> set[Path]:
    """The files of shared memory that are this user's."""
    return {file for file in Path("/dev/shm").iterdir() if is_mine(file)}


def is_mine(file: Path) -> bool:
    """No folder is: that is where another run of the tests writes."""
    try:
        facts = file.lstat()
        return stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
    except FileNotFoundError:  # another test's, which has ended
        return False
