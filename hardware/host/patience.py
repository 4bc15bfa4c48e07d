"""Patience: how long whoever is at work here waits for others, for each of them and for all together."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class _Patience:
    each_s: float = math.inf
    until: float = math.inf  # by the monotonic clock


_patience: ContextVar[_Patience] = ContextVar("patience")
_ENDLESS = _Patience()


@contextlib.contextmanager
def waiting_at_most(each_s: float, in_all_s: float = math.inf) -> Iterator[None]:
    """What is done within this waits so long for what another one holds, and for all of its waits together.

    Within another such block the shorter one counts. Threads begun in it wait as long as they like.
    """
    outer = _patience.get(_ENDLESS)
    until = min(outer.until, time.monotonic() + in_all_s)
    token = _patience.set(_Patience(min(outer.each_s, each_s), until))
    try:
        yield
    finally:
        _patience.reset(token)


def patience(longest_s: float) -> float:
    """How long, in seconds, to wait for what another one holds: `longest_s`, or less where that is said."""
    return min(_patience.get(_ENDLESS).each_s, time_left(longest_s))


def time_left(longest_s: float) -> float:
    """How long, in seconds, to wait for an answer: `longest_s`, or what is left of all waits together."""
    return max(0.0, min(longest_s, _patience.get(_ENDLESS).until - time.monotonic()))


def so_long(wait_s: float) -> str:
    """A wait, for a sentence after "within" or "for more than": "0.3 s", or that next to none was left.

    It is rounded down: of more than that the sentence would not be true.
    """
    tenths = math.floor(10 * wait_s)
    return f"{tenths / 10:g} s" if tenths > 0 else "the moment that was left"
