"""FaultRun: random clients and injected faults against the light core, on a clock that is handed in."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from firmware.lights.core import LightRefused
from tests.support.lighttroubles import BEFORE, DURING, silence
from tests.support.lightworld import World

# One World lives for so many faults; then its tape is judged and a fresh one begins.
_PER_WORLD = 120
# 1,800,001,000 s after 1970, where a World's wall clock begins.
_TODAY = date(2027, 1, 15)


@dataclass
class Outcome:
    """How many faults were injected, of which kind, and what the judge found."""

    faults: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    pulses: int = 0
    uv_s: float = 0.0

    @property
    def count(self) -> int:
        return self.faults.total()

    def add(self, other: Outcome) -> None:
        """Take in what another run has found."""
        self.faults.update(other.faults)
        self.violations.update(other.violations)
        self.pulses += other.pulses
        self.uv_s += other.uv_s


def run_faults(count: int, seed: int, until: str | None = None, **world: Any) -> Outcome:
    """Inject `count` faults; `world` goes to each World. A violation with `until` in it ends the run."""
    random, outcome = Random(seed), Outcome()
    while outcome.count < count and not (until and any(until in name for name in outcome.violations)):
        scene = Scene(random, _random_world(random, **world), outcome.faults)
        end = min(count, outcome.count + _PER_WORLD)
        while outcome.count < end:
            scene.play()
        outcome.violations.update(scene.world.judge())
        uv = scene.world.uv_intervals()
        outcome.pulses += len(uv)
        outcome.uv_s += sum(b - a for a, b in uv)
    return outcome


def _random_world(random: Random, **more: Any) -> World:
    irradiance = random.choice([33.0] * 8 + [20.0, 8.0, 8.0, 34.0])
    age = random.choice([0] * 8 + [100, 364, 366, 1000])
    if random.random() < 0.15:
        # A kiosk that was just switched on, and has not heard of the time.
        world = World(irradiance, **more)
        world.wall_offset = random.choice([0.0, 1.6e9])
        return world
    return World(irradiance, random.choice([_TODAY - timedelta(days=age), "simulated"]), **more)


class Scene:
    """One World with clients who do as they like, and things that break while they do."""

    def __init__(self, random: Random, world: World, counts: Counter[str]) -> None:
        self.random, self.world, self.counts = random, world, counts
        self.scan = 0
        self.latest = max(world.wall_offset, 1.8e9)

    def play(self) -> None:
        """One scan in which something is broken, or breaks; then it is mended."""
        random = self.random
        if random.random() < 0.5:
            self.inject(random.choice(BEFORE))
        self.scan += random.random() < 0.5
        patient = random.choice(["p1", f"p{self.scan // 2}", f"p{self.scan}"])
        many = random.random() < 0.1
        trouble = random.choice(DURING)
        for pulse in range(random.randint(4, 8) if many else random.randint(1, 2)):
            self.pulse(patient, trouble if pulse == 0 else None, long=many)
        self.mend()

    def pulse(self, patient: str, trouble: Callable[[Scene], None] | None, long: bool) -> None:
        """Lease, light, beat; with `trouble` somewhere in between."""
        random, world = self.random, self.world
        with contextlib.suppress(LightRefused):
            world.lease(1, f"scan {self.scan}", world.allowance(patient))
        seconds = random.choice([0.95, 0.95, 0.5]) if long else random.choice([0.05, 0.1, 0.2, 0.3, 0.6])
        with contextlib.suppress(LightRefused):
            if random.random() < 0.1:
                world.on(1, random.choice(["white", "cross", "dir0"]))
            else:
                world.pulse(1, seconds)
        steps = int(seconds / 0.1) + 1
        at = random.randrange(min(steps, 3))
        for step in range(steps):
            if step == at and trouble is not None:
                world.advance(random.uniform(0.0, 0.05))
                self.inject(trouble)
            if not (step >= at and trouble is silence):
                with contextlib.suppress(LightRefused):
                    world.beat(1)
            world.advance(0.1)
        if random.random() < 0.3:
            world.core.off(1)
        world.advance(random.choice([0.02, 0.06, 0.3, 0.34]))

    def inject(self, fault: Callable[[Scene], None]) -> None:
        self.counts[fault.__name__] += 1
        with contextlib.suppress(LightRefused):
            fault(self)

    def mend(self) -> None:
        """All is well again, mostly; staff clears what latched, sometimes too early."""
        random, world = self.random, self.world
        if random.random() < 0.15:
            self.clear()
        self.latest = max(self.latest, world.wall_offset)
        if random.random() < 0.8:
            world.wall_offset = self.latest
            world.set_interlock((True, True), 35.0)
            world.set_sense_fails(False)
            world.pin_fails = world.low_fails = False
            world.ledger_takes = 0.0
            if world.ledger_fails:
                world.set_ledger_fails(False)
            if world.uv_stuck:
                world.set_uv_stuck(False)
            for which, how in enumerate(world.lamp_senses):
                if how:
                    world.set_blind(False, which)
        if world.lamp_is_new and random.random() < 0.8:
            world.measure_lamp()
        if world.core.status()["fault"] and random.random() < 0.7:
            self.clear()
        if random.random() < 0.2:
            world.skip(random.choice([60, 3600, 6 * 3600, 25 * 3600]))

    def clear(self) -> None:
        self.world.hang_up(1)
        self.world.advance(0.4)
        with contextlib.suppress(LightRefused):
            self.world.clear_by_staff()
