"""Camera: what the capture daemon needs of one, and how a board's is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from hardware.board import Board
from hardware.srgb import srgb_coded

if TYPE_CHECKING:
    from firmware.calibration import Calibration

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


def lit_to_its_end(exposure: Exposure, status: Mapping[str, Any]) -> bool:
    """Whether a UV pulse, over by now as the light daemon's `status` has it, lit the last row to its end."""
    return bool(status["pulse_over_ns"] >= exposure.end_ns)


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


class CameraFrozen(Exception):
    """The camera did not answer in time; it has to be opened anew."""

    exit_status = 1


def open_camera(board: Board, run: Path, patient: Callable[[], Any]) -> Camera:
    """The camera that `board` names. `patient()` is who stands in front of a simulated one.

    Raises DriverMissing, which names the line of the board profile.
    """
    if board.camera.driver == "picamera2":
        from firmware.picamera import open_picamera

        return open_picamera(board)
    if board.camera.driver == "v4l2":
        from firmware.v4l2 import open_v4l2

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


def reflectance(
    board: Board,
    light: str,
    counts: npt.NDArray[np.uint16],
    exposure: Exposure,
    level: float = 1.0,
    calibration: Calibration | None = None,
) -> npt.NDArray[np.uint16]:
    """Linear sRGB, 65,535 = reflectance 1.0, of `counts` taken under `light` at `level`.

    By `calibration`, or the nominal one: black level off, over the board's constants for a white diffuser
    (brightness and white balance). A dark frame is scaled like one under white light.
    """
    if calibration is not None:
        return calibration.apply(board, light, counts, exposure, level)
    profile = board.lights.get(light, board.lights["white"])
    exposed = (exposure.exposure_us / profile.exposure_us) * (exposure.gain / profile.gain)
    scale = 65_535.0 / (profile.white_counts * exposed * level)
    red, blue = profile.colour_gains
    if (red, blue) == (1.0, 1.0):
        black = -board.camera.black_level * scale
        return np.asarray(cv2.addWeighted(counts, scale, counts, 0.0, black, dtype=cv2.CV_16U), np.uint16)
    scales = np.array([red, 1.0, blue]) * scale
    # One affine map of the three channels, saturating: cv2.transform knows no 16-bit rounding of its own.
    balanced = cv2.transform(
        counts.astype(np.float32), np.column_stack([np.diag(scales), -board.camera.black_level * scales])
    )
    return np.asarray(np.clip(np.rint(balanced), 0, 65_535), np.uint16)


def _srgb_table() -> npt.NDArray[np.uint8]:
    return np.asarray(np.round(255 * srgb_coded(np.arange(65_536) / 65_535)), np.uint8)


_SRGB = _srgb_table()


def to_srgb(linear: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """H×W×3 uint16 linear sRGB to uint8 sRGB (IEC 61966-2-1), for eyes and for face finders."""
    return np.asarray(_SRGB[linear])
