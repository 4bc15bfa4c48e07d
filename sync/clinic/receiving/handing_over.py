"""Handing over: an ingest worker that stops leaves to the others what comes, and nothing at the broker."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Sequence

import paho.mqtt.client as mqtt

# Shorter than systemd waits for a service that it stops.
HAND_OVER_S = 5.0
# A connection that ends meanwhile is noticed so soon.
STEP_S = 0.1


def hand_over(client: mqtt.Client, shared: Sequence[str], take: Callable[[], bool]) -> bool:
    """Before a stop: leave these `shared` subscriptions to other workers; True if the session may end too.

    While its session lasts, mosquitto goes on giving it a part of what comes; with it mosquitto forgets what
    it had given it, and nobody else gets that. So the subscriptions end first, then `take` stores and
    acknowledges what is there, until it says that there was nothing. What it cannot store now waits for this
    worker.
    """
    deadline = time.monotonic() + HAND_OVER_S
    answered: queue.SimpleQueue[int] = queue.SimpleQueue()
    client.on_unsubscribe = lambda *given: answered.put(given[2])
    # What the broker had for this worker comes before its answer.
    while _is_answered(client, client.unsubscribe(list(shared))[1], answered, deadline):
        if not take():
            return True
    return False


def _is_answered(
    client: mqtt.Client, number: int | None, answered: queue.SimpleQueue[int], deadline: float
) -> bool:
    while client.is_connected() and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            if answered.get(timeout=min(left, STEP_S)) == number:
                return True
    return False
