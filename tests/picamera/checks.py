"""`python -m tests.picamera.checks NAME`: one check of the driver on the real Picamera2, in its own process.

Prints what was seen in one line. The exit status is 0 only when the check held and the process ended by
itself, so each of them also shows a clean exit. `--list` instead of a name prints the names.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from firmware.cameras.camera import CameraFrozen, watched
from firmware.cameras.picamera import PiCamera, PiExposure
from hardware.board import BOARDS, Board, load_board
from tests.picamera.virtual import LENT, VirtualPicamera2

# The HQ Camera's board, as it ships.
BOARD = load_board(BOARDS / "raspberrypi5.toml")
WHITE = BOARD.lights["white"]
BUFFERS, MB = 4, 2**20
CHECKS: dict[str, Callable[[], str]] = {}


def _check(what: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    def add(check: Callable[[], str]) -> Callable[[], str]:
        CHECKS[what] = check
        return check

    return add


def _open(board: Board = BOARD, **lacking: str) -> PiCamera:
    return PiCamera(board, SimpleNamespace(Picamera2=type("Picamera2", (VirtualPicamera2,), lacking)))


def _expose(camera: PiCamera, mode: str = "still", after_ns: int | None = None) -> PiExposure:
    after_ns = time.monotonic_ns() if after_ns is None else after_ns
    return camera.expose(mode, WHITE.exposure_us, WHITE.gain, after_ns)


def _with_deadline(seconds: float) -> Board:
    return BOARD.model_copy(update={"camera": BOARD.camera.model_copy(update={"deadline_s": seconds})})


def _all_buffers_are_free(camera: PiCamera) -> None:
    """All of them can be had at once; one that was kept would leave this waiting."""
    held = [camera._camera.capture_request(wait=2.0) for _ in range(BUFFERS)]
    for request in held:
        request.release()


def _error(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return str(error)
    raise AssertionError("no error")


def _resources() -> tuple[int, int, int]:
    """(open files, threads, resident bytes) of this process."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return len(os.listdir("/proc/self/fd")), threading.active_count(), resident


def _unchanged(before: tuple[int, int, int], growth_mb: int) -> str:
    """What has grown, in words. Raises AssertionError when files or threads have, or memory by too much."""
    files, threads, resident = (now - then for now, then in zip(_resources(), before, strict=True))
    said = f"files {files:+}, threads {threads:+}, memory {resident / MB:+.0f} MB"
    assert files <= 0, said
    assert threads <= 0, said
    assert resident < growth_mb * MB, said
    return said


@_check("open, configure, start, close")
def opened() -> str:
    begun = time.monotonic()
    camera = _open()
    took = time.monotonic() - begun
    raw = camera._camera.camera_configuration()["raw"]
    begun = time.monotonic()
    camera.close()
    closing = time.monotonic() - begun
    size = "{}×{}".format(*raw["size"])
    return f"{size} {raw['format']} in {1e3 * took:.0f} ms, closed in {1e3 * closing:.0f} ms"


@_check("50 preview frames")
def previews() -> str:
    camera = _open()
    begun, last_ns = time.monotonic(), 0
    for _ in range(50):
        exposure = _expose(camera, "preview")
        assert exposure.counts().shape == (BOARD.camera.preview.height, BOARD.camera.preview.width, 3)
        assert exposure.timestamp_ns > last_ns
        last_ns = exposure.timestamp_ns
    rate = 50 / (time.monotonic() - begun)
    camera.close()
    return f"480×640, {rate:.1f} frames/s, timestamps rise"


@_check("a still of full size, upright")
def still() -> str:
    camera = _open()
    begun = time.monotonic()
    exposure = _expose(camera)
    shut = time.monotonic()
    counts = exposure.counts()
    read = time.monotonic()
    camera.close()
    assert counts.shape == (4056, 3040, 3)
    assert counts.dtype == np.uint16
    # The pattern's upright bars lie across, once the picture is turned: rows of one grey, white to black.
    column = counts[:, 1520, 1]
    levels, rows = np.unique(column, return_counts=True)
    bars = levels[rows > 200]
    assert len(bars) == 8, levels
    assert counts.max() <= 4095
    for bar in bars:
        middle = np.flatnonzero(column == bar)
        assert np.ptp(counts[middle[100]]) == 0, "a row is not even: the stride is wrong"
    said = f"exposed in {1e3 * (shut - begun):.0f} ms, read in {1e3 * (read - shut):.0f} ms"
    return f"{counts.shape[1]}×{counts.shape[0]}, {len(bars)} even bars; {said}"


@_check("a frame begins when it may, 20 times")
def begins() -> str:
    camera = _open()
    late_ms = []
    for _ in range(20):
        after_ns = time.monotonic_ns() + 30_000_000
        late_ms.append((_expose(camera, "preview", after_ns).timestamp_ns - after_ns) / 1e6)
    camera.close()
    assert min(late_ms) >= 0
    return f"{min(late_ms):.1f} to {max(late_ms):.1f} ms after it may"


