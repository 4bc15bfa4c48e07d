"""The firmware: preview, light to frame, and the light daemon's round trip."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from firmware.capture.client import CaptureClient
from firmware.lights.client import Lights
from hardware.board import load_board
from tests.support.kiosk_daemons import EVERY_LIGHT, SIMULATED, consent, running_kiosk

_ROUNDS = 2000
_PREVIEWS = 60


def firmware_rows(folder: Path) -> list[dict]:
    """One row a figure, each with what it is compared with; the simulated board at its full size."""
    with running_kiosk(SIMULATED, folder / "k") as kiosk:
        return [*_preview(kiosk), *_light_to_frame(kiosk), *_round_trips(kiosk, folder)]


def print_rows(rows: list[dict]) -> None:
    print("{:30} {:>9}  {:41} {:>9} {:>6}".format("firmware", "figure", "beside", "figure", "ratio"))
    for row in rows:
        figure, beside = (f"{row[key]:.3g} {row['unit']}" for key in ("figure", "reference_figure"))
        print(f"{row['stage']:30} {figure:>9}  {row['reference']:41} {beside:>9} {row['ratio']:>6}")


def _row(stage: str, figure: float, unit: str, reference: str, reference_figure: float) -> dict:
    return {
        "stage": stage,
        "figure": round(figure, 4),
        "unit": unit,
        "reference": reference,
        "reference_figure": round(reference_figure, 4),
        "ratio": round(figure / reference_figure, 2),
    }


def _preview(kiosk) -> list[dict]:
    """Pictures a second as the application gets them, with the share of a core that they take."""
    client = CaptureClient(kiosk.capture_socket)
    client.preview("bench", consent())
    process = psutil.Process(kiosk.captured.process.pid)
    before, started = sum(process.cpu_times()[:2]), time.monotonic()
    for _ in range(_PREVIEWS):
        client.preview("bench", consent())
    took = time.monotonic() - started
    busy = sum(process.cpu_times()[:2]) - before
    client.end("bench")
    fps = load_board(SIMULATED).camera.preview.fps
    return [
        _row("preview, no face network", _PREVIEWS / took, "/s", "the camera's own rate", fps),
        _row("preview CPU, no face network", busy / took, "core", "one core", 1.0),
    ]


def _light_to_frame(kiosk) -> list[dict]:
    """How long a lamp is on for one frame, beside settling and the exposure itself."""
    capture = CaptureClient(kiosk.capture_socket).capture("bench", consent(), EVERY_LIGHT, None, None)
    exposed = {frame.light: frame.exposure_us / 1e6 for frame in capture.frames}
    began: dict[str, int] = {}
    times: dict[str, float] = {}
    for item in kiosk.history():
        if item.level > 0.9:
            began[item.light] = item.at_ns
        elif item.level == 0 and item.light in began:
            times[item.light] = (item.at_ns - began.pop(item.light)) / 1e9
    lit = float(np.median([times[name] for name in times if name in exposed]))
    exposure = float(np.median([exposed[name] for name in times if name in exposed]))
    board = load_board(SIMULATED)
    least = board.camera.settle_ms / 1000 + exposure
    return [_row("light to frame", 1e3 * lit, "ms", "settling + exposure", 1e3 * least)]


def _round_trips(kiosk, folder: Path) -> list[dict]:
    """The light daemon's answer to a heartbeat beside a bare echo on the same kind of socket."""
    lights = Lights(kiosk.light_socket)
    lights.lease("bench", consent())
    daemon = _percentiles(lights.beat)
    lights.close()
    path = folder / "echo.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.fspath(path))
    listener.listen(1)

    def serve() -> None:
        connected, _ = listener.accept()
        with connected:
            while data := connected.recv(1024):
                connected.send(data)

    threading.Thread(target=serve, daemon=True).start()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(os.fspath(path))

    def echo() -> None:
        client.send(b"beat")
        client.recv(1024)

    bare = _percentiles(echo)
    client.close()
    listener.close()
    return [
        _row(f"lightd round trip p{part}", daemon[part], "ms", f"bare Unix-socket echo p{part}", bare[part])
        for part in (50, 99)
    ]


def _percentiles(call: Callable[[], object]) -> dict[int, float]:
    """p50 and p99 of one call, in ms."""
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return {part: float(np.percentile(times, part)) for part in (50, 99)}
