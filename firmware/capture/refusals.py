"""Refusals: what the capture daemon says where there is no picture."""

from __future__ import annotations

from pathlib import Path

from firmware.cameras.camera import CameraFrozen
from firmware.lights.client import LightsFault
from hardware.host.errors import Fault, PlainError

# What the client is told by the light daemon's code. "light_lost": nobody knows what is lit.
_LIGHT_CODES = {"busy": "busy", "full": "busy", "no_lease": "busy", "unavailable": "light_lost"}
# And by which sentence, where the light daemon's own is not for somebody who looks at a page.
_LIGHT_SENTENCES = {
    "no_lease": "This computer was too busy: the light went out before the picture was taken. Try again."
}


class CaptureRefused(Fault):
    """What is said to the client: a code of the capture client's, and a sentence."""


class Abandoned(PlainError):
    """The client hung up, or the daemon is stopping: nobody waits for these pictures."""


def by_the_lights(fault: LightsFault) -> CaptureRefused:
    """What is said where the lights did not do as asked."""
    sentence = _LIGHT_SENTENCES.get(fault.code, str(fault))
    return CaptureRefused(_LIGHT_CODES.get(fault.code, "light_fault"), sentence)


def by_the_camera(error: CameraFrozen | OSError) -> CaptureRefused:
    """What is said where the camera gave nothing."""
    why = (getattr(error, "strerror", None) or str(error)).removesuffix(".")
    word = why.partition(" ")[0]
    if word == word.capitalize():  # no name, such as USB or I/O
        why = why[:1].lower() + why[1:]
    return CaptureRefused("camera_frozen", f"No picture could be taken: {why}.")


def place(error: BaseException) -> str:
    """Where in the source `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "nowhere" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
