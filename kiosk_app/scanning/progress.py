"""Progress: how far the work on a scan has come, and what it waits for from its patient."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field

from firmware.line.stamps import UvAllowance
from hardware.host.state_name import StateName
from kiosk_app.scanning.close_ups import Marking

LONG_S = 15.0  # a measurement takes a few seconds


class Step(StateName):
    """What the work on a scan does, or waits for."""

    WORKING = "working"  # it waits for nobody
    ASKING = "asking"  # it waits for the patient's word about the eyes
    MARKING = "marking"  # it waits until the patient has marked the last spot
    READY = "ready"  # it has ended, with a result or with what makes one later
    FAILED = "failed"  # it has ended without


class Stage(StateName):
    """What is being worked at."""

    STARTING = "starting"  # it waits for its turn
    PICTURES = "pictures"  # under every light but UV
    UV = "uv"  # the one under UV
    KEEPING = "keeping"  # the pictures, in the vault
    MEASURING = "measuring"  # what is seen in them
    SEALING = "sealing"  # and handing over


@dataclass
class Progress:
    """How far the work on a scan has come: written by the work, read by the scan page.

    While it is asking, a page gives the patient's word by `answer`; while it is marking, by `marked`.
    `reason` is why the scan failed, or why it asks once more. `eyes_protected` holds from the word about the
    eyes on: when the UV light is over, the patient has to be told.
    """

    stage: Stage = Stage.STARTING
    done: int = 0
    of: int = 0
    state: Step = Step.WORKING
    measured_since: float | None = None
    reason: str | None = None
    eyes_protected: bool = False
    answers: queue.SimpleQueue[UvAllowance | None] = field(default_factory=queue.SimpleQueue, repr=False)
    marking: Marking = field(default_factory=Marking)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def measure(self) -> None:
        """The measurement begins."""
        self.measured_since, self.stage = time.monotonic(), Stage.MEASURING

    @property
    def takes_long(self) -> bool:
        """Whether the measurement has gone on for longer than a patient expects."""
        began = self.measured_since
        return self.stage is Stage.MEASURING and began is not None and since(began) > LONG_S

    def ask(self, why: str | None) -> None:
        """Ask for the patient's word; `why` it is asked once more, None at first."""
        with self.lock:
            self.reason, self.eyes_protected, self.state = why, False, Step.ASKING

    def answer(self, word: UvAllowance | None) -> None:
        """The word, or None for no UV. Only the first one counts; where none was asked for, none does."""
        with self.lock:
            if self.state != Step.ASKING:
                return
            self.stage, self.done, self.of = (Stage.UV, 0, 1) if word else (Stage.KEEPING, 0, 0)
            self.reason, self.eyes_protected, self.state = None, word is not None, Step.WORKING
            self.answers.put(word)

    def mark(self) -> None:
        """Ask the patient for spots to look at closely."""
        with self.lock:
            self.state, self.eyes_protected = Step.MARKING, False

    def marked(self) -> None:
        """There is no (further) spot: the work goes on with those that were taken."""
        with self.lock:
            if self.state == Step.MARKING:
                self.stage, self.state = Stage.KEEPING, Step.WORKING
            self.marking.over.set()

    def fail(self, reason: str) -> None:
        """The work has ended without a result. The reason first: a page that reads the state reads on."""
        with self.lock:
            self.reason, self.state = reason, Step.FAILED


def since(began: float, ended: float | None = None) -> float:
    """Seconds from one reading of the monotonic clock to another, or to now."""
    return round((time.monotonic() if ended is None else ended) - began, 3)
