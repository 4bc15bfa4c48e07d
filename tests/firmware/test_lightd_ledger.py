"""A dose ledger that is lost or cannot be read, and a fault that cannot be written into it."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from firmware.lights.core import LightRefused
from firmware.lights.doses import DAY_S, FAULT_UNKNOWN, LEDGER_NEW, DoseLedger
from tests.support.lightworld import World, latched, refusal


@pytest.fixture
def lost(tmp_path: Path) -> World:
    """A world whose ledger is lost while the daemon runs."""
    world = World(calibrated_on=date(2027, 1, 15))
    world._database = ledger = DoseLedger(tmp_path / "doses.sqlite")
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.advance(0.4, beat=1)
    (tmp_path / "doses.sqlite").unlink()
    ledger.close()
    return world


def test_a_ledger_lost_while_the_daemon_runs_locks_every_light(lost: World) -> None:
    assert refusal(lambda: lost.pulse(1, 0.1)) == "fault"
    assert lost.core.status()["fault"] == FAULT_UNKNOWN
    assert refusal(lambda: lost.on(1, "white")) == "fault"


@pytest.mark.parametrize("what", ["pulse", "clear"])
def test_a_ledger_lost_under_the_open_daemon_gives_not_one_pulse(tmp_path: Path, what) -> None:
    world = World(calibrated_on=date(2027, 1, 15))
    world._database = DoseLedger(tmp_path / "doses.sqlite")
    if what == "clear":
        world.set_uv_stuck(True)
        world.advance(0.4)
        world.set_uv_stuck(False)
        world.advance(0.4)
    else:
        world.lease(1, "s1", world.allowance())
        world.pulse(1, 0.1)
        world.advance(0.6, beat=1)
    before = world.uv_intervals()
    os.truncate(tmp_path / "doses.sqlite", 0)
    ask = world.clear_by_staff if what == "clear" else lambda: world.pulse(1, 0.1)
    assert refusal(ask) == "ledger_failed"
    world.advance(0.4, beat=1)
    assert world.uv_intervals() == before


def test_after_a_lost_ledger_uv_stays_off_for_24_hours(lost: World) -> None:
    lost.restart()
    lost.clear_by_staff()
    assert lost.core.status()["fault"] == LEDGER_NEW
    lost.clear_by_staff()
    assert lost.core.status()["fault"] is None
    lost.lease(1, "s2", lost.allowance())
    lost.on(1, "white")
    lost.advance(0.4, beat=1)
    assert refusal(lambda: lost.pulse(1, 0.1)) == "ledger_new"
    lost.hang_up(1)
    lost.skip(DAY_S)
    lost.lease(1, "s3", lost.allowance())
    lost.pulse(1, 0.1)


def test_a_lost_ledger_does_not_make_a_new_lamp_the_measured_one(lost: World) -> None:
    """How often it was renewed is kept beside the lamps' hours, too."""
    lost.renewals["uv365"] += 1
    lost.restart()
    lost.clear_by_staff()
    with pytest.raises(LightRefused, match="Run 'dermakiosk lights new-lamp' once more"):
        lost.clear_by_staff()
    lost.renew_lamp()
    lost.measure_lamp()
    lost.clear_by_staff()
    assert lost.core.status()["fault"] is None


@pytest.mark.parametrize(
    "no_pulse",
    [
        lambda world: setattr(world, "wall_offset", 0.0),
        lambda world: world.set_blind(True),
        lambda world: world.set_interlock((False, True), 35.0),
        lambda world: setattr(world, "wall_offset", world.wall_offset + 366 * DAY_S),
    ],
    ids=["clock unknown", "lamp dead", "shroud open", "measured too long ago"],
)
def test_after_a_lost_ledger_white_light_needs_no_pulse(lost: World, no_pulse) -> None:
    lost.restart()
    no_pulse(lost)
    before = lost.uv_intervals()
    lost.clear_by_staff()
    assert (lost.core.status()["check"], lost.core.status()["fault"]) == ("passed", LEDGER_NEW)
    assert lost.uv_intervals() == before
    lost.lease(1, "s2", lost.allowance())
    lost.on(1, "white")
    assert refusal(lambda: lost.pulse(1, 0.1)) == "uv_fault"


@pytest.mark.parametrize("trouble", [World.set_uv_stuck, World.set_lost])
def test_after_a_lost_ledger_white_light_needs_both_sensors_to_see_darkness(lost: World, trouble) -> None:
    lost.restart()
    lost.core.clear(9, "nurse")
    trouble(lost, True)
    lost.advance(0.4)
    assert lost.core.status()["check"] == "failed"
    assert refusal(lambda: lost.lease(1, "s2", None)) == "fault"


def test_a_fault_that_cannot_be_read_at_the_start_locks_every_light_until_it_is() -> None:
    world = latched()
    world.set_uv_stuck(False)
    world.set_ledger_fails(True)
    world.restart()
    assert world.core.status()["fault"] == FAULT_UNKNOWN
    assert refusal(lambda: world.lease(1, "s1", None)) == "fault"
    assert refusal(world.clear_by_staff) == "ledger_failed"
    world.set_ledger_fails(False)
    world.advance(6.0)
    assert world.core.status()["fault"] == "light_after_off"


def test_a_ledger_that_can_be_read_again_and_has_no_fault_locks_nothing() -> None:
    world = World()
    world.set_ledger_fails(True)
    world.restart()
    world.set_ledger_fails(False)
    world.advance(6.0)
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)


def test_a_lamp_that_lights_while_no_fault_could_be_read_is_latched_by_its_name() -> None:
    world = World()
    world.set_ledger_fails(True)
    world.restart()
    world.set_uv_stuck(True)
    world.advance(0.4)
    world.set_ledger_fails(False)
    world.set_uv_stuck(False)
    world.advance(6.0)
    world.restart()
    assert world.core.status()["fault"] == "light_unasked"


def test_a_fault_that_could_not_be_written_is_written_later() -> None:
    world = World()
    world.set_ledger_fails(True)
    world.set_uv_stuck(True)
    world.advance(0.3)
    world.set_ledger_fails(False)
    world.set_uv_stuck(False)
    world.advance(6.0)
    world.restart()
    assert world.core.status()["fault"] == "light_unasked"
