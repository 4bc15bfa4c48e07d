"""The capture sequence: one frame under each light, lights off on every way out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from firmware.calibration import Calibration
from firmware.camera import Camera, Exposure, reflectance, watched
from firmware.lights import Lights, LightsFault
from hardware.board import Board
from hardware.capture import Capture, Frame

log = structlog.get_logger()

DARK = "dark"
# UV comes last: a patient who leaves before it has had a whole scan.
ORDER = (DARK, "white", "parallel", "cross", *(f"dir{n}" for n in range(8)), "uv365")
# The measurements need this one; without any other the Capture only says what is missing.
REQUIRED = "white"
_TRIES = 2
_BEAT_S = 0.05
# Median reflectance in the middle of the picture: under a light at least, in the dark at most.
_LIT_AT_LEAST = 0.010
_DARK_AT_MOST = 0.008


class SequenceFailed(Exception):
    """No Capture came of it. `code` is one of the capture client's."""

    exit_status = 1

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class _Unusable(Exception):
    """One frame that is not what it should be; `code` names why."""

    exit_status = 1

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Sequence:
    """Runs the lights of `board` past `camera`. The lease on `lights` is the caller's.

    `watch` is called at least every 50 ms while a shutter is open and between lights; whatever it raises
    ends the sequence. Without a `calibration` the board's nominal constants are applied.
    """

    board: Board
    camera: Camera
    lights: Lights
    watch: Callable[[], None]
    calibration: Calibration | None = None

    def run(self, uv: bool, on_progress: Callable[[str, int, int], None]) -> Capture:
        """The whole sequence; UV only if `uv`. Raises SequenceFailed, CameraFrozen, LightsFault, OSError."""
        names = [name for name in ORDER if name == DARK or name in self.board.lights]
        frames: list[Frame] = []
        missing: dict[str, str] = {}
        for done, name in enumerate(names):
            on_progress(name, done, len(names))
            if name != DARK and self.board.lights[name].is_uv and not uv:
                missing[name] = "not_allowed"
                continue
            try:
                frames.append(self._take(name))
            except _Unusable as unusable:
                log.warning("frame missing", light=name, reason=unusable.code)
                missing[name] = unusable.code
                if name == REQUIRED:
                    raise _required(unusable.code) from unusable
        on_progress("done", len(names), len(names))
        return Capture(
            board=self.board.name,
            frames=tuple(frames),
            calibration=self.calibration.id if self.calibration else self.board.calibration,
            mm_per_px=self.calibration.mm_per_px if self.calibration else None,
            simulated=self.board.simulated,
            missing=missing,
        )

    def _take(self, name: str) -> Frame:
        """A frame under light `name`; tried again once. Raises _Unusable."""
        for remaining in reversed(range(_TRIES)):
            self.watch()
            try:
                exposure = self._expose(name)
            except LightsFault as fault:
                # The light daemon's no to UV is not a fault: the scan goes on without.
                if (
                    name == DARK
                    or not self.board.lights[name].is_uv
                    or fault.code in ("unavailable", "fault")
                ):
                    raise
                raise _Unusable(fault.code) from fault
            pixels = reflectance(self.board, name, exposure.counts(), exposure, calibration=self.calibration)
            fault_code = _check(name, pixels)
            if fault_code is None:
                return Frame(
                    light=name,
                    pixels=pixels,
                    exposure_us=exposure.exposure_us,
                    gain=exposure.gain,
                    timestamp_ns=exposure.timestamp_ns,
                )
            if not remaining:
                raise _Unusable(fault_code)
        raise AssertionError("unreachable")

    def _expose(self, name: str) -> Exposure:
        profile = self.board.lights[REQUIRED if name == DARK else name]
        settle_ns = self.board.camera.settle_ms * 1_000_000
        try:
            if name == DARK:
                self.lights.off()
                lit_ns = time.monotonic_ns()
            elif profile.is_uv:
                lit_ns = self.lights.pulse(name, self._pulse_s(profile.exposure_us))
            else:
                lit_ns = self.lights.on(name, 1.0)
            after_ns = lit_ns + settle_ns
            exposure = watched(
                lambda: self.camera.expose("still", profile.exposure_us, profile.gain, after_ns),
                self.board.camera.deadline_s,
                _BEAT_S,
                self._beat,
            )
        finally:
            self.lights.off()
        if exposure.timestamp_ns < after_ns:
            raise _Unusable("too_early")
        return exposure

    def _beat(self) -> None:
        self.watch()
        self.lights.beat()

    def _pulse_s(self, exposure_us: int) -> float:
        """Long enough to settle, wait for the next frame to begin, and expose it; off comes sooner."""
        camera = self.board.camera
        return camera.settle_ms / 1000 + 2 / camera.still.fps + 2 * exposure_us / 1e6 + 0.05


def _check(name: str, pixels: npt.NDArray[np.uint16]) -> str | None:
    """What is wrong with the brightness of this frame, or None. The face is in the middle of the picture."""
    height, width = pixels.shape[:2]
    middle = pixels[height // 4 : -height // 4 : 8, width // 4 : -width // 4 : 8]
    level = float(np.median(middle.max(axis=2))) / 65_535
    if name == DARK:
        return "stray_light" if level > _DARK_AT_MOST else None
    return "too_dark" if level < _LIT_AT_LEAST else None


def _required(code: str) -> SequenceFailed:
    if code == "too_dark":
        return SequenceFailed(
            "too_dark",
            "The picture under the white light is dark: the lamp or the camera needs a look by staff.",
        )
    return SequenceFailed(
        "camera_frozen", f"The camera gave no usable picture under the white light ({code})."
    )
