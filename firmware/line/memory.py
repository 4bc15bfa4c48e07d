"""Pictures handed between processes as sealed memory, never as files."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable

from firmware.line.link import LinkError
from hardware.host.memory import in_memory

# From <linux/fcntl.h>; Python names them from 3.9 on where the C library does.
_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
_GET_SEALS = getattr(fcntl, "F_GET_SEALS", 1034)
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_WRITE = 1, 2, 4, 8
_ALL_SEALS = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_WRITE


def publish(name: str, blocks: Iterable[bytes | memoryview]) -> int:
    """A new memfd that holds `blocks` one after the other and can no longer change; the caller closes it."""
    fd = in_memory(name, blocks, os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, _ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def adopt(fd: int) -> memoryview:
    """The memory behind `fd`, read-only, mapped and not copied; closes `fd`. Raises LinkError.

    Memory that its sender could still shrink or change is refused: reading it could kill or mislead us.
    """
    try:
        try:
            seals = fcntl.fcntl(fd, _GET_SEALS)
        except OSError as error:
            raise LinkError("What came instead of a picture is not memory.") from error
        if seals & _ALL_SEALS != _ALL_SEALS:
            raise LinkError("The picture that came could still be changed by its sender.")
        size = os.fstat(fd).st_size
        if size == 0:
            return memoryview(b"")
        # Private: before Linux 6.7 sealed memory refuses a shared mapping, even a read-only one.
        return memoryview(mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ))
    finally:
        os.close(fd)
