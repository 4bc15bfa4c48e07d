"""The application's client of the capture daemon: preview pictures, then one Capture, as memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware.line.link import SEND_S, Link, LinkError, LinkTimeout, close_all
from firmware.line.memory import adopt
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.capture import Capture, CaptureError
from hardware.host.errors import Fault
from hardware.host.patience import so_long, time_left
from hardware.host.peers import servers_of

__all__ = ["CaptureClient", "CaptureFault", "ConsentStamp", "Preview", "UvAllowance", "GUIDANCE"]

PROTOCOL = 1
QUICK_S = 8.0
CONNECT_S = 5.0
PICTURES_S = 30.0
CLOSE_UP_S = 15.0  # a board's own deadline for one picture is 10 at most
# What the preview says to the person in front of the camera; `hold_still` means that all is well.
GUIDANCE = (
    "no_face",
    "two_faces",
    "too_far",
    "too_near",
    "move_left",
    "move_right",
    "move_up",
    "move_down",
    "turn_to_front",
    "too_dark",
    "open_eyes",
    "hold_still",
)


class CaptureFault(Fault):
    """The capture daemon could not do it. `code` names why, str() is a sentence.

    Codes: unavailable, busy, camera_frozen, light_fault, light_lost, no_consent, deadline, moved,
    shroud_open, too_dark, not_calibrated; of the close-up camera close_up_lost, too_dark, too_blurred,
    no_close_up.
    """


@dataclass(frozen=True)
class Preview:
    """What the camera sees now: H×W×3 RGB uint8 (sRGB), not mirrored.

    `guidance` is one of GUIDANCE; left and right are the patient's own. `face_box` is (x0, y0, x1, y1) in
    0…1 of the picture, or None.
    """

    picture: npt.NDArray[np.uint8]
    guidance: str
    face_box: tuple[float, float, float, float] | None


class CaptureClient:
    """Talks to the capture daemon at `socket_path`; every call ends within `timeout` seconds.

    What takes no pictures to keep ends within QUICK_S: a person looks at the page that waits for it.

    Each call makes its own connection, so a daemon that was restarted is simply used again, and calls may
    come from several threads. Hanging up is how a call is given up: the daemon then puts the lights off.
    `server` is the capture daemon's user; see `servers_of` for when it is not named.
    """

    def __init__(self, socket_path: Path, timeout: float = PICTURES_S, server: int | None = None) -> None:
        self._path = Path(socket_path)
        self._timeout = timeout
        self._server = server

    def preview(self, session: str, consent: ConsentStamp) -> Preview:
        """One preview picture with guidance. The white light stays lit, dimly, until `end` or 3 s of silence.

        Raises CaptureFault.
        """
        return self._seen("preview", session, consent)

    def capture(
        self,
        session: str,
        consent: ConsentStamp,
        lights: Collection[str],
        uv: UvAllowance | None,
        on_progress: Callable[[str, int, int], None] | None = None,
        phase: str = "all",
    ) -> Capture:
        """The whole sequence, or one phase of it: "lit" with the eyes open, then "uv" with the eyes
        closed, whose Captures `Capture.joined` makes one. A Capture whose pixels are views into read-only
        memory.

        `lights` are those whose frames somebody reads; only those of the board are lit, besides
        `sequence.ALWAYS`, and none of the others is `missing`.
        `on_progress(light, done, of)` is called as each light begins and with ("done", of, of) at the end.
        Without `uv`, or where the light daemon refuses it, the Capture is whole and `missing` says why there
        is no "uv365" ("eyes_open" where the patient has not closed them). Raises CaptureFault.
        """
        request = {
            "do": "capture",
            "session": session,
            "consent": consent.to_dict(),
            "lights": sorted(lights),
            "uv": uv.to_dict() if uv else None,
            "phase": phase,
        }
        _, memory = self._ask(request, on_progress, self._timeout)
        try:
            return Capture.from_bytes(memory)
        except CaptureError as error:
            raise CaptureFault("unavailable", f"The camera's pictures are not understood: {error}") from error

    def close_up_preview(self, session: str, consent: ConsentStamp) -> Preview:
        """What the close-up camera sees now; `guidance` is too_dark, too_blurred or hold_still.

        Raises CaptureFault.
        """
        return self._seen("close_up_preview", session, consent)

    def close_up(self, session: str, consent: ConsentStamp) -> Capture:
        """One checked still of the close-up camera: a Capture with that frame alone. Raises CaptureFault."""
        request = {"do": "close_up", "session": session, "consent": consent.to_dict()}
        _, memory = self._ask(request, None, CLOSE_UP_S)
        try:
            capture = Capture.from_bytes(memory)
            if len(capture.close_ups) != 1:
                raise CaptureError("one frame of the close-up camera is missing")
            return capture
        except CaptureError as error:
            raise CaptureFault("unavailable", f"The camera's pictures are not understood: {error}") from error

    def end(self, session: str) -> None:
        """The session is over: the preview light goes off now. Raises CaptureFault."""
        self._ask({"do": "end", "session": session})

    def status(self) -> dict[str, Any]:
        """Facts for staff: board, simulated, camera, state, last fault, calibration and why nobody may be
        scanned. Raises CaptureFault.
        """
        answer, _ = self._ask({"do": "status"})
        return {key: value for key, value in answer.items() if key not in ("v", "ok")}

    def _seen(self, what: str, session: str, consent: ConsentStamp) -> Preview:
        answer, memory = self._ask({"do": what, "session": session, "consent": consent.to_dict()})
        try:
            height, width, colours = answer["shape"]
            picture = np.frombuffer(memory, np.uint8).reshape(height, width, colours)
            if colours != 3 or not picture.size:
                raise ValueError("a picture has pixels of three colours")
            box: tuple[float, float, float, float] | None = None
            if answer["face_box"] is not None:
                x0, y0, x1, y1 = map(float, answer["face_box"])
                box = (x0, y0, x1, y1)
            return Preview(picture, str(answer["guidance"]), box)
        except (KeyError, TypeError, ValueError) as error:
            raise CaptureFault("unavailable", "The camera's answer is not understood.") from error

    def _ask(
        self,
        request: dict[str, Any],
        on_progress: Callable[[str, int, int], None] | None = None,
        timeout: float = QUICK_S,
    ) -> tuple[dict[str, Any], memoryview]:
        timeout = time_left(min(timeout, self._timeout))
        deadline = time.monotonic() + timeout
        try:
            servers = servers_of(self._path, "calibration", self._server)
            with Link.connect(self._path, min(_left(deadline), CONNECT_S), servers) as link:
                link.send({"v": PROTOCOL, **request}, timeout=min(_left(deadline), SEND_S))
                while True:
                    answer, fds = link.receive(deadline - time.monotonic())
                    if "progress" not in answer:
                        break
                    close_all(fds)
                    light, done, of = _progress(answer)
                    if on_progress:
                        on_progress(light, done, of)
                if answer.get("ok") is not True:
                    close_all(fds)
                    raise CaptureFault(
                        str(answer.get("code", "unavailable")), str(answer.get("sentence", ""))
                    )
                close_all(fds[1:])
                return answer, adopt(fds[0]) if fds else memoryview(b"")
        except LinkTimeout as error:
            raise CaptureFault(
                "deadline", f"The camera gave no answer within {so_long(timeout)}; it was given up."
            ) from error
        except LinkError as error:
            raise CaptureFault("unavailable", f"The camera cannot be reached. {error}") from error


def _progress(answer: dict[str, Any]) -> tuple[str, int, int]:
    try:
        light, done, of = answer["progress"]
        return str(light), int(done), int(of)
    except (TypeError, ValueError, OverflowError) as error:
        raise LinkError("What it says of its progress is not understood.") from error


def _left(deadline: float) -> float:
    """The seconds until `deadline`. Raises LinkTimeout where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise LinkTimeout("The deadline has passed.")
    return left
