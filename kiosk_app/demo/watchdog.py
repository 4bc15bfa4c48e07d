"""Watchdog: hears which parts are alive, as systemd does (sd_notify(3)), and names those that fell silent."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from pathlib import Path


class Watchdog:
    """One socket for each part, in a folder that only this user can reach."""

    def __init__(self) -> None:
        # Not under the demo's folder, whose path may be too long for a socket.
        self._folder = Path(tempfile.mkdtemp(prefix="dk-notify-"))
        self._sockets: dict[str, socket.socket] = {}
        self._allowed: dict[str, float] = {}
        self._heard: dict[str, float] = {}

    def environment(self, name: str, seconds: float) -> dict[str, str]:
        """What the part `name`, which starts now, finds in its environment."""
        if name not in self._sockets:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listening.setblocking(False)
            listening.bind(str(self._folder / name))
            self._sockets[name] = listening
        self._listen(name)
        self._allowed[name] = seconds
        self._heard.pop(name, None)
        return {
            "NOTIFY_SOCKET": str(self._folder / name),
            "WATCHDOG_USEC": str(round(seconds * 1e6)),
        }

    def silent(self) -> list[str]:
        """The parts that have said that they live, and then nothing for as long as they may be silent."""
        for name in self._sockets:
            self._listen(name)
        now = time.monotonic()
        late = [name for name, at in self._heard.items() if now - at > self._allowed[name]]
        for name in late:
            del self._heard[name]
        return late

    def _listen(self, name: str) -> None:
        """Hear all that has been said, also while nobody asked."""
        with contextlib.suppress(BlockingIOError):
            while True:
                said = self._sockets[name].recv(4096)
                if b"STOPPING=1" in said:
                    self._heard.pop(name, None)
                elif b"WATCHDOG=1" in said:  # the broker says that it is ready, and no more
                    self._heard[name] = time.monotonic()

    def close(self) -> None:
        for listening in self._sockets.values():
            listening.close()
        self._sockets.clear()
        self._heard.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
