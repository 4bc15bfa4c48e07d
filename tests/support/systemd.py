"""What systemd hears of a daemon: the words that it says to the socket of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


class Systemd:
    """The socket of one daemon, which may be silent for `watchdog_s`."""

    def __init__(self, listening: socket.socket, path: str, watchdog_s: float) -> None:
        self._listening = listening
        self.environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
        self.words: list[str] = []

    def hear(self) -> list[str]:
        """All words so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.words += self._listening.recv(4096).decode().splitlines()
        return self.words

    def alive(self) -> int:
        """How often it was said that the loop turned."""
        return self.hear().count("WATCHDOG=1")

    def await_words(self, more: int = 3) -> None:
        before = self.alive()
        wait_until(lambda: self.alive() >= before + more, "a daemon that says that it lives")


@contextmanager
def listening_systemd(watchdog_s: float) -> Iterator[Systemd]:
    with tempfile.TemporaryDirectory(prefix="dk-notify-") as folder:
        path = str(Path(folder) / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.setblocking(False)
            listening.bind(path)
            yield Systemd(listening, path, watchdog_s)


def heard_by(systemd: Systemd) -> dict[str, str]:
    """The environment of a process that systemd watches."""
    return {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"} | systemd.environment
