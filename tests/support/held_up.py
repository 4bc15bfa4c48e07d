"""How long this process, or one that it has started, was kept from running though it could have run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

# Columns of /proc/stat: whoever waits for a disk leaves its processor to others.
_IDLE, _STEAL, _NS = (4, 5), (8,), 1e9


class HeldUp:
    """The waits from when this is made.

    Linux counts for each thread how long it waited for a processor (/proc/PID/task/TID/schedstat), and for
    each processor how long the machine under this one kept it (steal). A kernel that counts neither holds
    nobody up, for all that is known here. A process that has ended meanwhile takes its count with it: it may
    have waited for as long as all processors together were at work.
    """

    def __init__(self) -> None:
        self._before = {**_waits(os.getpid()), **_of_processors(_STEAL)}
        self._idle, self._since = _of_processors(_IDLE), time.monotonic()

    def longest_s(self) -> float:
        """How long the one thread waited that waited longest, or a processor was kept; in seconds."""
        now = {**_waits(os.getpid()), **_of_processors(_STEAL)}
        longest = max((waited - self._before.get(who, 0.0) for who, waited in now.items()), default=0.0)
        return max(longest, self._all_at_work_s())

    def _all_at_work_s(self) -> float:
        """How long at least none of the processors was idle."""
        passed = time.monotonic() - self._since
        idle = sum(after - self._idle.get(who, 0.0) for who, after in _of_processors(_IDLE).items())
        return max(0.0, passed - idle)


def _waits(pid: int) -> dict[str, float]:
    """How long each thread of a process, and of what it has started, has waited so far; in seconds."""
    found = {}
    for process in _with_children(pid):
        with contextlib.suppress(OSError):
            for thread in Path("/proc", str(process), "task").iterdir():
                with contextlib.suppress(OSError):
                    found[str(thread)] = int((thread / "schedstat").read_text().split()[1]) / _NS
    return found


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path("/proc", str(pid), "task").iterdir():
            with contextlib.suppress(OSError):
                for child in (thread / "children").read_text().split():
                    yield from _with_children(int(child))


def _of_processors(which: tuple[int, ...]) -> dict[str, float]:
    """A count of /proc/stat, in seconds, of each processor."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return {
        of[0]: sum(int(of[each]) for each in which) * tick_s
        for of in lines
        if of[0].startswith("cpu") and of[0] != "cpu"
    }
