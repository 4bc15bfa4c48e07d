"""How staff clears a fault: by a light check that passes."""

from __future__ import annotations

import pytest

from firmware.lights.core import LightRefused
from firmware.lights.latch import CHECK_WORDS, FAULT_WORDS
from tests.support.lightworld import World, latched


def test_staff_clears_a_fault_by_a_light_check_that_passes() -> None:
    world = latched()
    world.set_uv_stuck(False)
    world.clear_by_staff()
    status = world.core.status()
    assert (status["lit"], status["fault"], status["check"]) == ({}, None, "passed")
    world.restart()
    world.lease(1, "s2", world.allowance())
    world.pulse(1, 0.1)
    assert world.judge() == []


def test_a_lamp_that_is_still_stuck_is_not_cleared() -> None:
    world = latched()
    with pytest.raises(LightRefused):
        world.clear_by_staff()
    world.restart()
    assert world.core.status()["fault"] == "light_after_off"


@pytest.mark.parametrize(
    ("trouble", "why_not"),
    [
        (lambda world: world.set_uv_stuck(True), "light_after_off"),
        (lambda world: world.set_lost(True), "dark_unseen"),
        (lambda world: world.set_blind(True), "uv_unseen"),
        (lambda world: setattr(world, "low_fails", True), "pin_failed"),
        (lambda world: world.set_interlock((False, True), 35.0), "shroud_open"),
        (lambda world: world.set_interlock((True, True), 61.0), "lamp_hot"),
        (lambda world: world.set_sense_fails(True), "sense_failed"),
        (lambda world: world.core.off(7), "interrupted"),
        (lambda world: world.stall(0.12), "interrupted"),
        (lambda world: world.set_ledger_fails(True), "ledger_failed"),
    ],
)
def test_a_light_check_that_fails_says_why(trouble, why_not) -> None:
    world = latched()
    world.set_uv_stuck(False)
    world.core.clear(9, "nurse")
    assert world.core.status()["check_why_not"] is None
    trouble(world)
    world.advance(0.4)
    status = world.core.status()
    assert (status["check"], status["check_why_not"]) == ("failed", why_not)
    assert why_not in CHECK_WORDS


@pytest.mark.parametrize(
    ("cut", "why_not"),
    [
        (lambda world: world.set_interlock((False, False), 35.0), "shroud_open"),
        (lambda world: world.core.off(7), "interrupted"),
        (lambda world: world.lease(7, "s2", None), "interrupted"),
    ],
)
def test_a_light_check_that_was_cut_fails_although_the_lamp_was_seen(cut, why_not) -> None:
    world = World()
    world.set_blind(True)
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.advance(0.4, beat=1)
    world.hang_up(1)
    world.set_blind(False)
    world.advance(0.4)
    world.core.clear(9, "nurse")
    world.advance(0.08)
    cut(world)
    world.advance(0.4)
    status = world.core.status()
    assert (status["check"], status["check_why_not"]) == ("failed", why_not)
    assert status["fault"] == "uv_unseen"
    world.hang_up(7)
    world.set_interlock((True, True), 35.0)
    world.advance(0.4)
    world.clear_by_staff()
    assert world.core.status()["check"] == "passed"


def test_every_word_for_staff_ends_with_what_to_do() -> None:
    assert [words for words in (*FAULT_WORDS.values(), *CHECK_WORDS.values()) if words.count(": ") != 1] == []
    assert all(words[0].isupper() and words.endswith(", then try again") for words in CHECK_WORDS.values())


@pytest.mark.parametrize("interlock", [((False, True), 35.0), ((True, True), 61.0)])
def test_the_light_check_respects_every_interlock(interlock) -> None:
    world = latched()
    world.set_uv_stuck(False)
    world.set_interlock(*interlock)
    before = world.uv_intervals()
    with pytest.raises(LightRefused):
        world.clear_by_staff()
    assert world.uv_intervals() == before


def test_the_light_check_ends_when_its_client_hangs_up() -> None:
    world = latched()
    world.set_uv_stuck(False)
    world.core.clear(9, "nurse")
    world.hang_up(9)
    assert not any(world.levels.values())
    assert world.core.status()["check"] == "failed"


def test_a_fault_is_written_down_before_the_lamp_is_lit_to_clear_it() -> None:
    world = World()
    world.set_ledger_fails(True)
    world.set_uv_stuck(True)
    world.advance(0.4)
    assert world.core.status()["fault"] == "light_unasked"
    world.set_ledger_fails(False)
    world.set_uv_stuck(False)
    # Well before the daemon would have tried again to write by itself.
    world.set_blind(True)
    world.clear_by_staff()
    assert world.core.status()["check"] == "failed"
    world.restart()
    assert world.core.status()["fault"] == "light_unasked"
