"""The capture sequence: one frame under each light, lights off on every way out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from firmware.cameras.calibration import Calibration
from firmware.cameras.camera import Camera
from firmware.cameras.exposing import DARK, Exposing, Setting
from firmware.cameras.reflectance import reflectance, to_srgb
from firmware.capture.eyes import eyes_closed
from firmware.capture.frame_checks import FrameChecks, Points
from firmware.capture.guidance import FaceFinder, look_for_face
from firmware.lights.client import Lights, LightsFault
from hardware.board import Board
from hardware.capture import Capture, Frame
from hardware.host.errors import Fault

log = structlog.get_logger()

# UV comes last: whatever becomes of it, the frames before it are a whole scan.
ORDER = (DARK, "white", "parallel", "cross", *(f"dir{n}" for n in range(8)), "uv365")
# The measurements need this one; without any other the Capture only says what is missing.
REQUIRED = "white"
# Taken whatever is asked for: the dark frame shows a lamp that does not go out, and light that comes in from
# outside; the white one shows the face, where it is, whether it has moved, and how large it is.
ALWAYS = (DARK, REQUIRED)
# A light is tried twice, while second tries are left for the sequence.
_TRIES = 2
_SECOND_TRIES = 4
# So many lights lost for one of these reasons, or all that white stands beside: nobody stands still there, or
# nobody at all.
_HOPELESS = {
    "moved": "The face was not where it was, in several pictures: please hold still and try again.",
    "shroud_open": "The shroud was open in several pictures: please close it and try again.",
}
_LOST_AT_MOST = 2
# A pulse follows the look at the eyes within this, and what the dose ledger takes to write. Reading the
# picture out, finding the face in it and setting a slow camera for UV come to about 0.7 s.
_SEEN_CLOSED_S = 1.5
PHASES = ("all", "lit", "uv")


class SequenceFailed(Fault):
    """No Capture came of it. `code` is one of the capture client's."""


class _Unusable(Fault):
    """One frame that is not what it should be; `code` names why. `try_again` is whether that may help."""

    def __init__(self, code: str, try_again: bool = False) -> None:
        super().__init__(code, f"This picture cannot be used ({code}).")
        self.try_again = try_again


