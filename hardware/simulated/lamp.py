"""The heat of the simulated UV lamp: it warms while it is lit, and cools down again."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hardware.simulation import Simulation


class LampHeat:
    """How much warmer than at rest the lamp is: dx/dt = warming · level − x / cooling time."""

    def __init__(self, simulation: Simulation, begun_ns: int) -> None:
        self._warms, self._cools = simulation.lamp_warms_c_per_s, simulation.lamp_cools_s
        self._at_ns, self._above_c = begun_ns, 0.0

    def above_rest_c(self, shone: Iterable[tuple[int, int, float]], now_ns: int) -> float:
        """K above rest at `now_ns`; `shone` are the (from, to, level) in monotonic ns in which it was lit."""
        for since_ns, to_ns, level in shone:
            if to_ns > self._at_ns and since_ns < now_ns:
                self._pass(since_ns, 0.0)
                self._pass(min(to_ns, now_ns), level)
        self._pass(now_ns, 0.0)
        return self._above_c

    def _pass(self, to_ns: int, level: float) -> None:
        """Let the time until `to_ns` pass at one level of light."""
        seconds = (to_ns - self._at_ns) / 1e9
        if seconds <= 0:
            return
        final = self._warms * level * self._cools
        self._above_c = final + (self._above_c - final) * math.exp(-seconds / self._cools)
        self._at_ns = to_ns
