"""Close-ups: the spots that a patient marks in one visit, and how the picture of one is taken."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import structlog

from firmware.capture.client import CaptureClient, CaptureFault, Preview
from firmware.line.stamps import ConsentStamp
from hardware.capture import MAX_SPOTS, Capture, Frame, Spot
from hardware.host.errors import PlainError
from kiosk_app.scanning.analyst import AnalysisFailed

log = structlog.get_logger()

# What a picture is refused for; another one may be better. Any other reason is the camera's.
ABOUT_THE_PICTURE = frozenset(("too_dark", "too_blurred", "too_small", "not_skin", "no_lesion"))
LOST, NOT_KEPT = "close_up_lost", "not_kept"  # there is no picture: the camera gave none; it was not kept

Marked = tuple[tuple[Spot, Frame | None], ...]


def without_picture(spot: Spot, why: str) -> tuple[Spot, None]:
    """A marked spot of which there is no picture; the first reason counts."""
    return spot.model_copy(update={"not_taken": spot.not_taken or why}), None


class NotTaken(PlainError):
    """There is no close-up that says anything; str() is the reason's code, `frame` the picture, if any."""

    def __init__(self, reason: str, frame: Frame | None = None) -> None:
        super().__init__(reason)
        self.frame = frame


class Refuses(Protocol):
    """What is needed of the analysis."""

    def refuses(self, close_up: Capture, scan: UUID) -> str | None:
        """Why nothing can be said of this close-up, or None."""
        ...


@dataclass
class Marking:
    """The spots marked so far, with their pictures in memory; `spot` is the one that is looked at now.

    `photographed`: the last thing done was a picture of one. `why` is why its last picture says nothing, and
    `refused` what there is of it all the same: the clinician reads of that spot too, unless another try is
    better. `over` is set when the patient has no more spots.
    """

    taken: list[tuple[Spot, Frame | None]] = field(default_factory=list)
    spot: Spot = field(default_factory=Spot)
    photographed: bool = False
    why: str | None = None
    refused: tuple[Spot, Frame | None] | None = None
    busy: bool = False
    over: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def full(self) -> bool:
        return len(self.taken) >= MAX_SPOTS

    @property
    def marked(self) -> Marked:
        """Every spot that the clinician is to look at, measured or not."""
        return (*self.taken, self.refused) if self.refused else tuple(self.taken)

    def refuse(self, why: str, frame: Frame | None) -> None:
        """A try at `spot` gave a picture that says nothing, or none: an earlier one is better than none."""
        self.why = why
        if frame is not None:
            self.refused = (self.spot, frame)
        elif self.refused is None or self.refused[1] is None:
            self.refused = without_picture(self.spot, why)

    def look_at(self, spot: Spot) -> None:
        """Its picture is the next to be taken."""
        self.spot, self.photographed = spot, False

    def keep(self, taken: tuple[Spot, Frame]) -> None:
        """There is a picture of the spot that says something."""
        self.taken.append(taken)
        self.photographed, self.why, self.refused = True, None, None

    def take_back(self) -> None:
        """The last spot, with its picture, was none."""
        del self.taken[-1:]
        self.photographed = False

    def pass_on(self) -> None:
        """No more tries: what there is of the refused spot goes to the clinician with the others."""
        self.taken, self.why, self.refused = list(self.marked), None, None


class CloseUps:
    """The kiosk's close-up camera, with the look of the analysis at what it took."""

    def __init__(self, camera: CaptureClient, analyst: Refuses) -> None:
        self._camera, self._analyst = camera, analyst

    def preview(self, scan: UUID, consent: ConsentStamp) -> Preview:
        """What it sees now. Raises CaptureFault."""
        return self._camera.close_up_preview(str(scan), consent)

    def take(self, scan: UUID, consent: ConsentStamp, spot: Spot) -> tuple[Spot, Frame]:
        """The close-up of `spot`. Raises NotTaken.

        An analysis that cannot be asked now refuses nothing: it sees the picture again with the others.
        """
        try:
            capture = self._camera.close_up(str(scan), consent)
            reason = self._analyst.refuses(capture, scan)
        except CaptureFault as fault:
            log.warning("close_up_left_out", scan=str(scan), reason=fault.code, why=str(fault))
            raise NotTaken(fault.code) from fault
        except AnalysisFailed as error:
            log.warning("close_up_not_checked", scan=str(scan), why=str(error))
            reason = None
        [frame] = capture.close_ups
        if reason is not None:
            raise NotTaken(reason, frame)
        scale = capture.spots.get(frame.light, Spot()).mm_per_px
        return spot.model_copy(update={"mm_per_px": scale}), frame
