"""Kills in the middle of a UV pulse: how long the pins of a real kiosk then stay high."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from firmware.capture.client import CaptureClient, CaptureFault
from tests.support.kiosk_daemons import (
    EVERY_LIGHT,
    ROOT,
    Kiosk,
    consent,
    dark_after,
    running_kiosk,
    small_board,
    until,
    uv_allowance,
)

_APP = (
    "import sys; from pathlib import Path; from firmware.capture.client import CaptureClient;"
    "from tests.support.kiosk_daemons import EVERY_LIGHT, consent, uv_allowance;"
    "_, socket, session = sys.argv;"
    "CaptureClient(Path(socket)).capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)"
)


def kill_captured(kiosk: Kiosk) -> float:
    """SIGKILL the capture daemon while it holds UV; seconds until every pin was low."""
    session = uuid.uuid4().hex

    def capture() -> None:
        with contextlib.suppress(CaptureFault):
            CaptureClient(kiosk.capture_socket).capture(
                session, consent(), EVERY_LIGHT, uv_allowance(session), None
            )

    thread = threading.Thread(target=capture)
    thread.start()
    until(lambda: "uv365" in kiosk.lit(), "the UV lamp on")
    killed_ns = time.monotonic_ns()
    kiosk.captured.kill()
    seconds = dark_after(kiosk.pins, killed_ns)
    thread.join(60)
    kiosk.captured.end()
    kiosk.revive()
    return seconds


def kill_app(kiosk: Kiosk) -> float:
    """SIGKILL the application while the capture it asked for holds UV; seconds until every pin was low."""
    command = [sys.executable, "-c", _APP, str(kiosk.capture_socket), uuid.uuid4().hex]
    app = subprocess.Popen(command, cwd=ROOT)
    until(lambda: "uv365" in kiosk.lit(), "the UV lamp on")
    killed_ns = time.monotonic_ns()
    app.kill()
    seconds = dark_after(kiosk.pins, killed_ns)
    app.wait(60)
    until(lambda: not kiosk.lit(), "every light off")
    return seconds


def kill_lightd(kiosk: Kiosk) -> float:
    """SIGKILL the light daemon with UV on; seconds until every pin was low."""
    session = uuid.uuid4().hex

    def capture() -> None:
        with contextlib.suppress(CaptureFault):
            CaptureClient(kiosk.capture_socket).capture(
                session, consent(), EVERY_LIGHT, uv_allowance(session), None
            )

    thread = threading.Thread(target=capture)
    thread.start()
    until(lambda: "uv365" in kiosk.lit(), "the UV lamp on")
    killed_ns = time.monotonic_ns()
    kiosk.lightd.kill()
    seconds = dark_after(kiosk.pins, killed_ns)
    thread.join(60)
    kiosk.lightd.end()
    kiosk.revive()
    return seconds


@contextlib.contextmanager
def a_kiosk(folder: Path) -> Iterator[Kiosk]:
    folder.mkdir(parents=True, exist_ok=True)
    with running_kiosk(small_board(folder), folder / "k") as kiosk:
        yield kiosk


KILLS: dict[str, Callable[[Kiosk], float]] = {
    "capture daemon": kill_captured,
    "application": kill_app,
    "light daemon": kill_lightd,
}
