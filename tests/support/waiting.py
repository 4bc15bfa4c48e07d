"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from tests.support.held_up import HeldUp

T = TypeVar("T")
PAUSE_S = 0.02


def wait_until(question: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """The first true answer of `question()`; fails the test with `what` when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(PAUSE_S)


# So many rounds at most; all but the last may be played anew.
ROUNDS = 3
# A thread that could run waited so long for a processor: it breaks a limit of tenths of a second.
HELD_UP_S = 0.05
# What was played anew in the test that runs; tests/conftest.py has it said at the end.
played_anew: list[str] = []


def unless_held_up(play: Callable[[], T], held_up: Callable[[], HeldUp] = HeldUp) -> T:
    """Play what a real limit of time is kept in; anew only where the machine held us up in the round.

    A machine that has no turn for a daemon looks like a fault of it: an assertion does not hold, or a part
    that was given up raises. What fails in a round in which nobody waited for a processor fails the test at
    once, and so does the last of `ROUNDS`. Each round that is played anew is told.
    """
    for number in range(1, ROUNDS + 1):
        waits = held_up()
        try:
            return play()
        except Exception as error:
            longest_s = waits.longest_s()
            said = f"round {number} of {ROUNDS}: held up for {longest_s:.2f} s, {type(error).__name__}"
            print(said, *traceback.format_exception(error), sep="\n")
            if longest_s < HELD_UP_S or number == ROUNDS:
                raise
            played_anew.append(said)
    raise AssertionError("no round was played")
