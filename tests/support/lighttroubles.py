"""Troubles: each thing that a FaultRun breaks, before a scan or in the middle of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from firmware.lights.core import LightRefused
from firmware.line.stamps import UvAllowance

if TYPE_CHECKING:
    from tests.support.lightfaults import Scene

_NAN = float("nan")


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


def lose_the_ledger(scene: Scene) -> None:
    """Whose scan it was, the new one does not know; some staff clear the lock, and then that of UV."""
    scene.scan += 1
    scene.world.lose_ledger(another=scene.random.random() < 0.5)
    if scene.random.random() < 0.5:
        scene.world.restart()
    for _ in range(scene.random.choice([0, 0, 1, 2])):
        scene.clear()


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


BEFORE = [
    lose_the_ledger,
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
DURING = [
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
