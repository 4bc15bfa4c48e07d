"""The schedule of sending: which message is due when."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

FIRST_S = 60.0
LONGEST_S = 15 * 60.0


class Backoff:
    """Delays that double from `first` up to `longest` with full jitter: each is random below its bound."""

    def __init__(self, first: float, longest: float, rng: random.Random | None = None) -> None:
        self._first = first
        self._longest = longest
        self._rng = rng or random.Random()

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures (1 or more); after the first, `first` exactly."""
        if failures <= 1:
            return self._first
        bound = min(self._longest, self._first * 2.0 ** min(failures - 1, 60))
        return self._rng.uniform(0.0, bound)


@dataclass
class _Entry:
    due_at: float
    attempts: int = 0
    suspicions: int = 0


class SendSchedule:
    """When each unreceipted message is to be sent again, by the monotonic clock.

    It lives in memory: after a restart everything is due at once, and the clinic knows a duplicate.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._entries: dict[UUID, _Entry] = {}

    def follow(self, unreceipted: Iterable[UUID], now: float) -> None:
        """Take up what is new, due now, forget what is no longer there, keep the order."""
        self._entries = {message: self._entries.get(message) or _Entry(due_at=now) for message in unreceipted}

    def due(self, now: float, limit: int) -> list[UUID]:
        """Up to `limit` messages whose time has come: in order, but what is suspect after the others."""
        ready = [message for message, entry in self._entries.items() if entry.due_at <= now]
        return sorted(ready, key=lambda message: self._entries[message].suspicions)[:limit]

    def sent(self, message: UUID) -> None:
        """The connection has the message: it is not due before the broker answered or the end of that."""
        entry = self._entries.get(message)
        if entry is not None:
            entry.due_at = math.inf

    def tried(self, message: UUID, now: float) -> None:
        """The broker has answered, whatever it said: the message is due again when no receipt comes."""
        entry = self._entries.get(message)
        if entry is not None:
            entry.attempts, entry.suspicions = entry.attempts + 1, 0
            entry.due_at = now + self._backoff.delay(entry.attempts)

    def not_taken(self, message: UUID, now: float, suspect: bool = False) -> None:
        """The connection went before the broker had answered: it is due at once, and was not tried.

        One that is `suspect` of ending connections is sent behind all others, so that they get through.
        """
        entry = self._entries.get(message)
        if entry is not None:
            entry.due_at = now
            entry.suspicions += suspect

    def done(self, message: UUID) -> None:
        self._entries.pop(message, None)

    def next_at(self) -> float | None:
        """When something is due next."""
        return min((entry.due_at for entry in self._entries.values()), default=None)
