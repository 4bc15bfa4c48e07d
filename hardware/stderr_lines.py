"""Standard error, kept free of the lines that libraries write to it from C past every logging switch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hardware.host.memory import in_memory

_lock = threading.Lock()


@contextmanager
def without_lines(unwanted: Callable[[bytes], bool]) -> Iterator[None]:
    """Keeps the lines that are `unwanted` off standard error while the body runs.

    Whatever else is written meanwhile is passed on when the body ends.
    """
    with _lock:
        try:
            standard_error = os.dup(2)
        except OSError:
            yield
            return
        held = in_memory("stderr")
        os.dup2(held, 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            with os.fdopen(held, "rb") as text:
                text.seek(0)
                for line in text:
                    if not unwanted(line):
                        os.write(2, line)
            os.close(standard_error)
