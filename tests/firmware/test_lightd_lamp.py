"""A new UV lamp is locked until it was measured and staff cleared it."""

from __future__ import annotations

from datetime import date

import pytest

from firmware.lights.core import LightRefused
from tests.support.lightworld import World, refusal

MEASURED = date(2027, 1, 10)


def test_a_new_uv_lamp_is_locked_until_it_was_measured_and_staff_cleared_it() -> None:
    world = World(calibrated_on=MEASURED)
    world.renew_lamp()
    world.lease(1, "s1", world.allowance())
    world.on(1, "white")
    assert refusal(lambda: world.pulse(1, 0.1)) == "uv_fault"
    world.hang_up(1)
    world.advance(0.4)
    with pytest.raises(LightRefused, match="new lamp since 2027-01-15"):
        world.clear_by_staff()
    world.restart()
    assert world.core.status()["fault"] == "uv_lamp_new"
    world.measure_lamp()
    world.lease(1, "s2", world.allowance())
    assert refusal(lambda: world.pulse(1, 0.1)) == "uv_fault"
    world.hang_up(1)
    world.advance(0.4)
    world.clear_by_staff()
    assert world.core.status()["check"] == "passed"
    world.lease(1, "s3", world.allowance())
    world.pulse(1, 0.1)
    assert world.judge() == []


def test_a_new_lamp_in_place_of_a_dead_one_is_measured_too() -> None:
    world = World(calibrated_on=MEASURED)
    world.set_blind(True)
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.advance(0.4, beat=1)
    world.hang_up(1)
    world.advance(0.4)
    assert world.core.status()["fault"] == "uv_unseen"
    world.set_blind(False)
    world.renew_lamp()
    assert refusal(world.clear_by_staff) == "not_calibrated"
    world.measure_lamp()
    world.clear_by_staff()
    assert world.core.status()["fault"] is None


def test_a_new_lamp_stays_locked_over_a_restart_although_an_earlier_fault_was_never_written() -> None:
    world = World(calibrated_on=MEASURED)
    world.set_blind(True)
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.set_ledger_fails(True)
    world.advance(0.4, beat=1)
    world.hang_up(1)
    assert world.core.status()["fault"] == "uv_unseen"
    world.set_ledger_fails(False)
    world.set_blind(False)
    world.renew_lamp()
    world.measure_lamp()
    world.restart()
    assert world.core.status()["fault"] == "uv_lamp_new"


def test_a_new_simulated_lamp_is_not_what_the_profile_says_either() -> None:
    world = World()
    world.renew_lamp()
    assert refusal(world.clear_by_staff) == "not_calibrated"


def test_a_lamp_is_not_renewed_by_nobody_nor_in_a_scan_nor_at_an_unknown_time() -> None:
    world = World()
    for nobody in [" ", "\ud800", "a\nb", "x" * 101]:
        assert refusal(lambda name=nobody: world.core.new_lamp("white", name)) == "bad_request"
    assert refusal(lambda: world.core.new_lamp("green", "nurse")) == "unknown_light"
    world.lease(1, "s1", world.allowance())
    assert refusal(world.renew_lamp) == "busy"
    assert refusal(lambda: world.core.new_lamp("white", "nurse")) == "busy"
    world.hang_up(1)
    world.wall_offset = 0.0
    assert refusal(world.renew_lamp) == "clock_unknown"
    world.set_ledger_fails(True)
    assert refusal(world.renew_lamp) == "ledger_failed"
    assert world.core.status()["fault"] is None
    assert not world.core.new_lamp("white", "nurse")
