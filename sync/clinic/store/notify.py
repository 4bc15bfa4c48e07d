"""Notifier of the clinic's daemons: tells systemd that one is ready and alive (sd_notify(3), Type=notify)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping

# Its twin is `hardware.host.notify`: neither of the two rooms may import the other, so a mend is one of both.
# How often it is said within the watchdog's time: between two words there is most of it for one honest step.
TIMES = 10


class Notifier:
    """Speaks to the socket that systemd names in `environment`; where there is none, it is silent.

    It never waits and never fails: a daemon does its work whether or not anyone listens. `alive` is for the
    loop that does the work, between its steps, so that a loop that hangs falls silent.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_s = _watchdog_s(environment)
        self._next_at = 0.0
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """The daemon works."""
        self._say("READY=1")

    def alive(self) -> None:
        """The loop turned; said to the watchdog some times in its time, however often this is called."""
        now = time.monotonic()
        if self._watchdog_s and now >= self._next_at:
            self._next_at = now + self._watchdog_s / TIMES
            self._say("WATCHDOG=1")

    @contextlib.contextmanager
    def long_step(self, seconds: float) -> Iterator[None]:
        """What is done within is one honest step that may take so long: the watchdog waits for that."""
        longer = self._watchdog_s and seconds > self._watchdog_s
        if longer:
            self._say(f"WATCHDOG_USEC={round(seconds * 1e6)}\nWATCHDOG=1")
        try:
            yield
        finally:
            if longer:
                self._say(f"WATCHDOG_USEC={round(self._watchdog_s * 1e6)}\nWATCHDOG=1")

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        self._say("STOPPING=1")

    def close(self) -> None:
        closing, self._socket = self._socket, None
        if closing is not None:
            closing.close()

    def _say(self, state: str) -> None:
        speaking = self._socket  # another thread may close it
        if speaking is not None:
            with contextlib.suppress(OSError):
                speaking.sendto(state.encode(), self._address)


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """The watchdog's time in seconds; 0 when there is none, or when it watches another process."""
    if environment.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return 0.0
    try:
        return max(0, int(environment.get("WATCHDOG_USEC", "0"))) / 1e6
    except ValueError:
        return 0.0
