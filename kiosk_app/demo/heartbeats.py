"""Heartbeats: hears what the parts say of themselves (sd_notify(3)), and names those that fell silent.

What is done about one is the supervisor's: it starts a part again that ended or hangs.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from pathlib import Path


class Heartbeats:
    """One socket for each part, in a folder that only this user can reach."""

    def __init__(self) -> None:
        # Not under the demo's folder, whose path may be too long for a socket.
        self._folder = Path(tempfile.mkdtemp(prefix="dk-notify-"))
        self._sockets: dict[str, socket.socket] = {}
        # For how long each may be silent, and until when those that are waited for.
        self._allowed: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def environment(self, name: str, seconds: float) -> dict[str, str]:
        """What the part `name`, which starts now, finds in its environment."""
        if name not in self._sockets:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listening.setblocking(False)
            listening.bind(str(self._folder / name))
            self._sockets[name] = listening
        self._listen(name)
        self._allowed[name] = seconds
        self._until.pop(name, None)
        return {
            "NOTIFY_SOCKET": str(self._folder / name),
            "WATCHDOG_USEC": str(round(seconds * 1e6)),
        }

    def await_word(self, name: str, more_s: float = 0.0) -> None:
        """From now on `name` is silent unless it says something in its time, and so much longer."""
        self._until.setdefault(name, time.monotonic() + self._allowed[name] + more_s)

    def answered(self, name: str) -> None:
        """`name` says nothing of itself, and has answered: nothing is awaited of it."""
        self._until.pop(name, None)

    def silent(self) -> list[str]:
        """The parts that were to say that they live, and said nothing for as long as they may be silent."""
        for name in self._sockets:
            self._listen(name)
        now = time.monotonic()
        late = [name for name, until in self._until.items() if now > until]
        for name in late:
            del self._until[name]
        return late

    def _listen(self, name: str) -> None:
        """Hear all that has been said, also while nobody asked."""
        with contextlib.suppress(BlockingIOError):
            while True:
                said = self._sockets[name].recv(4096)
                words = dict(line.split(b"=", 1) for line in said.splitlines() if b"=" in line)
                if b"WATCHDOG_USEC" in words:  # one honest step takes longer, or is done
                    self._allowed[name] = int(words[b"WATCHDOG_USEC"]) / 1e6
                if b"STOPPING" in words:
                    self._until.pop(name, None)
                elif b"WATCHDOG" in words:  # the broker says that it is ready, and no more
                    self._until[name] = time.monotonic() + self._allowed[name]

    def close(self) -> None:
        for listening in self._sockets.values():
            listening.close()
        self._sockets.clear()
        self._until.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
