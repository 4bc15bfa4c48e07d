"""Secrecy of memory: what a process holds is in no core file, and no other process of its user reads it."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def keep_memory_to_ourselves() -> None:
    """For a process with keys or pictures, before it has any.

    It leaves no core file, also where the kernel pipes those to a collector, and nobody but root can trace
    it or read its memory. Children begin anew, without this.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
