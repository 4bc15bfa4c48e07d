"""What one thread ends while another speaks through it: neither of the two fails."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import pytest

import hardware.host.notify
import sync.clinic.store.notify
from kiosk_app.scanning.analyst import Analyst

NOTIFIERS = [hardware.host.notify.Notifier, sync.clinic.store.notify.Notifier]


def goes_after_a_look(one: Any, name: str) -> None:
    """From now on another thread takes the attribute `name` away as soon as somebody has looked at it."""

    def look(self: Any, asked: str) -> Any:
        found = object.__getattribute__(self, asked)
        if asked == name:
            setattr(self, name, None)
        return found

    one.__class__ = type(one.__class__.__name__, (one.__class__,), {"__getattribute__": look})


class Ended:
    """What has ended meanwhile takes a kill, as subprocess.Popen does."""

    kills = 0

    def kill(self) -> None:
        self.kills += 1


@pytest.mark.parametrize("notifier", NOTIFIERS, ids=["kiosk", "clinic"])
@pytest.mark.parametrize("says", ["ready", "alive", "stopping", "close"])
def test_a_notifier_that_another_thread_closes_while_it_speaks_fails_nobody(
    tmp_path: Path, notifier: type[Any], says: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        speaking = notifier(environment)
        looked_at = speaking._socket
        goes_after_a_look(speaking, "_socket")
        getattr(speaking, says)()
        if says == "close":
            assert looked_at.fileno() == -1
        else:
            looked_at.close()
            assert systemd.recv(99)


def test_an_analyst_whose_child_ends_at_the_moment_of_the_stop_stops() -> None:
    analyst = Analyst("ai-edge-litert")
    child = Ended()
    analyst._child = cast(Any, child)
    goes_after_a_look(analyst, "_child")
    analyst.close()
    assert child.kills == 1
