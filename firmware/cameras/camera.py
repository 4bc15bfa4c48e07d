"""Camera: what the capture daemon needs of one, and how a board's is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hardware.board import Board
from hardware.host.errors import PlainError

_T = TypeVar("_T")


class Exposure(Protocol):
    """One exposure, its shutter closed. `timestamp_ns` is its begin on the monotonic clock, `end_ns` when the
    shutter had closed on the last row for sure: no later than `Camera.expose` returned.
    """

    @property
    def exposure_us(self) -> int: ...

    @property
    def gain(self) -> float: ...

    @property
    def timestamp_ns(self) -> int: ...

    @property
    def end_ns(self) -> int: ...

    def counts(self) -> npt.NDArray[np.uint16]:
        """Read it out: H×W×3 RGB linear counts, black level included."""


class Camera(Protocol):
    """A camera. Its calls may hang, as cameras do: use `watched` around them."""

    name: str

    def prepare(self, mode: str, exposure_us: int, gain: float) -> None:
        """Make the next exposures so; returns once the camera does. Raises OSError.

        A new exposure time takes some frames to work: this is called before a light goes on, so that it
        needs to be lit no longer than one exposure takes.
        """

    def expose(self, mode: str, exposure_us: int, gain: float, after_ns: int) -> Exposure:
        """The first exposure that begins at `after_ns` (monotonic) or later, in `mode` "still" or "preview".

        Returns when the shutter has closed on the last row, so that the light can go off before the picture
        is worked on. Raises OSError.
        """

    def tell(self, instruction: str) -> None:
        """What the person was just asked to do ("close_eyes", "open_eyes").

        A simulated camera passes it on to its patient; no other minds.
        """

    def close(self) -> None: ...


class CameraFrozen(PlainError):
    """The camera did not answer in time; it has to be opened anew."""


def open_camera(board: Board, run: Path, patient: Callable[[], Any]) -> Camera:
    """The camera that `board` names. `patient()` is who stands in front of a simulated one.

    Raises DriverMissing, which names the line of the board profile.
    """
    if board.camera.driver == "picamera2":
        from firmware.cameras.picamera import open_picamera

        return open_picamera(board)
    if board.camera.driver == "v4l2":
        from firmware.cameras.v4l2 import open_v4l2

        return open_v4l2(board)
    from hardware.simulated.camera import SimulatedCamera

    return SimulatedCamera(board, patient(), run / "pins.page")


def watched(call: Callable[[], _T], deadline_s: float, every_s: float, watch: Callable[[], None]) -> _T:
    """The result of `call`, which runs in a thread of its own while `watch` is called every `every_s`.

    Raises CameraFrozen when the deadline passes, what `watch` raises, or what `call` raises. A call that
    hangs is left behind in its thread, which does not keep the process alive.
    """
    results: list[_T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread
            failures.append(error)
        done.set()

    threading.Thread(target=run, name="camera", daemon=True).start()
    rest = deadline_s
    while not done.wait(min(every_s, rest)):
        watch()
        rest -= every_s
        if rest <= 0:
            raise CameraFrozen(f"The camera did not answer for {deadline_s:g} s.")
    if failures:
        raise failures[0]
    return results[0]
