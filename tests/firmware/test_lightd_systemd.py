"""What systemd hears of the light daemon."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from hardware.host.notify import Notifier
from tests.support.kiosk_daemons import Daemon, small_board


def test_systemd_hears_ready_watchdog_and_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        daemon = Daemon("lightd", small_board(tmp_path), tmp_path / "k")
        try:
            assert systemd.recv(99) == b"READY=1"
            heard = [time.monotonic() for _ in range(4) if systemd.recv(99) == b"WATCHDOG=1"]
            assert len(heard) == 4
            assert daemon.stop() == 0
            said = {systemd.recv(99)}
            while b"STOPPING=1" not in said:
                said.add(systemd.recv(99))
            assert said <= {b"WATCHDOG=1", b"STOPPING=1"}
        finally:
            daemon.end()


def test_a_notifier_without_systemd_is_silent_and_one_for_another_process_does_not_beat() -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready()
    name = f"\0dermakiosk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(5)
        other = {"NOTIFY_SOCKET": "@" + name[1:], "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        notifier = Notifier(other)
        notifier.alive()
        notifier.ready()
        assert systemd.recv(99) == b"READY=1"
        notifier.close()
