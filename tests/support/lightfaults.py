"""FaultRun: random clients and injected faults against the light core, on a clock that is handed in."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from firmware.lightcore import LightRefused
from firmware.stamps import UvAllowance
from tests.support.lightworld import World

# One World lives for so many faults; then its tape is judged and a fresh one begins.
_PER_WORLD = 120
# 1,800,001,000 s after 1970, where a World's wall clock begins.
_TODAY = date(2027, 1, 15)
_NAN = float("nan")


@dataclass
class Outcome:
    """How many faults were injected, of which kind, and what the judge found."""

    faults: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    pulses: int = 0
    uv_seconds: float = 0.0

    @property
    def count(self) -> int:
        return self.faults.total()

    def add(self, other: Outcome) -> None:
        """Take in what another run has found."""
        self.faults.update(other.faults)
        self.violations.update(other.violations)
        self.pulses += other.pulses
        self.uv_seconds += other.uv_seconds


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
        outcome.uv_seconds += sum(b - a for a, b in uv)
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
            self.inject(random.choice(_BEFORE))
        self.scan += random.random() < 0.5
        patient = random.choice(["p1", f"p{self.scan // 2}", f"p{self.scan}"])
        many = random.random() < 0.1
        trouble = random.choice(_DURING)
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


def open_shroud_a(scene: Scene) -> None:
    scene.world.set_interlock((False, True), scene.world.temperature)


def open_shroud_b(scene: Scene) -> None:
    scene.world.set_interlock((True, False), scene.world.temperature)


def flicker_shroud(scene: Scene) -> None:
    for _ in range(3):
        scene.world.set_interlock((scene.random.random() < 0.5, True), 35.0)
        scene.world.advance(scene.random.uniform(0.001, 0.03))
    scene.world.set_interlock((True, True), 35.0)


def heat_the_lamp(scene: Scene) -> None:
    scene.world.set_interlock((True, True), scene.random.choice([60.0, 61.0, 200.0, _NAN]))


def lose_the_senses(scene: Scene) -> None:
    scene.world.set_sense_fails(True)


def stick_the_lamp(scene: Scene) -> None:
    scene.world.set_uv_stuck(True)


def blind_the_photodiode(scene: Scene) -> None:
    scene.world.set_blind(True)


def blind_the_current_sense(scene: Scene) -> None:
    scene.world.set_blind(True, 1)


def lose_the_photodiode(scene: Scene) -> None:
    scene.world.set_lost(True)


def lose_the_current_sense(scene: Scene) -> None:
    scene.world.set_lost(True, 1)


def stick_the_lamp_half_seen(scene: Scene) -> None:
    """A lamp that does not go out, and one of the two sensors that should see it does not."""
    which = scene.random.randrange(2)
    if scene.random.random() < 0.5:
        scene.world.set_blind(True, which)
    else:
        scene.world.set_lost(True, which)
    scene.world.set_uv_stuck(True)


def kill_after_the_look(scene: Scene) -> None:
    """The same, and the daemon dies right after it has looked for darkness; then all is mended."""
    stick_the_lamp_half_seen(scene)
    scene.world.core.off(1)
    scene.world.advance(0.07)
    scene.world.restart()
    scene.world.set_uv_stuck(False)
    for which in range(2):
        scene.world.set_blind(False, which)


def fail_the_ledger(scene: Scene) -> None:
    scene.world.set_ledger_fails(True)


def slow_the_ledger(scene: Scene) -> None:
    scene.world.ledger_takes = scene.random.choice([0.1, 1.0, 2.5, 35.0])


def open_while_the_ledger_writes(scene: Scene) -> None:
    scene.world.when_charged = lambda: scene.world.set_interlock((False, True), 35.0)


def fail_the_pins(scene: Scene) -> None:
    scene.world.pin_fails = True


def keep_a_pin_from_going_low(scene: Scene) -> None:
    """A pin's driver fails between the lease and the pulse."""
    world = scene.world
    with contextlib.suppress(LightRefused):
        world.lease(1, f"scan {scene.scan}", world.allowance(f"p{scene.scan}"))
    world.low_fails = True
    with contextlib.suppress(LightRefused):
        world.pulse(1, 0.1)
    world.advance(0.2)


def jump_the_clock_ahead(scene: Scene) -> None:
    scene.world.wall_offset += scene.random.choice([40.0, 3600.0, 30 * 3600.0])


def jump_the_clock_back(scene: Scene) -> None:
    scene.world.wall_offset -= scene.random.choice([10.0, 3600.0, 30 * 3600.0])


def lose_the_clock(scene: Scene) -> None:
    world = scene.world
    offset, world.wall_offset = world.wall_offset, scene.random.choice([0.0, 1.6e9])
    with contextlib.suppress(LightRefused):
        world.lease(1, f"unset {scene.scan}", world.allowance())
        world.pulse(1, 0.1)
        world.advance(0.2)
    world.wall_offset = offset


def have_nobody_vouch_for_the_clock(scene: Scene) -> None:
    world = scene.world
    world.clock_known = False
    with contextlib.suppress(LightRefused):
        world.lease(1, f"unknown {scene.scan}", world.allowance())
        world.pulse(1, 0.1)
        world.advance(0.2)
    world.clock_known = True


def silence(scene: Scene) -> None:
    """The client neither beats nor hangs up; half of the time for long."""
    if scene.random.random() < 0.5:
        scene.world.advance(3.0)


def hang_up(scene: Scene) -> None:
    scene.world.hang_up(1)


def hang_up_a_stranger(scene: Scene) -> None:
    scene.world.hang_up(2)


