"""The close-up camera: a hand-held dermatoscope that looks at one marked spot, with a light of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from firmware.cameras.camera import CameraFrozen, watched
from firmware.cameras.v4l2 import arrival_ns
from hardware.board import Board
from hardware.capture import CLOSE_UP, Capture, Frame, Spot
from hardware.host.errors import Fault
from hardware.middle import middle
from hardware.profile import CloseUpProfile

Picture = npt.NDArray[np.uint8]

_BEAT_S = 0.25
_OPEN_S = 8.0
# Nobody has looked for so long: the camera rests, and with it its light.
_REST_S = 3.0
# Mean sRGB value (0…255) of the middle: below it the camera hangs in the dark, or its light is broken.
_DARK = 40.0
_LOOK_WIDTH = 256


class CloseUpFault(Fault):
    """No close-up. `code`: "close_up_lost" (the camera is gone), "too_dark", "too_blurred", "no_close_up"."""


class CloseUpCamera(Protocol):
    """What is needed of one. Its calls may hang, as cameras do: `LazyCloseUpCamera` watches over them."""

    def picture(self) -> Picture:
        """The first picture that arrives after the call, H×W×3 RGB sRGB. Raises OSError."""

    def close(self) -> None: ...


class UsbCloseUp:
    """A USB dermatoscope through V4L2, exposing by itself: its own light is all that it sees."""

    def __init__(self, profile: CloseUpProfile, open_video: Callable[[int | str], Any]) -> None:
        self._deadline_s = profile.deadline_s
        self._turn = threading.Lock()
        device = profile.device if profile.device is not None else 0
        self._video = open_video(device)
        if not self._video.isOpened():
            self._video.release()
            raise OSError(f"close-up camera {device} is not there or is in use")
        self._video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._video.set(cv2.CAP_PROP_FRAME_WIDTH, profile.width)
        self._video.set(cv2.CAP_PROP_FRAME_HEIGHT, profile.height)
        self._video.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def picture(self) -> Picture:
        asked_ns = time.monotonic_ns()
        with self._turn:
            while True:
                if not self._video.grab():
                    raise OSError("the close-up camera sends no frames: it may have been unplugged")
                if arrival_ns(self._video) >= asked_ns:
                    break
                if time.monotonic_ns() - asked_ns > self._deadline_s * 1e9:
                    raise TimeoutError("the close-up camera sent no fresh frame")
            arrived, picture = self._video.retrieve()
        if not arrived or picture is None or picture.ndim != 3:
            raise OSError("the close-up camera's picture could not be read")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Leaves the camera be while a call hangs in it: to let go of it under that call's feet would take
        the process down.
        """
        if not self._turn.acquire(timeout=self._deadline_s):
            return
        try:
            self._video.release()
        finally:
            self._turn.release()


class LazyCloseUpCamera:
    """The close-up camera of `board`, opened when somebody looks and closed when nobody does.

    `picture` is a file that a simulated one shows; `watch` is called while it is waited for, and may raise.
    One caller at a time: the capture daemon's turn sees to that.
    """

    def __init__(self, board: Board, watch: Callable[[], None], shown: Picture | None = None) -> None:
        self._board, self._watch, self._shown = board, watch, shown
        self._camera: CloseUpCamera | None = None
        self._seen = 0.0
        self._taken = 0
        self._lock = threading.Lock()

    def preview(self) -> tuple[Picture, str | None]:
        """What it sees now, H×W×3 RGB uint8 sRGB, and what is wrong with it. Raises CloseUpFault."""
        with self._lock:
            picture = self._picture()
            return picture, judge(picture, self._profile())

    def take(self) -> Capture:
        """One checked still as a Capture of its own, its scale in `spots`. Raises CloseUpFault."""
        with self._lock:
            picture = self._picture()
            profile = self._profile()
            wrong = judge(picture, profile)
            if wrong is not None:
                raise CloseUpFault(wrong, "The close-up is dark or blurred.")
            self._taken += 1
        # The scale is that of pictures of the size in the profile; a file has its own, which nobody knows.
        known = self._shown is None and picture.shape[:2] == (profile.height, profile.width)
        scale = profile.mm_per_px if known else None
        frame = Frame(CLOSE_UP, picture, 0, 1.0, time.monotonic_ns(), "srgb")
        return Capture(
            self._board.name,
            (frame,),
            simulated=self._board.simulated,
            spots={CLOSE_UP: Spot(mm_per_px=scale)},
        )

    def rest(self) -> None:
        """Close the camera when nobody has looked for a while. Called again and again."""
        if self._camera is None or not self._lock.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._seen > _REST_S:
                self._drop()
        finally:
            self._lock.release()

    def _profile(self) -> CloseUpProfile:
        if self._board.close_up is None:
            raise CloseUpFault("no_close_up", f"Board {self._board.name} has no close-up camera.")
        return self._board.close_up

    def _picture(self) -> Picture:
        profile = self._profile()
        try:
            camera = self._camera
            if camera is None:
                camera = watched(self._open, _OPEN_S, _BEAT_S, self._watch)
                self._camera = camera
            picture = watched(camera.picture, profile.deadline_s, _BEAT_S, self._watch)
        except (CameraFrozen, OSError) as error:
            self._drop()
            raise CloseUpFault("close_up_lost", f"The close-up camera gave no picture. {error}") from error
        self._seen = time.monotonic()
        return picture

    def _open(self) -> CloseUpCamera:
        profile = self._profile()
        if profile.driver == "v4l2":
            return UsbCloseUp(profile, lambda device: cv2.VideoCapture(device, cv2.CAP_V4L2))
        from hardware.simulated.close_up import SimulatedCloseUp

        return SimulatedCloseUp(profile, self._board.simulation, lambda: self._taken, self._shown)

    def _drop(self) -> None:
        """Close it without waiting: one that hangs even in this is left behind in its thread."""
        camera, self._camera = self._camera, None
        if camera is not None:
            threading.Thread(target=camera.close, name="close-up close", daemon=True).start()


def judge(picture: Picture, profile: CloseUpProfile) -> str | None:
    """What is wrong with a close-up: "too_dark", "too_blurred" or None."""
    if float(middle(picture).mean()) < _DARK:
        return "too_dark"
    return "too_blurred" if sharpness(picture) < profile.sharpness_at_least else None


def sharpness(picture: Picture) -> float:
    """Fine detail relative to coarser, at 256 pixels across: the same for pale and dark skin."""
    size = (_LOOK_WIDTH, max(8, round(picture.shape[0] * _LOOK_WIDTH / picture.shape[1])))
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    logs = np.log(grey.astype(np.float32) + 8)
    fine, middle, coarse = (
        np.asarray(cv2.GaussianBlur(logs, (0, 0), sigma), np.float32) for sigma in (1.0, 2.0, 4.0)
    )
    contrast = float(np.std(middle - coarse))
    return float(np.std(fine - middle)) / contrast if contrast > 1e-4 else 0.0
