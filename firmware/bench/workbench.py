"""The workbench: lights and camera in the hands of staff, with a target where a patient would be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import structlog

from firmware.cameras.camera import Camera, CameraFrozen, Exposure, open_camera, watched
from firmware.cameras.exposing import Exposing, Setting, TakenExposure
from firmware.lights.client import Lights, LightsFault
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.board import Board

_T = TypeVar("_T")

_TRIES = 2
_BEAT_S = 0.05
_OPEN_S = 30.0
_SENSE_S = 0.4
_HELD_UP = ("no_heartbeat", "no_lease", "cut_short")
# What staff are told of a light that went out before its time.
_BUSY = (
    "This computer was too busy: the light was out before the camera or the sensors had seen it. Begin again"
    " while nothing else runs on it; if that does not help, look at the camera."
)
_CUT_WORDS = {
    **dict.fromkeys(_HELD_UP, _BUSY),
    "shroud_open": "The shroud was open meanwhile: close it and begin again.",
    "lamp_hot": "The UV lamp grew too hot: let it cool down, then begin again.",
    "sense_failed": "The shroud's switches or the lamp's thermometer could not be read while UV was on: run"
    " 'dermakiosk selftest' and look at their wires.",
}

log = structlog.get_logger()


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
        self._lights.lease(self._session, staff_consent(), self._allowance())
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

    def expose(self, light: str, frames: int = 1) -> list[tuple[npt.NDArray[np.uint16], Exposure]]:
        """`frames` pictures (H×W×3 counts) under `light` alone, or in the DARK; all lights are off after it.

        Under UV each has a pulse of its own, and there may be fewer: this machine misses some where it is
        busy. Raises LightsFault, CameraFrozen, OSError.
        """
        if self._camera is None:
            raise OSError("no target was put before the camera yet")
        exposing = Exposing(self.board, self._camera, self._lights, self._lights.beat)
        setting = Setting.still(self.board, light)
        if setting.is_uv:
            found = self._tried(lambda: _undisturbed(exposing, setting), frames)
        else:
            found = self._tried(lambda: _undisturbed(exposing, setting, frames))
        taken = [one for together in found for one in together]
        reading = replace(exposing, watch=lambda: None)  # all is dark by now, and no lease is needed
        return [(reading.counts(one.exposure), one.exposure) for one in taken]

    def sense(self, light: str) -> list[dict[str, Any]]:
        """The light daemon's status with `light` off, on, and off again. Raises LightsFault."""
        return self._tried(lambda: self._sensed(light))[0]

    def _sensed(self, light: str) -> list[dict[str, Any]]:
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
                if lit["uv_seen"] == [True, True]:
                    break
                if is_uv and not lit["pulse"]:
                    raise _cut(lit["pulse_cut_by"] or "cut_short")
                if time.monotonic() > deadline:
                    break
            steps.append(lit)
        finally:
            self._lights.off()
        time.sleep(2 * self.board.limits.light_after_off_s)
        return [*steps, self.status()]

    def status(self) -> dict[str, Any]:
        """The light daemon's status. Raises LightsFault."""
        return self._lights.status()

    def mean(self, light: str, frames: int = 4) -> npt.NDArray[np.float32]:
        """The mean of what `expose` gives, H×W×3 float32 counts."""
        pictures = [counts for counts, _ in self.expose(light, frames)]
        total = np.zeros(pictures[0].shape, np.float32)
        for picture in pictures:
            total += picture
        return np.asarray(total / np.float32(len(pictures)))

    def _close_camera(self) -> None:
        """Close the camera, if there is one; one that hangs even in this is left behind."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with contextlib.suppress(CameraFrozen, OSError):
                watched(camera.close, self.board.camera.deadline_s, _BEAT_S, lambda: None)

    def _allowance(self) -> UvAllowance | None:
        return empty_hood() if self.hood_empty else None

    def _tried(self, once: Callable[[], _T], wanted: int = 1) -> list[_T]:
        """What `once` gives, `wanted` times, of two at least; without those that this machine missed.

        A computer that has other things to do misses a heartbeat, and the light daemon puts the light out.
        That says nothing about the kiosk, and the hood is empty. What an interlock ended is not tried again.
        Raises LightsFault, where this machine was held up every time, too.
        """
        found: list[_T] = []
        uv = self._allowance()
        for left in reversed(range(max(wanted, _TRIES))):
            # Staff take their time between pictures: the lease may have run out.
            self._lights.lease(self._session, staff_consent(), uv)
            try:
                found.append(once())
                uv = self._allowance()
            except LightsFault as fault:
                if fault.code not in _HELD_UP:
                    raise
                if not found and not left:
                    raise _cut(fault.code) from fault
                # With the allowance of before: a machine that slept does not say that the hood is empty now.
                log.warning("held_up", reason=fault.code)
            if len(found) == wanted:
                break
        return found

    def _stand_in(self) -> object:
        from hardware.simulated.targets import Target

        return Target(self.board, self._target)


def _undisturbed(exposing: Exposing, setting: Setting, frames: int = 1) -> list[TakenExposure]:
    """`frames` pictures under the light that they were to have, and no other. Raises LightsFault."""
    taken = exposing.expose(setting, frames)
    by = exposing.disturbed(taken[-1])
    if by is not None:
        raise _cut(by)
    return taken


def _cut(by: str) -> LightsFault:
    """A light that went out before its time or was not alone; `by` is an interlock, or one of _HELD_UP."""
    return LightsFault(by, _CUT_WORDS.get(by, f"An interlock ended the UV pulse ({by})."))
