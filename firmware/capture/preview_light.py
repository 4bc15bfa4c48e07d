"""PreviewLight: a little white light for as long as somebody looks, and the pictures taken under it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import structlog

from firmware.cameras.calibration import Calibration
from firmware.cameras.camera import Camera
from firmware.cameras.exposing import Exposing, Setting, settled_light
from firmware.cameras.reflectance import reflectance
from firmware.lights.client import Lights, LightsFault
from hardware.board import Board

_SILENCE_S = 3.0

log = structlog.get_logger()


class PreviewLight:
    """The light in which who has `session` (None: nobody) sees themselves before `board`'s camera.

    Only whoever has the turn at the camera may use it.
    """

    def __init__(self, board: Board, lights: Lights) -> None:
        self._board, self._lights = board, lights
        self._look = Setting.look(board)
        self._from_ns = 0
        self._looked_at = 0.0
        self.session: str | None = None

    def shine_for(self, session: str) -> None:
        """Go on for `session`, whose lease the lights have. Raises LightsFault."""
        self._from_ns = settled_light(self._board, self._lights, self._look)
        self._looked_at = time.monotonic()
        self.session = session

    def picture(
        self, camera: Camera, watch: Callable[[], None], calibration: Calibration | None
    ) -> npt.NDArray[np.uint16]:
        """One small linear picture, exposed longer to make up for the dimmed light.

        It may have begun before it was asked for, under this light and after the last one: who asks again as
        soon as a picture is shown sees every frame of the camera. Raises CameraFrozen, OSError, what `watch`
        raises, and LightsFault, "no_lease" among them: the light went out before the picture was taken.
        """

        def watch_and_beat() -> None:
            watch()
            self._lights.beat()

        look, exposing = self._look, Exposing(self._board, camera, self._lights, watch_and_beat)
        exposure = exposing.shoot(look, self._from_ns)
        # Silent for too long, we have lost the lease and its light: the light daemon says so here.
        self._lights.beat()
        self._from_ns = exposure.timestamp_ns + 1
        counts = exposing.counts(exposure)
        self._looked_at = time.monotonic()
        return reflectance(self._board, look.light, counts, exposure, look.level, calibration)

    def forget(self) -> None:
        """The lights are no longer for who looked."""
        self.session = None

    def keep(self) -> None:
        """Keep it on while somebody looks, give the lights back when nobody does. Called again and again."""
        if self.session is None:
            return
        try:
            if time.monotonic() - self._looked_at > _SILENCE_S:
                self.forget()
                self._lights.release()
            else:
                self._lights.beat()
        except LightsFault as fault:
            log.warning("preview_light_lost", code=fault.code)
            self.forget()
