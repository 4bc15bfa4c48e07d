"""Exposing: the one place where pictures are taken: light on, settle, expose, dark."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from firmware.cameras.camera import Camera, Exposure, watched
from firmware.lights.client import Lights
from firmware.lights.core import OVERRUN_S
from hardware.board import Board

_T = TypeVar("_T")

# A picture with every light off stands under this name among those that have a light's.
DARK = "dark"
_BEAT_S = 0.05
# Working out a picture's counts takes a processor, not a camera; it is given longer.
_READ_OUT_S = 10.0
# Little enough to look into; the picture is exposed longer to make up for it, within a preview's frame time.
_LOOK_LEVEL, _LOOK_SHARE = 0.35, 0.95


@dataclass(frozen=True)
class Setting:
    """How a picture is taken: `light` alone at `level` in 0…1, or none in the DARK, and what the camera is
    set to.
    """

    light: str
    level: float
    is_uv: bool
    mode: str
    exposure_us: int
    gain: float

    @classmethod
    def still(cls, board: Board, light: str) -> Setting:
        """A picture to measure, under the whole of `light`; in the DARK exposed as under the white one."""
        profile = board.lights["white" if light == DARK else light]
        return cls(light, 1.0, profile.is_uv, "still", profile.exposure_us, profile.gain)

    @classmethod
    def look(cls, board: Board) -> Setting:
        """A small picture to look for a face in, under a little white light."""
        white = board.lights["white"]
        level = _LOOK_LEVEL if white.pwm_hz else 1.0
        longest = round(_LOOK_SHARE * 1e6 / board.camera.preview.fps)
        exposure_us = min(round(white.exposure_us / level), longest)
        return cls("white", level, False, "preview", exposure_us, white.gain)


@dataclass(frozen=True)
class TakenExposure:
    """One exposure and how it was to be; from `settled_ns` (monotonic) on its light was what it should be."""

    setting: Setting
    exposure: Exposure
    settled_ns: int

    @property
    def too_early(self) -> bool:
        """Whether it was begun before: no camera should give that."""
        return self.exposure.timestamp_ns < self.settled_ns


@dataclass(frozen=True)
class Exposing:
    """`board`'s camera under its lights, whose lease is the caller's.

    `watch` is called at least every 50 ms while the camera is waited for; whatever it raises ends the wait.
    Where it does not beat, a light that is on goes off in a wait that outlasts the lease.
    """

    board: Board
    camera: Camera
    lights: Lights
    watch: Callable[[], None]

    def expose(
        self, setting: Setting, frames: int = 1, once_ready: Callable[[], None] = lambda: None
    ) -> list[TakenExposure]:
        """`frames` pictures, one after the other under one light; under UV one, for which a pulse is made.

        The camera is ready before the light goes on, `once_ready` is called in between, and all lights are
        off after it, whatever happens. Raises LightsFault, CameraFrozen, OSError, and what `watch` and
        `once_ready` raise.
        """
        taken: list[TakenExposure] = []
        try:
            if setting.light == DARK:
                self.lights.off()
            self._waited(lambda: self.camera.prepare(setting.mode, setting.exposure_us, setting.gain))
            once_ready()
            settled_ns = settled_light(self.board, self.lights, setting)
            for _ in range(frames):
                taken.append(TakenExposure(setting, self.shoot(setting, settled_ns), settled_ns))
                settled_ns = taken[-1].exposure.timestamp_ns + 1
            if setting.light != DARK and not setting.is_uv:
                # Silent for too long, we have lost the lease and its light: the light daemon says so here.
                self.lights.beat()
        finally:
            self.lights.off()
        return taken

    def shoot(self, setting: Setting, after_ns: int) -> Exposure:
        """The first picture that begins at `after_ns` (monotonic) or later, under whatever is lit.

        Raises CameraFrozen, OSError, and what `watch` raises.
        """
        return self._waited(
            lambda: self.camera.expose(setting.mode, setting.exposure_us, setting.gain, after_ns)
        )

    def counts(self, exposure: Exposure) -> npt.NDArray[np.uint16]:
        """The picture read out, H×W×3 RGB linear counts. Raises what `shoot` does."""
        return watched(exposure.counts, _READ_OUT_S, _BEAT_S, self.watch)

    def disturbed(self, taken: TakenExposure) -> str | None:
        """Why its light is not to be trusted, or None: the interlock that ended its UV pulse before its last
        row was exposed ("shroud_open" and others, "no_heartbeat" among them), or "cut_short" where none did
        and the pulse ran out; under any other light "shroud_open".

        To be asked before anything else is lit. Raises LightsFault.
        """
        if self.board.interlocks is None:
            return None
        status = self.lights.status()
        if taken.setting.is_uv:
            if status["pulse_over_ns"] >= taken.exposure.end_ns:
                return None
            return str(status["pulse_cut_by"] or "cut_short")
        # One switch alone that says so is a broken wire, and white light needs no shroud.
        return "shroud_open" if status["shroud_closed"] == [False, False] else None

    def _waited(self, call: Callable[[], _T]) -> _T:
        return watched(call, self.board.camera.deadline_s, _BEAT_S, self.watch)


def settled_light(board: Board, lights: Lights, setting: Setting) -> int:
    """Light as `setting` says; from when on, in monotonic ns, that is what it should be.

    Raises LightsFault.
    """
    return _lit_ns(board, lights, setting) + board.camera.settle_ms * 1_000_000


def _lit_ns(board: Board, lights: Lights, setting: Setting) -> int:
    if setting.light == DARK:
        return time.monotonic_ns()
    if setting.is_uv:
        return lights.pulse(setting.light, pulse_s(board, setting.light))
    return lights.on(setting.light, setting.level)


def pulse_s(board: Board, light: str) -> float:
    """How long a UV pulse is for one frame under `light`: to settle, wait for the next frame to begin, lose
    one, expose it and read it out; off comes sooner.
    """
    camera, exposure_s = board.camera, board.lights[light].exposure_us / 1e6
    # A frame takes as long as its exposure, where that is more than the camera's frame time.
    frame_s = max(1 / camera.still.fps, exposure_s)
    wanted = camera.settle_ms / 1000 + 4 * frame_s + exposure_s
    return min(wanted, board.limits.uv_pulse_s - OVERRUN_S)
