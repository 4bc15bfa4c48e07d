"""The schedule of a training run: how far it is, and the learning rate there."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `seconds`, unless 0, ends the run by the clock; the learning rate then follows
    the clock.
    """

    epochs: int = 30
    batch: int = 32
    rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: float = 0.03
    average: float = 0.999
    patience: int = 10**9
    every: int = 1
    seed: int = 1
    seconds: float = 0.0

    def progress(self, epochs: float, elapsed: float) -> float:
        """The share of the run, 0…1, that is behind it after `epochs` and `elapsed` seconds."""
        return min(1.0, elapsed / self.seconds if self.seconds else epochs / self.epochs)

    def rate_at(self, progress: float) -> float:
        """The learning rate: up in a line over `warm_up`, then down along half a cosine."""
        if progress < self.warm_up:
            return self.rate * progress / self.warm_up
        return self.rate * 0.5 * (1 + math.cos(math.pi * (progress - self.warm_up) / (1 - self.warm_up)))


def schedule(settings: dict[str, Any]) -> Schedule:
    """The Schedule among a task's settings."""
    known = {field.name for field in fields(Schedule)}
    return Schedule(**{name: value for name, value in settings.items() if name in known})
