"""The workbench: lights and camera in the hands of staff, with a target where a patient would be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from firmware.camera import Camera, CameraFrozen, Exposure, lit_to_its_end, open_camera, watched
from firmware.lights import Lights, LightsFault
from firmware.sequence import pulse_s
from firmware.stamps import ConsentStamp, UvAllowance
from hardware.board import Board

_BEAT_S = 0.05
_OPEN_S = 30.0
_READ_OUT_S = 10.0
_SENSE_S = 0.4


def a_session() -> str:
    """A session of its own: the dose ledger counts pulses by session."""
    return f"workbench-{uuid4().hex}"


def staff_consent() -> ConsentStamp:
    """Nobody is in the hood, no picture of anybody is taken: the consent is that of the staff at work."""
    return ConsentStamp("staff", "en", datetime.now(timezone.utc))


def empty_hood() -> UvAllowance:
    """UV that staff ask for: the dose ledger counts it against a reference of its own, and no patient."""
    return UvAllowance("selftest", True, time.time())


class Workbench:
    """`board`'s lights, through the running light daemon, and its camera, which no other may hold meanwhile.

    `put(target)` is called for each new target: on a real kiosk it asks staff to put it there and waits; on a
    simulated one it is put there by itself. UV is lit only where staff say that the hood is empty. Use it
    with `with`: the lights are off after it.
    """

    def __init__(
        self, board: Board, state: Path, put: Callable[[str], None], hood_empty: bool = False
    ) -> None:
        self.board, self.hood_empty = board, hood_empty
        self._run, self._put = state / "run", put
        self._lights = Lights(self._run / "light.sock")
        self._camera: Camera | None = None
        self._target = "white"
        self._session = a_session()

    def __enter__(self) -> Workbench:
        self._lease()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lights.release()
        self._lights.close()
        self._close_camera()

    def show(self, target: str) -> None:
        """Have `target` put before the camera, in the dark. Raises OSError, DriverMissing."""
        self._lights.off()
        self._target = target
        if self.board.simulated:
            self._close_camera()
        self._put(target)
        if self._camera is None:
            self._camera = watched(
                lambda: open_camera(self.board, self._run, self._stand_in), _OPEN_S, _BEAT_S, lambda: None
            )

    def expose(self, light: str | None, frames: int = 1) -> list[tuple[npt.NDArray[np.uint16], Exposure]]:
        """`frames` pictures (H×W×3 counts) under `light` alone, or in the dark; the light is off after it.

        Under UV each has a pulse of its own. Raises LightsFault, CameraFrozen, OSError.
        """
        if frames > 1 and light is not None and self.board.lights[light].is_uv:
            return [one for _ in range(frames) for one in self.expose(light)]
        camera = self._camera
        if camera is None:
            raise OSError("no target was put before the camera yet")
        profile = self.board.lights[light or "white"]
        exposures: list[Exposure] = []
        # Staff take their time between pictures, and so does reading them out: the lease may have run out.
        self._lease()
        try:
            if light is None:
                self._lights.off()
            watched(
                lambda: camera.prepare("still", profile.exposure_us, profile.gain),
                self.board.camera.deadline_s,
                _BEAT_S,
                self._lights.beat,
            )
            if light is None:
                lit_ns = time.monotonic_ns()
            elif profile.is_uv:
                lit_ns = self._lights.pulse(light, pulse_s(self.board, light))
            else:
                lit_ns = self._lights.on(light, 1.0)
            after_ns = lit_ns + self.board.camera.settle_ms * 1_000_000
            for _ in range(frames):
                exposure = watched(
                    lambda after_ns=after_ns: camera.expose(  # type: ignore[misc]
                        "still", profile.exposure_us, profile.gain, after_ns
                    ),
                    self.board.camera.deadline_s,
                    _BEAT_S,
                    self._lights.beat,
                )
                after_ns = exposure.timestamp_ns + 1
                exposures.append(exposure)
        finally:
            self._lights.off()
        if profile.is_uv:
            self._refuse_cut_short(exposures[-1])
        return [
            (watched(exposure.counts, _READ_OUT_S, _BEAT_S, lambda: None), exposure) for exposure in exposures
        ]

    def sense(self, light: str) -> list[dict[str, Any]]:
        """The light daemon's status with `light` off, on, and off again. Raises LightsFault."""
        self._lease()
        steps = [self.status()]
        is_uv = self.board.lights[light].is_uv
        try:
            if is_uv:
                self._lights.pulse(light, min(_SENSE_S, self.board.limits.uv_pulse_s / 2))
            else:
                self._lights.on(light, 1.0)
            deadline = time.monotonic() + _SENSE_S / 2
            while True:
                time.sleep(_BEAT_S)
                self._lights.beat()
                lit = self.status()
                if lit["uv_seen"] == [True, True] or time.monotonic() > deadline:
                    break
            steps.append(lit)
        finally:
            self._lights.off()
        time.sleep(2 * self.board.limits.light_after_off_s)
        return [*steps, self.status()]

    def status(self) -> dict[str, Any]:
        """The light daemon's status. Raises LightsFault."""
        return self._lights.status()

    def mean(self, light: str | None, frames: int = 4) -> npt.NDArray[np.float32]:
        """The mean of `frames` pictures, H×W×3 float32 counts."""
        pictures = [counts for counts, _ in self.expose(light, frames)]
        total = np.zeros(pictures[0].shape, np.float32)
        for picture in pictures:
            total += picture
        return np.asarray(total / np.float32(frames))

    def _close_camera(self) -> None:
        """Close the camera, if there is one; one that hangs even in this is left behind."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with contextlib.suppress(CameraFrozen, OSError):
                watched(camera.close, self.board.camera.deadline_s, _BEAT_S, lambda: None)

    def _lease(self) -> None:
        self._lights.lease(self._session, staff_consent(), empty_hood() if self.hood_empty else None)

    def _refuse_cut_short(self, exposure: Exposure) -> None:
        if not lit_to_its_end(exposure, self.status()):
            raise LightsFault("cut_short", "The UV pulse was over before the picture was taken.")

    def _stand_in(self) -> object:
        from hardware.simulated.targets import Target

        return Target(self.board, self._target)