@dataclass
class Sequence:
    """Runs the lights of `board` past `camera`. The lease on `lights` is the caller's.

    `watch` is called at least every 50 ms while a shutter is open and between lights; whatever it raises
    ends the sequence. `find_face` gives landmarks to see movement and closed eyes by; without it movement is
    not looked for, and there is no UV. Without a `calibration` the board's nominal constants are applied. One
    Sequence is one run.
    """

    board: Board
    camera: Camera
    lights: Lights
    watch: Callable[[], None]
    find_face: FaceFinder | None = None
    calibration: Calibration | None = None
    first: Points | None = None  # where the face was in an earlier sequence that this one belongs to

    def __post_init__(self) -> None:
        self._checks = FrameChecks(self.board, self.find_face, self.first)
        self._second_tries = _SECOND_TRIES

    def run(
        self,
        lights: Collection[str],
        uv: bool,
        on_progress: Callable[[str, int, int], None],
        phase: str = "all",
    ) -> Capture:
        """Those of `lights` that the board has, and ALWAYS. Of `phase`: "lit" (eyes may be open), "uv" (eyes
        closed), or "all" in one go; UV only if `uv`, too.

        Raises SequenceFailed, CameraFrozen, LightsFault, OSError; all lights are off then.
        """
        names = [name for name in ORDER if name == DARK or name in self.board.lights]
        names = [name for name in names if name in ALWAYS or name in lights]
        names = [name for name in names if phase == "all" or self._is_uv(name) == (phase == "uv")]
        frames: list[Frame] = []
        missing: dict[str, str] = {}
        for done, name in enumerate(names):
            on_progress(name, done, len(names))
            if self._is_uv(name) and not uv:
                missing[name] = "not_allowed"
                continue
            if name == DARK and self.board.room_lit:
                # Nobody can switch the room off: what a frame "in the dark" shows is the light of all others.
                missing[name] = "room_lit"
                continue
            try:
                frames.append(self._take(name))
            except _Unusable as unusable:
                log.warning("frame_missing", light=name, reason=unusable.code)
                missing[name] = unusable.code
                self._end_if_hopeless(name, missing, names)
        on_progress("done", len(names), len(names))
        return Capture(
            board=self.board.name,
            frames=tuple(frames),
            calibration=self.calibration.id if self.calibration else self.board.calibration,
            mm_per_px=self.calibration.mm_per_px if self.calibration else None,
            simulated=self.board.simulated,
            missing=missing,
        )

    @property
    def landmarks(self) -> Points | None:
        """Where the face was: 468×2 in pixels of a frame, None before one with a face in it."""
        return self._checks.first

    def _is_uv(self, name: str) -> bool:
        return name != DARK and self.board.lights[name].is_uv

    def _take(self, name: str) -> Frame:
        """A frame under light `name`; tried again where that may help. Raises _Unusable.

        Each UV pulse has a look at the eyes of its own, and one that an interlock has cut is not fired again.
        """
        tries = 1
        while True:
            self.watch()
            try:
                return self._take_once(name)
            except _Unusable as unusable:
                if not unusable.try_again or tries == _TRIES or self._second_tries == 0:
                    raise
            tries += 1
            self._second_tries -= 1

    def _take_once(self, name: str) -> Frame:
        exposing = self._exposing
        once_ready = self._see_closed_eyes() if self._is_uv(name) else lambda: None
        try:
            (taken,) = exposing.expose(Setting.still(self.board, name), once_ready=once_ready)
            disturbed = exposing.disturbed(taken)
        except LightsFault as fault:
            # The light daemon's no to UV is not a fault: the scan goes on without.
            if not self._is_uv(name) or fault.code in ("unavailable", "fault"):
                raise
            raise _Unusable(fault.code) from fault
        if disturbed is not None and self._is_uv(name):
            raise _Unusable(disturbed)
        exposure = taken.exposure
        counts = exposing.counts(exposure)
        pixels = reflectance(self.board, name, counts, exposure, calibration=self.calibration)
        if taken.too_early:
            fault_code: str | None = "too_early"
        elif disturbed is not None:
            fault_code = disturbed
        elif name == DARK:
            fault_code = self._checks.dark(counts, exposure, self.calibration)
        else:
            fault_code = self._checks.lit(name, pixels)
        if fault_code is not None:
            raise _Unusable(fault_code, try_again=True)
        return Frame(
            light=name,
            pixels=pixels,
            exposure_us=exposure.exposure_us,
            gain=exposure.gain,
            timestamp_ns=exposure.timestamp_ns,
        )

    def _see_closed_eyes(self) -> Callable[[], None]:
        """Look at the eyes in a little white light, right before UV. Raises _Unusable unless they are closed.

        The patient has said so before; this is the machine's own look, and no proof either. Where there is
        nothing to look with, they were not seen. What is returned raises _Unusable once that is too long ago,
        as on a computer that is busy for a moment: one more look may be in time.
        """
        if self.board.eye_protection != "closed_eyes" or self.find_face is None:
            raise _Unusable("eyes_not_seen")
        self.camera.tell("close_eyes")
        exposing, look = self._exposing, Setting.look(self.board)
        (taken,) = exposing.expose(look)
        if taken.too_early:
            raise _Unusable("eyes_not_seen")
        counts = exposing.counts(taken.exposure)
        picture = reflectance(self.board, look.light, counts, taken.exposure, look.level)
        face, reason = look_for_face(self.find_face, to_srgb(picture), self.board.engine)
        if face is None:
            raise _Unusable(reason or "no_face")
        if not eyes_closed(picture, face):
            raise _Unusable("eyes_open")

        def refuse_if_old() -> None:
            if time.monotonic_ns() - taken.exposure.end_ns > _SEEN_CLOSED_S * 1e9:
                raise _Unusable("look_too_old", try_again=True)

        return refuse_if_old

    def _end_if_hopeless(self, name: str, missing: dict[str, str], names: Collection[str]) -> None:
        """Raises SequenceFailed where going on with `names` would give no Capture worth having."""
        code = missing[name]
        beside = sum(light not in ALWAYS and not self._is_uv(light) for light in names)
        if name == REQUIRED:
            raise _required(code, self.board.room_lit)
        if code == "lamp_stuck":
            raise SequenceFailed(
                "light_fault",
                "The camera sees light while all lamps are off: the shroud is open, or a lamp does not go"
                " out. Staff need to look at it.",
            )
        lit = [reason for light, reason in missing.items() if not self._is_uv(light)]
        if code in _HOPELESS and not self._is_uv(name) and lit.count(code) >= min(_LOST_AT_MOST, beside):
            raise SequenceFailed(code, _HOPELESS[code])

    @property
    def _exposing(self) -> Exposing:
        return Exposing(self.board, self.camera, self.lights, self._beat)

    def _beat(self) -> None:
        self.watch()
        self.lights.beat()


def _required(code: str, room_lit: bool) -> SequenceFailed:
    if code == "too_dark":
        return SequenceFailed(
            "too_dark",
            "The picture is dark: light the face, see that nothing covers the camera, and try again."
            if room_lit
            else "The picture under the white light is dark: the lamp or the camera needs a look by staff.",
        )
    if code == "shroud_open":
        return SequenceFailed(code, "The shroud was open: please close it and try again.")
    if code == "blurred":
        return SequenceFailed("moved", "The picture is blurred: please hold still and try again.")
    if code == "too_bright":
        return SequenceFailed(
            "light_fault",
            "The picture is far too bright: dim the light in the room, and try again."
            if room_lit
            else "The picture under the white light is far too bright: the camera or the lamp needs a look by"
            " staff.",
        )
    return SequenceFailed(
        "camera_frozen", f"The camera gave no usable picture under the white light ({code})."
    )
