"""Memory with a file's handle: what has no name on any disk, and ends with the last process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterable


def in_memory(name: str, blocks: Iterable[bytes | memoryview] = (), flags: int = 0) -> int:
    """A handle of memory with `blocks` one after the other, to be read from its begin and to be closed."""
    handle = os.memfd_create(name, os.MFD_CLOEXEC | flags)
    try:
        for block in blocks:
            rest = memoryview(block).cast("B")
            while rest:
                rest = rest[os.write(handle, rest) :]
        os.lseek(handle, 0, os.SEEK_SET)
    except BaseException:
        os.close(handle)
        raise
    return handle
