"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE_S = 0.02


def wait_until(question: Callable[[], T], what: str = "what was waited for", seconds: float = 60.0) -> T:
    """The first true answer of `question()`; fails the test with `what` when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(PAUSE_S)


ROUNDS = 3


def in_one_of_three_rounds(play: Callable[[], T]) -> T:
    """Play what a real limit of time is kept in, anew until it is kept; fails as the last of three did.

    A machine that stalls for longer than the limit looks like a fault in one round: an assertion does not
    hold, or a part that was given up raises. It does not stall in each of them, whereas a fault is there in
    each. So whatever a round leaves, the next one begins as the first did. Where the last one fails too, what
    the others failed of is printed: it may be another thing.
    """
    before: list[Exception] = []
    while True:
        try:
            return play()
        except Exception as error:
            if len(before) == ROUNDS - 1:
                for number, reason in enumerate(before, 1):
                    print(f"round {number} of {ROUNDS}:", *traceback.format_exception(reason), sep="\n")
                raise
            before.append(error)
