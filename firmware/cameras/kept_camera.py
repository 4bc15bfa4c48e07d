"""The camera that the capture daemon keeps: opened in time, given up when it freezes, then opened anew."""

from __future__ import annotations

import os
from collections.abc import Callable

import structlog

from firmware.cameras.camera import Camera, CameraFrozen, watched
from hardware.host.errors import PlainError

# Whoever waits for the camera looks this often whether anybody still wants it.
BEAT_S = 0.25
OPEN_S = 10.0
# At the first opening a simulated patient is drawn, too.
_FIRST_OPEN_S = 60.0
# Opening the camera anew helped nothing: the process asks to be restarted.
_FREEZES = 2

log = structlog.get_logger()


class CameraLost(PlainError):
    """The camera is beyond what this process can mend; whoever supervises it starts it afresh."""

    exit_status = os.EX_TEMPFAIL  # asks for that, where a supervisor tells it from a death


class KeptCamera:
    """The one camera. Only whoever has the turn may use it.

    `watch` of the methods is called while the camera is waited for, and ends that by raising.
    """

    def __init__(self, open_it: Callable[[], Camera], deadline_s: float) -> None:
        """Open the camera. Raises DriverMissing, and CameraLost when it does not open in time."""
        self._open, self._deadline_s = open_it, deadline_s
        self._freezes = 0
        try:
            self._camera: Camera | None = watched(open_it, _FIRST_OPEN_S, BEAT_S, lambda: None)
        except (CameraFrozen, OSError) as error:
            raise CameraLost(
                f"The camera cannot be opened ({error}), so nobody can be scanned: look at it and its cable,"
                " then start this daemon afresh."
            ) from error

    @property
    def is_lost(self) -> bool:
        """Whether it froze again after it was opened anew."""
        return self._freezes >= _FREEZES

    def opened(self, watch: Callable[[], None]) -> Camera:
        """The camera; one that was dropped is opened anew, which may hang like everything it does."""
        if self._camera is None:
            self._camera = watched(self._open, OPEN_S, BEAT_S, watch)
        return self._camera

    def has_worked(self) -> None:
        """A picture came: what froze before counts no more."""
        self._freezes = 0

    def froze(self, error: Exception, watch: Callable[[], None]) -> None:
        """Close the camera, to open it anew at the next request."""
        self.close(watch)
        self._freezes += 1
        if self.is_lost:
            log.error("camera_lost", why=str(error))

    def close(self, watch: Callable[[], None]) -> None:
        """Close the camera, if there is one; one that hangs even in this is left behind."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        try:
            watched(camera.close, self._deadline_s, BEAT_S, watch)
        except (CameraFrozen, OSError) as error:
            log.warning("camera_not_closed", why=str(error))
