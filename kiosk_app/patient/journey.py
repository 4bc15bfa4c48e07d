"""The patient's journey: one table of states, with what is remembered of one patient in memory."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from uuid import UUID

from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.host.errors import PlainError
from hardware.host.patience import patience, so_long
from hardware.host.state_name import StateName
from kiosk_app.scanning.progress import Progress, Step

CONSENT_TEXT = "2026-11-30"  # goes up whenever the words of the consent page change


class State(StateName):
    """Where a patient is; also the path and the template of the page that they see."""

    LANGUAGE = "language"  # nobody is here, or somebody is about to choose theirs
    ABOUT = "about"  # they read what a scan is
    CONSENT = "consent"  # they are asked whether they agree to it
    LIGHT_QUESTIONS = "light_questions"  # they are asked what would forbid UV
    POSITION = "position"  # they see themselves, and sit right
    SCAN = "scan"  # pictures are taken, or measured
    EYES = "eyes"  # they are asked to protect their eyes, or to do without UV
    SPOTS = "spots"  # they may mark a spot to look at closely
    CLOSE_UP = "close_up"  # they hold the close-up camera to the spot they marked
    CLOSE_UP_AGAIN = "close_up_again"  # its picture was refused: once more, or without
    RESULT = "result"  # they see what was measured
    DONE = "done"  # they are told what became of it
    DECLINED = "declined"  # they did not agree: nothing was taken
    DELETED = "deleted"  # they had it deleted
    EXPIRED = "expired"  # they have not touched the screen for too long


_S = State

# (state, event) -> state. What is not in the table does not happen.
TABLE: dict[tuple[State, str], State] = {
    (_S.LANGUAGE, "choose"): _S.ABOUT,
    (_S.ABOUT, "continue"): _S.CONSENT,
    (_S.CONSENT, "agree"): _S.LIGHT_QUESTIONS,
    (_S.CONSENT, "agree_without_uv"): _S.POSITION,  # a walk-in, or a kiosk without UV: nothing to ask
    (_S.CONSENT, "decline"): _S.DECLINED,
    (_S.LIGHT_QUESTIONS, "none_apply"): _S.POSITION,
    (_S.LIGHT_QUESTIONS, "some_apply"): _S.POSITION,
    (_S.POSITION, "ready"): _S.SCAN,
    (_S.SCAN, "asks_for_eyes"): _S.EYES,  # the other pictures are there: now the one under UV
    (_S.EYES, "protected"): _S.SCAN,
    (_S.EYES, "skip_uv"): _S.SCAN,
    (_S.SCAN, "asks_for_spots"): _S.SPOTS,  # the pictures are kept: is there a spot to look at closely?
    (_S.SPOTS, "mark"): _S.CLOSE_UP,
    (_S.SPOTS, "take_back"): _S.SPOTS,
    (_S.SPOTS, "go_on"): _S.SCAN,
    (_S.CLOSE_UP, "taken"): _S.SPOTS,
    (_S.CLOSE_UP, "not_taken"): _S.CLOSE_UP_AGAIN,
    (_S.CLOSE_UP, "skip"): _S.SPOTS,
    (_S.CLOSE_UP, "give_up"): _S.SCAN,  # the close-up camera is gone
    (_S.CLOSE_UP_AGAIN, "again"): _S.CLOSE_UP,
    (_S.CLOSE_UP_AGAIN, "skip"): _S.SPOTS,
    (_S.CLOSE_UP_AGAIN, "give_up"): _S.SCAN,
    (_S.SCAN, "again"): _S.POSITION,
    (_S.SCAN, "shown"): _S.RESULT,
    (_S.RESULT, "finish"): _S.DONE,
}
# Here the pictures may be kept already, and then leaving does not undo the scan.
_MAY_BE_KEPT = (_S.SCAN, _S.SPOTS, _S.CLOSE_UP, _S.CLOSE_UP_AGAIN, _S.RESULT)
TABLE |= {(state, "leave"): _S.DONE for state in _MAY_BE_KEPT}
TABLE |= {(state, "delete"): _S.DELETED for state in _MAY_BE_KEPT}

# Seconds without a touch before the session is wiped; the page warns for the last WARNING_S of them.
PATIENCE_S: dict[State, float] = {
    _S.LANGUAGE: 90,
    _S.ABOUT: 120,
    _S.CONSENT: 240,
    _S.LIGHT_QUESTIONS: 180,
    _S.POSITION: 120,
    _S.SCAN: 240,
    _S.EYES: 90,
    _S.SPOTS: 120,
    _S.CLOSE_UP: 180,
    _S.CLOSE_UP_AGAIN: 120,
    _S.RESULT: 180,
    _S.DONE: 30,
    _S.DECLINED: 30,
    _S.DELETED: 30,
    _S.EXPIRED: 30,
}
WARNING_S = 30.0
HELD_S = 60.0  # of a session: no page takes longer
# These hold nothing of a patient, so they return to the start without a warning.
ENDS = (_S.DONE, _S.DECLINED, _S.DELETED, _S.EXPIRED)
# What a patient sees as steps of the way.
STEPS = (_S.ABOUT, _S.CONSENT, _S.LIGHT_QUESTIONS, _S.POSITION, _S.SCAN)
# Closing the eyes and marking spots are in the middle of the scan's step.
_IN_THE_SCAN = (_S.EYES, _S.SPOTS, _S.CLOSE_UP, _S.CLOSE_UP_AGAIN)
# Where the work on a scan leads its patient: state of the work -> event.
LEADS = {Step.ASKING: "asks_for_eyes", Step.MARKING: "asks_for_spots", Step.READY: "shown"}


def step_of(state: State, has_uv: bool) -> tuple[int | None, int]:
    """Which step of how many `state` is, None for none; without UV nobody is asked about it."""
    steps = [step for step in STEPS if has_uv or step is not State.LIGHT_QUESTIONS]
    shown = State.SCAN if state in _IN_THE_SCAN else state
    return (steps.index(shown) + 1 if shown in steps else None), len(steps)


class NotNow(PlainError):
    """This event means nothing in this state: a page from earlier, or a second tap."""


class SessionHeld(PlainError):
    """Another page, or the house-keeping, held the session for longer than whoever asks may wait."""


@dataclass
class Session:
    """What the kiosk knows of the patient in front of it. Only in memory; wipe() forgets it."""

    clock: Callable[[], float] = time.monotonic
    language: str = "en"
    text_size: int = 100
    state: State = State.LANGUAGE
    reference: str | None = None
    consent: ConsentStamp | None = None
    scan: UUID | None = None
    # The kept scan whose way to the clinic the last page tells of, when the patient is forgotten already.
    told_of: UUID | None = None
    uv_screened: bool = False
    progress: Progress = field(default_factory=Progress)
    touched: float = 0.0
    turn: str = field(default_factory=secrets.token_urlsafe)  # another one with each step: which page is due
    heard: float = 0.0  # when its browser last asked for anything
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        self.touched = self.heard = self.clock()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes the session within this. Raises SessionHeld after HELD_S, or the caller's own
        patience.
        """
        wait_s = patience(HELD_S)
        if not self.lock.acquire(timeout=wait_s):
            raise SessionHeld(f"The session has been held by another page for more than {so_long(wait_s)}.")
        try:
            yield
        finally:
            self.lock.release()

    @property
    def is_calm(self) -> bool:
        """Whether it holds nothing of a patient: nobody is thrown out when it ends."""
        return self.state in ENDS or self.state is State.LANGUAGE

    def move(self, event: str) -> State:
        """Follow the table. Raises NotNow when the event is not in it."""
        with self.alone():
            try:
                self.state = TABLE[self.state, event]
            except KeyError:
                raise NotNow(f"'{event}' means nothing on the page '{self.state.value}'.") from None
            self.turn = secrets.token_urlsafe()
            self.touch()
            return self.state

    def touch(self) -> None:
        """The patient did something: the time starts anew."""
        self.touched = self.clock()

    def left(self) -> float:
        """Seconds until the session is wiped; a scan at work is waited for."""
        if self.state is State.SCAN and self.progress.state is Step.WORKING:
            self.touch()
        return self.touched + PATIENCE_S[self.state] - self.clock()

    def stamp(self) -> ConsentStamp:
        """The record of a patient who presses "I agree" now; it is one once it is written down."""
        return ConsentStamp(CONSENT_TEXT, self.language, datetime.now(timezone.utc))

    def follow(self) -> None:
        """Go to where the work on the scan leads."""
        if self.state is not State.SCAN:
            return  # any other page is shown without waiting for what holds the session
        with self.alone():
            if self.state is State.SCAN and self.progress.state in LEADS:
                self.move(LEADS[self.progress.state])

    @property
    def may_have_uv(self) -> bool:
        """The clinic knows the patient, and the UV questions were all answered with a clear no."""
        return self.reference is not None and self.uv_screened

    def eyes_are_protected(self) -> UvAllowance | None:
        """The patient's word of this moment, as the light daemon needs to hear it before any UV."""
        if self.reference is None or not self.may_have_uv:
            return None
        return UvAllowance(self.reference, screened=True, eyes_closed_confirmed_at=time.time())

    def begin_again(self) -> None:
        """Back to the position page for another try."""
        with self.alone():
            self.move("again")
            self.progress = Progress()

    def wipe(self, state: State = State.LANGUAGE) -> None:
        """Forget the patient. What their last page needs stays only where it still has to be read."""
        with self.alone():
            if state is State.LANGUAGE:
                self.language, self.text_size, self.told_of = "en", 100, None
            self.state = state
            self.reference = self.consent = self.scan = None
            self.uv_screened = False
            self.progress = Progress()
            self.turn = secrets.token_urlsafe()
            self.touch()
