"""What the light sensors see or don't see locks the light."""

from __future__ import annotations

import pytest

from firmware.lights.core import LightRefused
from firmware.pins.sampler import OLDEST_S
from tests.support.lightworld import World, refusal


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
def test_a_sensor_that_sees_nothing_locks_uv_and_leaves_white_light(sensor) -> None:
    world = World()
    world.set_blind(True, sensor)
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.advance(0.5, beat=1)
    assert world.faults == ["uv_unseen"]
    world.on(1, "white")
    with pytest.raises(LightRefused, match="uv_unseen"):
        world.pulse(1, 0.1)
    world.hang_up(1)
    world.advance(0.5)
    world.clear_by_staff()
    assert world.core.status()["check"] == "failed"
    assert world.core.status()["fault"] == "uv_unseen"


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
@pytest.mark.parametrize("how", ["set_blind", "set_lost"])
def test_a_lamp_that_stays_on_is_noticed_by_the_sensor_that_is_left(sensor, how) -> None:
    world = World()
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.2)
    world.advance(0.1, beat=1)
    getattr(world, how)(True, sensor)
    world.set_uv_stuck(True)
    world.advance(0.3, beat=1)
    assert world.core.status()["fault"] == "light_after_off"


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
def test_a_sensor_that_does_not_answer_means_no_uv(sensor) -> None:
    world = World()
    world.set_lost(True, sensor)
    world.lease(1, "s1", world.allowance())
    with pytest.raises(LightRefused) as refused:
        world.pulse(1, 0.1)
    assert refused.value.code == "sense_failed"
    assert world.uv_intervals() == []


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
def test_a_sensor_lost_in_a_pulse_locks_uv_until_it_is_back_and_staff_cleared_it(sensor) -> None:
    world = World()
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.2)
    world.advance(0.1, beat=1)
    world.set_lost(True, sensor)
    world.advance(0.4, beat=1)
    assert world.faults == ["dark_unseen"]
    world.on(1, "white")
    assert refusal(lambda: world.pulse(1, 0.1)) == "uv_fault"
    world.hang_up(1)
    world.advance(0.4)
    assert refusal(world.clear_by_staff) == "sense_failed"
    world.set_lost(False, sensor)
    world.clear_by_staff()
    assert world.core.status()["fault"] is None


@pytest.mark.parametrize("lit_s", [0.03, 0.05, 0.07, 0.3])
def test_a_pulse_is_not_judged_by_what_was_sampled_before_it(lit_s) -> None:
    world = World()

    def sampled_before() -> tuple[bool, bool]:
        levels = [level for at, light, level in world.history if at <= world.now - OLDEST_S]
        return (bool(levels and levels[-1]),) * 2

    world.uv_seen = sampled_before
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.5)
    world.advance(lit_s, beat=1)
    world.core.off(1)
    world.advance(0.3, beat=1)
    assert world.faults == []


def test_who_beats_hears_of_a_fault_that_put_the_light_out() -> None:
    world = World()
    world.lease(1, "s1", world.allowance())
    world.on(1, "white")
    world.set_uv_stuck(True)
    world.advance(0.3)
    assert refusal(lambda: world.beat(1)) == "fault"
    blind = World()
    blind.set_blind(True)
    blind.lease(1, "s1", blind.allowance())
    blind.pulse(1, 0.1)
    blind.advance(0.5, beat=1)
    assert blind.core.status()["fault"] == "uv_unseen"
    blind.beat(1)


def test_a_lamp_that_lights_by_itself_is_noticed_in_the_dark() -> None:
    world = World()
    world.set_uv_stuck(True)
    world.advance(0.3)
    assert world.core.status()["fault"] == "light_unasked"