def kill_the_daemon(scene: Scene) -> None:
    scene.world.restart()


def terminate_the_daemon(scene: Scene) -> None:
    scene.world.terminate()


def stall_the_daemon(scene: Scene) -> None:
    scene.world.stall(scene.random.choice([0.02, 0.06, 0.3, 1.2, 5.0]))


def intrude(scene: Scene) -> None:
    """A client without a lease asks for everything."""
    world, random = scene.world, scene.random
    ask: list[Callable[[], object]] = [
        lambda: world.on(2, "white"),
        lambda: world.on(2, "uv365"),
        lambda: world.pulse(2, 0.5),
        lambda: world.beat(2),
        lambda: world.core.off(2),
        lambda: world.lease(2, "other", world.allowance("p3")),
    ]
    for request in random.sample(ask, len(ask)):
        with contextlib.suppress(LightRefused):
            request()


def ask_for_nonsense(scene: Scene) -> None:
    world = scene.world
    with contextlib.suppress(LightRefused):
        world.pulse(1, scene.random.choice([0.0, -1.0, 0.96, 1.2, 60.0, _NAN, float("inf")]))
        for _ in range(30):
            world.beat(1)
            world.advance(0.1)
    for light, level in [("uv365", 1.0), ("white", 2.0), ("white", _NAN), ("lamp", 1.0)]:
        with contextlib.suppress(LightRefused):
            world.on(1, light, level)


def assert_too_little(scene: Scene) -> None:
    """A lease whose app did not ask, did not screen, or asked for the eyes too long ago."""
    world, wall = scene.world, scene.world.wall()
    lacking = [
        None,
        UvAllowance("", True, wall),
        UvAllowance("p1", False, wall),
        UvAllowance("p1", True, wall - 31.0),
        UvAllowance("p1", True, wall + 5.0),
        UvAllowance("p1", True, _NAN),
        UvAllowance("p4", True, wall, 440.0),
    ]
    world.lease(1, f"scan {scene.scan}", scene.random.choice(lacking))
    for _ in range(2):
        world.pulse(1, 0.9)
        for _ in range(10):
            world.beat(1)
            world.advance(0.1)


def lease_for_no_session(scene: Scene) -> None:
    scene.world.lease(1, "", scene.world.allowance())
    scene.world.pulse(1, 0.1)


def flash(scene: Scene) -> None:
    for _ in range(4):
        with contextlib.suppress(LightRefused):
            scene.world.on(1, scene.random.choice(["white", "parallel"]))
            scene.world.core.off(1)
        scene.world.advance(scene.random.choice([0.0, 0.05, 0.2]))


def take_all_there_is(scene: Scene) -> None:
    """An app without sense: scan after scan of the longest pulses, on a clock that someone sets ahead."""
    world, random = scene.world, scene.random
    ahead = random.choice([0.0, 0.0, 30 * 3600.0])
    for _ in range(random.choice([1, 1, 4])):
        scene.scan += 1
        for _ in range(8):
            with contextlib.suppress(LightRefused):
                world.lease(1, f"scan {scene.scan}", world.allowance("p1"))
                world.pulse(1, 0.95)
                for _ in range(10):
                    world.beat(1)
                    world.advance(0.1)
            world.advance(0.1)
        world.wall_offset += ahead


def kill_without_ledger(scene: Scene) -> None:
    """A fault is latched; then the ledger fails, the daemon is killed, and the ledger comes back."""
    world = scene.world
    world.set_blind(True)
    scene.pulse("p1", None, long=False)
    world.set_ledger_fails(True)
    world.restart()
    world.set_blind(False)
    world.set_ledger_fails(False)


def renew_the_lamp(scene: Scene) -> None:
    """Staff put in a new lamp, and some think that a light check will do."""
    scene.world.hang_up(1)
    scene.world.advance(0.4)
    scene.world.renew_lamp()
    if scene.random.random() < 0.5:
        scene.clear()


def clear_at_will(scene: Scene) -> None:
    """Staff clears a fault without looking, whatever state the lamp is in."""
    scene.clear()


_BEFORE = [
    open_shroud_a,
    open_shroud_b,
    heat_the_lamp,
    lose_the_senses,
    stick_the_lamp,
    blind_the_photodiode,
    blind_the_current_sense,
    lose_the_photodiode,
    lose_the_current_sense,
    stick_the_lamp_half_seen,
    fail_the_ledger,
    slow_the_ledger,
    keep_a_pin_from_going_low,
    open_while_the_ledger_writes,
    jump_the_clock_ahead,
    jump_the_clock_back,
    lose_the_clock,
    have_nobody_vouch_for_the_clock,
    kill_the_daemon,
    intrude,
    assert_too_little,
    lease_for_no_session,
    flash,
    take_all_there_is,
    kill_without_ledger,
    renew_the_lamp,
    clear_at_will,
]
_DURING = [
    open_shroud_a,
    open_shroud_b,
    flicker_shroud,
    heat_the_lamp,
    lose_the_senses,
    stick_the_lamp,
    blind_the_photodiode,
    blind_the_current_sense,
    lose_the_photodiode,
    lose_the_current_sense,
    stick_the_lamp_half_seen,
    kill_after_the_look,
    fail_the_ledger,
    fail_the_pins,
    keep_a_pin_from_going_low,
    jump_the_clock_ahead,
    jump_the_clock_back,
    silence,
    hang_up,
    hang_up_a_stranger,
    kill_the_daemon,
    terminate_the_daemon,
    stall_the_daemon,
    intrude,
    ask_for_nonsense,
]
