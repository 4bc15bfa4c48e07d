"""Stopping a daemon on SIGTERM and Ctrl-C, without a lock that it may hold itself."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Callable


def on_stop(end: Callable[[], object]) -> None:
    """Have SIGTERM and SIGINT call `end`, in another thread. Call from the main thread.

    A handler runs in the main thread between any two of its lines, also where `Event.wait` holds the event's
    lock: an `Event.set` right there would wait for itself for ever, and the daemon would not end.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _thread.start_new_thread(end, ()))
