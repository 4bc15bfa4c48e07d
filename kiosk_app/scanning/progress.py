"""Progress: how far the work on a scan has come, and what it waits for from its patient."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field

from firmware.line.stamps import UvAllowance
from kiosk_app.scanning.close_ups import Marking


@dataclass
class Progress:
    """How far the work on a scan has come: written by the work, read by the scan page.

    In the state "asking" the work waits for the patient's word about the eyes, which a page gives by
    `answer`; in the state "marking" for the patient to have marked the last spot (`marked`). `reason` is why
    the scan failed, or why it asks once more. `eyes_protected` holds from the word about the eyes on: when
    the UV light is over, the patient has to be told.
    """

    stage: str = "starting"
    done: int = 0
    of: int = 0
    state: str = "working"  # working, asking, marking, ready, failed
    reason: str | None = None
    eyes_protected: bool = False
    answers: queue.SimpleQueue[UvAllowance | None] = field(default_factory=queue.SimpleQueue, repr=False)
    marking: Marking = field(default_factory=Marking)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(self, why: str | None) -> None:
        """Ask for the patient's word; `why` it is asked once more, None at first."""
        with self.lock:
            self.reason, self.eyes_protected, self.state = why, False, "asking"

    def answer(self, word: UvAllowance | None) -> None:
        """The word, or None for no UV. Only the first one counts; where none was asked for, none does."""
        with self.lock:
            if self.state != "asking":
                return
            self.stage, self.done, self.of = ("uv", 0, 1) if word else ("keeping", 0, 0)
            self.reason, self.eyes_protected, self.state = None, word is not None, "working"
            self.answers.put(word)

    def mark(self) -> None:
        """Ask the patient for spots to look at closely."""
        with self.lock:
            self.state, self.eyes_protected = "marking", False

    def marked(self) -> None:
        """There is no (further) spot: the work goes on with those that were taken."""
        with self.lock:
            if self.state == "marking":
                self.stage, self.state = "keeping", "working"
            self.marking.over.set()

    def fail(self, reason: str) -> None:
        """The work has ended without a result. The reason first: a page that reads the state reads on."""
        with self.lock:
            self.reason, self.state = reason, "failed"
