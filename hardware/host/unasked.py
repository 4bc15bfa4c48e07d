"""Unasked: the connections to a daemon that have said nothing yet, a bounded number for each user."""

from __future__ import annotations

import threading
from typing import Protocol


class Connection(Protocol):
    """What can be ended, so that whoever reads it goes on."""

    def hang_up(self) -> None: ...


class Unasked:
    """Beyond `most` of one user, a new connection costs the one whose question has been awaited longest.

    So whoever asks is answered, however many others only connect.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[tuple[int, Connection]] = []
        self._lock = threading.Lock()

    def add(self, uid: int, connection: Connection) -> None:
        """A process of `uid` has connected."""
        with self._lock:
            self._waiting.append((uid, connection))
            its = [one for one in self._waiting if one[0] == uid]
            if len(its) > self._most:
                self._waiting.remove(its[0])
                # Under the lock: it cannot be closed meanwhile, and its number be another's.
                its[0][1].hang_up()

    def has_asked(self, connection: Connection) -> None:
        """The question of `connection` is here, or will not come; before it is closed."""
        with self._lock:
            self._waiting = [one for one in self._waiting if one[1] is not connection]