@_check("settings change between frames, 20 times")
def settings() -> str:
    camera = _open()
    for number in range(20):
        exposure_us, gain = 5000 * (1 + number % 3), 1.0 + number % 2
        camera.prepare("still", exposure_us, gain)
        exposure = camera.expose("still", exposure_us, gain, time.monotonic_ns())
        assert (exposure.exposure_us, exposure.gain) == (exposure_us, gain)
    camera.close()
    return "each frame as asked"


@_check("50 stills leave nothing behind")
def nothing_is_left() -> str:
    camera = _open()
    for _ in range(3):
        _expose(camera).counts()
    before = _resources()
    for _ in range(50):
        _expose(camera).counts()
    _all_buffers_are_free(camera)
    said = _unchanged(before, growth_mb=60)
    camera.close()
    return f"{BUFFERS} of {BUFFERS} buffers free; {said}"


@_check("20 waits that run out keep no buffer")
def short_waits() -> str:
    camera = _open(_with_deadline(0.004))
    ran_out = 0
    for _ in range(20):
        try:
            _expose(camera)
        except TimeoutError:
            ran_out += 1
    assert ran_out > 10, ran_out
    _all_buffers_are_free(camera)
    camera.close()
    return f"{ran_out} ran out; {BUFFERS} of {BUFFERS} buffers free"


@_check("no frame comes: deadline, close, open anew")
def starved() -> str:
    camera = _open()
    _expose(camera)
    held = [camera._camera.capture_request(wait=2.0) for _ in range(BUFFERS)]
    begun = time.monotonic()
    said = _error(lambda: _expose(camera))
    waited = time.monotonic() - begun
    assert waited < BOARD.camera.deadline_s + 0.5
    begun = time.monotonic()
    camera.close()
    closed = time.monotonic() - begun
    del held
    again = _open()
    assert _expose(again).counts().mean() > 0
    again.close()
    return f"'{said}' after {waited:.2f} s, closed in {1e3 * closed:.0f} ms, works again"


@_check("Picamera2's own thread hangs")
def hangs() -> str:
    camera = _open()
    _expose(camera)
    camera._camera.pre_callback = lambda request: threading.Event().wait()
    limit_s = BOARD.camera.deadline_s
    for call in (lambda: _expose(camera), camera.close):
        try:
            watched(call, limit_s, 0.05, lambda: None)
        except (CameraFrozen, TimeoutError):
            continue
        raise AssertionError("nothing hung")
    said = _error(_open)
    return f"given up after {limit_s:g} s, as is closing; anew: '{said}'"


@_check("20 times closed and opened anew")
def reopened() -> str:
    for _ in range(2):
        _open().close()
    before = _resources()
    begun = time.monotonic()
    for _ in range(20):
        camera = _open()
        _expose(camera, "preview").counts()
        camera.close()
    del camera
    took = (time.monotonic() - begun) / 20
    return f"{1e3 * took:.0f} ms each; {_unchanged(before, growth_mb=60)}"


@_check("a camera in use, and none")
def busy() -> str:
    camera = _open()
    said = [_error(_open)]
    none = BOARD.model_copy(update={"camera": BOARD.camera.model_copy(update={"device": 1})})
    said.append(_error(lambda: _open(none)))
    assert _expose(camera).counts().mean() > 0
    camera.close()
    return "; ".join(f"'{words}'" for words in said)


@_check("a missing control is named")
def missing_controls() -> str:
    said = {name: _error(lambda name=name: _open(lacking=name)) for name in LENT}
    assert all(name in words for name, words in said.items()), said
    _open().close()
    return f"each of {len(LENT)}: '{said['ColourGains']}'"


@_check("a camera without raw frames is refused")
def no_raw() -> str:
    return f"'{_error(lambda: _open(lacking='raw'))}'"


class _Untimed(VirtualPicamera2):
    """Its frames do not say how long they were exposed."""

    def _reported(self, controls: dict[str, object]) -> dict[str, object]:
        return {}


@_check("a frame without its exposure time")
def no_metadata() -> str:
    camera = PiCamera(BOARD, SimpleNamespace(Picamera2=_Untimed))
    said = _error(lambda: _expose(camera))
    assert "ExposureTime" in said
    camera.close()
    return f"'{said}'"


@_check("the process ends with its camera open")
def left_open() -> str:
    _expose(_open())
    return "by itself"


@_check("the process ends in the middle of a wait")
def left_waiting() -> str:
    camera = _open()
    held = [camera._camera.capture_request(wait=2.0) for _ in range(BUFFERS)]
    threading.Thread(target=lambda: _expose(camera), daemon=True).start()
    time.sleep(0.2)
    return f"by itself, {len(held)} requests held"


if __name__ == "__main__":
    print("\n".join(CHECKS) if sys.argv[1] == "--list" else CHECKS[sys.argv[1]]())
