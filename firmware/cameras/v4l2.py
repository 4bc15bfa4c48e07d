"""A USB camera, through OpenCV and Video4Linux2.

Such a camera hands over sRGB pictures of eight bits: they are decoded to linear light, so the black level of
its board is 0 and its counts have as many bits as the board says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import structlog

from firmware.cameras.upright import refuse_smaller, upright
from hardware.board import Board
from hardware.profile import CameraProfile, Mode
from hardware.srgb import srgb_linear

# Video4Linux2 counts exposure in steps of 100 µs, and 1 means manual for its automatic exposure.
_EXPOSURE_STEP_US = 100
_MANUAL_EXPOSURE = 1
_WHITE_BALANCE_K = 5000
# Frames that may still be on their way with older settings, in the driver's queue and in the camera.
_FRAMES_UNTIL_SET = 4
# A stamp older than this is on another clock.
_STALE_NS = 5_000_000_000

log = structlog.get_logger()


@dataclass(frozen=True)
class UsbExposure:
    """One frame as the camera sent it, H×W×3 BGR uint8."""

    exposure_us: int
    gain: float
    timestamp_ns: int
    end_ns: int
    mode: Mode
    rotation: int
    bits: int
    picture: npt.NDArray[np.uint8] = field(repr=False)

    def counts(self) -> npt.NDArray[np.uint16]:
        """Decoded from sRGB (IEC 61966-2-1), turned upright, scaled: H×W×3 RGB linear counts."""
        linear = cv2.LUT(cv2.cvtColor(self.picture, cv2.COLOR_BGR2RGB), _decoding(self.bits))
        return upright(np.asarray(linear, np.uint16), self.rotation, self.mode)


class UsbCamera:
    """The V4L2 camera of `board`, streaming at its still size. Several threads may call, one at a time.

    `open_video(device)` gives a cv2.VideoCapture.
    """

    name = "v4l2"

    def __init__(self, board: Board, open_video: Callable[[int | str], Any]) -> None:
        self._profile = profile = board.camera
        self._has_lamps = not board.room_lit
        self._turn = threading.Lock()
        self._controls: tuple[int, float] | None = None
        self._video = open_video(profile.device)
        if not self._video.isOpened():
            self._video.release()
            raise OSError(f"camera {profile.device} is not there or is in use")
        try:
            self._configure(profile)
            self._pass_frames()
            self._picture()
        except OSError:
            self._video.release()
            raise

    def _configure(self, profile: CameraProfile) -> None:
        across = profile.rotate_deg in (90, 270)
        width, height = profile.still.width, profile.still.height
        self._video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._video.set(cv2.CAP_PROP_FRAME_WIDTH, height if across else width)
        self._video.set(cv2.CAP_PROP_FRAME_HEIGHT, width if across else height)
        self._video.set(cv2.CAP_PROP_FPS, profile.still.fps)
        self._video.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        locked = {
            "exposure": self._video.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE),
            "white balance": self._video.set(cv2.CAP_PROP_AUTO_WB, 0),
        }
        self._video.set(cv2.CAP_PROP_WB_TEMPERATURE, _WHITE_BALANCE_K)
        loose = " and ".join(name for name, done in locked.items() if not done)
        if loose and not self._has_lamps:
            # To try the kiosk out, a webcam will do as it is; its colours are those of the room anyway.
            log.warning("camera_not_locked", automatic=loose)
        elif loose:
            raise OSError(
                f"camera {profile.device} keeps its {loose} automatic: use one that lets them be set by hand"
            )

    def prepare(self, mode: str, exposure_us: int, gain: float) -> None:
        """Set exposure time and gain; returns when frames taken before are past. Raises OSError."""
        del mode
        with self._turn:
            self._set(exposure_us, gain)

    def expose(self, mode: str, exposure_us: int, gain: float, after_ns: int) -> UsbExposure:
        """The first frame that was begun at `after_ns` or later. Raises OSError.

        A USB camera does not say when a frame began. It was exposed for one frame time at most, then read out
        and sent for another: so much before its arrival it is taken to have begun.
        """
        size = self._profile.still if mode == "still" else self._profile.preview
        frame_ns = max(round(1e9 / self._profile.still.fps), exposure_us * 1000)
        deadline = time.monotonic() + self._profile.deadline_s
        with self._turn:
            self._set(exposure_us, gain)
            while True:
                self._grab()
                end_ns = arrival_ns(self._video)
                begin_ns = end_ns - 2 * frame_ns
                if begin_ns >= after_ns:
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError("the camera sent no frame that was begun late enough")
            picture = self._picture()
        profile = self._profile
        return UsbExposure(
            exposure_us, gain, begin_ns, end_ns, size, profile.rotate_deg, profile.bits, picture
        )

    def tell(self, instruction: str) -> None:
        """Nobody listens in here."""

    def close(self) -> None:
        """Raises TimeoutError, and leaves the camera be, while a call hangs in it: to let go of it under that
        call's feet would take the process down.
        """
        if not self._turn.acquire(timeout=self._profile.deadline_s):
            raise TimeoutError("a call hangs in the camera, which is left behind")
        try:
            self._video.release()
        finally:
            self._turn.release()

    def _set(self, exposure_us: int, gain: float) -> None:
        if self._controls == (exposure_us, gain):
            return
        steps = max(1, round(exposure_us / _EXPOSURE_STEP_US))
        if not self._video.set(cv2.CAP_PROP_EXPOSURE, steps) and self._has_lamps:
            raise OSError(f"the camera does not take an exposure time of {exposure_us / 1000:g} ms")
        self._video.set(cv2.CAP_PROP_GAIN, gain)
        self._pass_frames()
        self._controls = (exposure_us, gain)

    def _pass_frames(self) -> None:
        for _ in range(_FRAMES_UNTIL_SET):
            self._grab()

    def _grab(self) -> None:
        if not self._video.grab():
            raise OSError("the camera sends no frames: it may have been unplugged")

    def _picture(self) -> npt.NDArray[np.uint8]:
        """The frame just grabbed, H×W×3 BGR. Raises OSError, also where it is none that the board can use."""
        arrived, picture = self._video.retrieve()
        if not arrived or picture is None:
            raise OSError("the camera's picture could not be read")
        if picture.ndim != 3 or picture.shape[2] != 3:
            raise OSError("the camera's pictures have no colour")
        size = (picture.shape[1], picture.shape[0])
        refuse_smaller(size, self._profile.rotate_deg, self._profile.still)
        return np.asarray(picture, np.uint8)


def arrival_ns(video: Any) -> int:
    """When the frame just grabbed arrived, by the kernel's stamp: it may have waited in a queue since."""
    now_ns = time.monotonic_ns()
    stamp_ns = round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
    return stamp_ns if 0 < now_ns - stamp_ns < _STALE_NS else now_ns


def open_v4l2(board: Board) -> UsbCamera:
    """The camera at the board's `camera.device`, streaming. Raises OSError."""
    return UsbCamera(board, lambda device: cv2.VideoCapture(device, cv2.CAP_V4L2))


def _decoding(bits: int) -> npt.NDArray[np.uint16]:
    return np.asarray(np.round(srgb_linear(np.arange(256) / 255) * (2**bits - 1)), np.uint16)
