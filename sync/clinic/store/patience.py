"""Patience: how long a daemon waits before it tries once more what has failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from sync.clinic.store.failure import failed_itself, what_failed, why_away

FIRST_S, LONGEST_S = 0.5, 30.0
# A wait is in steps of this length, so that whoever waits can say that it lives.
STEP_S = 1.0

log = structlog.get_logger()


class Patience:
    """Waits that double from `first` to `longest`, until something works again."""

    def __init__(self, first: float = FIRST_S, longest: float = LONGEST_S) -> None:
        self._first, self._longest = first, longest
        self.wait_s = first

    def tell(self, error: Exception, **facts: Any) -> None:
        """Log what failed, and for how long it is waited for."""
        if failed_itself(error):
            event = what_failed(error)
            log.error(event, kind=why_away(error), wait_s=self.wait_s, **facts)
        else:
            log.error("not_foreseen", wait_s=self.wait_s, exc_info=error, **facts)

    def wait(self, stop: threading.Event, alive: Callable[[], None]) -> None:
        """Wait, unless `stop` is set, and longer the next time; `alive` is called meanwhile."""
        until = time.monotonic() + self.wait_s
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, STEP_S)):
            alive()
        self.wait_s = min(2 * self.wait_s, self._longest)

    def over(self) -> None:
        """It works again."""
        self.wait_s = self._first
