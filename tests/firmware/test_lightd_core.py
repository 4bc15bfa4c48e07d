"""The light core's rules, driven by an injected clock."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import date
from typing import NoReturn

import pytest

from firmware.lights.core import LightRefused
from tests.support.lightworld import CONSENT, World


def leased(uv: bool = True, irradiance: float = 33.0) -> World:
    world = World(irradiance)
    world.core.lease(1, "s1", CONSENT, world.allowance() if uv else None)
    return world


def refused(world: World, seconds: float = 0.5) -> str:
    with pytest.raises(LightRefused) as caught:
        world.core.pulse(1, "uv365", seconds)
    assert not world.uv_intervals() or world.levels["uv365"] == 0.0
    return caught.value.code


def test_a_light_shines_only_under_a_lease() -> None:
    world = World()
    with pytest.raises(LightRefused, match="lease"):
        world.core.on(1, "white", 1.0)
    assert world.history == []


def test_one_light_at_a_time() -> None:
    world = leased()
    world.core.on(1, "white", 0.5)
    world.advance(0.4, beat=1)
    world.core.on(1, "cross", 1.0)
    assert {name for name, level in world.levels.items() if level} == {"cross"}


def test_a_second_client_waits_until_the_first_lets_go() -> None:
    world = leased()
    with pytest.raises(LightRefused) as caught:
        world.core.lease(2, "s2", CONSENT, None)
    assert caught.value.code == "busy"
    world.core.release(1)
    world.core.lease(2, "s2", CONSENT, None)


def test_hanging_up_puts_everything_out() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.core.release(1)
    assert not any(world.levels.values())


def test_a_silent_client_loses_its_white_light_and_its_lease() -> None:
    world = leased()
    world.core.on(1, "white", 1.0)
    world.advance(2.5)
    assert world.levels["white"] == 0.0
    with pytest.raises(LightRefused):
        world.core.beat(1)


def test_uv_goes_out_200_ms_after_the_last_heartbeat() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.advance(0.5)
    ((begin, end),) = world.uv_intervals()
    assert 0.2 <= end - begin <= 0.22


def test_a_pulse_ends_by_itself() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.advance(2.0, beat=1)
    ((begin, end),) = world.uv_intervals()
    assert 0.9 <= end - begin <= 0.92


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.96, 1.0, 60.0, float("nan"), float("inf")])
def test_a_pulse_of_any_other_length_is_refused(seconds) -> None:
    assert refused(leased(), seconds) == "pulse_too_long"


def test_uv_is_never_simply_switched_on() -> None:
    world = leased()
    with pytest.raises(LightRefused) as caught:
        world.core.on(1, "uv365", 1.0)
    assert caught.value.code == "uv_needs_pulse"


def test_what_the_app_did_not_assert_is_refused() -> None:
    world = World()
    good = world.allowance()
    for uv, code in [
        (None, "not_allowed"),
        (replace(good, patient_reference=""), "no_reference"),
        (replace(good, screened=False), "not_screened"),
        (world.allowance(age=31), "eyes_not_confirmed"),
        (world.allowance(age=-60), "eyes_not_confirmed"),
        (replace(good, eyes_closed_confirmed_at=float("nan")), "eyes_not_confirmed"),
        (replace(good, dose_elsewhere_j_m2=440), "dose_limit"),
    ]:
        world.core.lease(1, "s1", CONSENT, uv)
        assert refused(world) == code


@pytest.mark.parametrize(
    ("shroud", "temperature", "code"),
    [
        ((False, True), 35.0, "shroud_open"),
        ((True, False), 35.0, "shroud_open"),
        ((True, True), 60.0, "lamp_hot"),
        ((True, True), float("nan"), "lamp_hot"),
    ],
)
def test_an_open_interlock_refuses_a_pulse_and_ends_one(shroud, temperature, code) -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.advance(0.1)
    world.set_interlock(shroud, temperature)
    world.advance(0.02)
    assert world.levels["uv365"] == 0.0
    world.advance(0.5)
    assert refused(world) == code


def test_a_sense_that_does_not_answer_counts_as_open() -> None:
    world = leased()
    world.sense_fails = True
    assert refused(world) == "sense_failed"


def test_a_scan_has_at_most_six_pulses() -> None:
    world = leased(irradiance=1.0)
    for _ in range(6):
        world.core.pulse(1, "uv365", 0.1)
        world.advance(0.5, beat=1)
    assert refused(world) == "pulse_limit"
    world.core.lease(1, "s1", CONSENT, world.allowance())
    assert refused(world) == "pulse_limit"


def test_the_dose_of_a_scan_is_bounded() -> None:
    world = leased()
    for _ in range(4):
        world.core.pulse(1, "uv365", 0.95)
        world.advance(1.5, beat=1)
    assert refused(world, 0.95) == "dose_limit"


def test_the_dose_of_a_day_is_bounded_over_scans_restarts_and_clock_jumps() -> None:
    world = World()
    given = 0
    for session in range(30):
        world.start()
        world.wall_offset += 90_000 if session % 2 else 0
        world.core.lease(1, f"s{session}", CONSENT, world.allowance())
        with contextlib.suppress(LightRefused):
            world.core.pulse(1, "uv365", 0.95)
            given += 1
        world.advance(1.5, beat=1)
    assert given == int(450 // 33)
    world.now += 86_400
    world.core.lease(1, "tomorrow", CONSENT, world.allowance())
    world.core.pulse(1, "uv365", 0.95)


def test_a_clock_that_ran_backwards_or_was_never_set_means_no_uv() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.1)
    world.advance(1.0, beat=1)
    world.wall_offset -= 3600
    world.core.lease(1, "s2", CONSENT, world.allowance())
    assert refused(world) == "clock_unknown"
    fresh = World()
    fresh.wall_offset = 0.0
    fresh.core.lease(1, "s1", CONSENT, fresh.allowance())
    assert refused(fresh) == "clock_unknown"


def test_a_ledger_that_cannot_be_written_means_no_uv_but_white_light() -> None:
    world = leased()
    world.ledger_fails = True
    assert refused(world) == "ledger_failed"
    world.core.on(1, "white", 1.0)
    assert world.levels["white"] == 1.0


def test_an_old_calibration_or_too_bright_a_lamp_means_no_uv() -> None:
    world = World()
    uv = world.board.lights["uv365"]
    for update, code in [
        ({"calibrated_on": date(2024, 1, 1)}, "not_calibrated"),
        ({"calibrated_on": date(2099, 1, 1)}, "not_calibrated"),
        ({"irradiance_w_m2": 33.1}, "too_bright"),
    ]:
        lights = {**world.board.lights, "uv365": uv.model_copy(update=update)}
        world.board = world.board.model_copy(update={"lights": lights})
        world.start()
        world.core.lease(1, "s1", CONSENT, world.allowance())
        assert refused(world) == code


def test_uv_still_seen_after_off_latches_a_fault_over_a_restart() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.2)
    world.uv_stuck = True
    world.advance(0.5, beat=1)
    assert world.faults == ["light_after_off"]
    for _ in range(2):
        with pytest.raises(LightRefused) as caught:
            world.core.lease(1, "s1", CONSENT, None)
        assert caught.value.code == "fault"
        world.start()


def test_a_loop_that_was_held_up_with_uv_on_owns_up_and_locks() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.2)
    world.now += 5.0
    world.core.tick()
    assert world.levels["uv365"] == 0.0
    assert world.faults == ["uv_late", "uv_overran"]
    with pytest.raises(LightRefused, match="uv_overran"):
        world.core.lease(1, "s2", CONSENT, None)


def test_the_dose_of_a_pulse_that_ended_late_counts_in_full() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.1)
    # Half a second of 33 W/m² where a tenth was asked for.
    world.now += 0.5
    world.core.tick()
    assert world.faults == ["uv_late"]
    given = 1
    with contextlib.suppress(LightRefused):
        while True:
            world.advance(1.5, beat=1)
            world.core.lease(1, "s1", CONSENT, world.allowance())
            world.core.pulse(1, "uv365", 0.85)
            given += 1
    # 16.5 + 4 × 29.7 is within 150; with a fifth pulse it would not be.
    assert given == 5


def test_a_late_pulse_that_cannot_be_written_down_locks_the_lights() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.1)
    world.ledger_fails = True
    world.now += 0.5
    world.core.tick()
    assert "uv_overran" in world.faults


def test_a_pin_that_fails_latches_a_fault() -> None:
    world = leased()
    world.pin_fails = True
    with pytest.raises(LightRefused):
        world.core.on(1, "white", 1.0)
    assert world.faults == ["pin_failed"]


def test_a_pin_that_fails_is_put_low_before_anything_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    world = leased()
    lit_when_written = []

    def half_set(light, level) -> NoReturn:
        world._write(light, level)
        raise OSError("it went high, and the driver failed")

    monkeypatch.setattr(world, "set", half_set)
    monkeypatch.setattr(world, "latch", lambda *_: lit_when_written.append(world.levels["uv365"]))
    with pytest.raises(LightRefused):
        world.core.pulse(1, "uv365", 0.5)
    assert lit_when_written == [0.0]


@pytest.mark.parametrize("ask", ["pulse", "on"])
def test_nothing_is_lit_while_another_pin_does_not_go_low(monkeypatch: pytest.MonkeyPatch, ask) -> None:
    world = leased()
    world.core.on(1, "white", 1.0)
    world.advance(0.4, beat=1)

    def all_low() -> NoReturn:
        raise OSError("the driver of white failed")

    monkeypatch.setattr(world, "all_low", all_low)
    with pytest.raises(LightRefused) as caught:
        world.core.pulse(1, "uv365", 0.5) if ask == "pulse" else world.core.on(1, "cross", 1.0)
    assert caught.value.code == "fault"
    assert {name for name, level in world.levels.items() if level} == {"white"}


def test_staff_cannot_clear_a_fault_while_a_pin_still_does_not_go_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = leased()
    works, fails = world.all_low, OSError("the driver failed")

    def all_low() -> NoReturn:
        works()
        raise fails

    monkeypatch.setattr(world, "all_low", all_low)
    world.hang_up(1)
    world.advance(0.5)
    with pytest.raises(LightRefused) as caught:
        world.clear_by_staff()
    assert (caught.value.code, world.core.status()["fault"]) == ("pin_failed", "pin_failed")
    monkeypatch.setattr(world, "all_low", works)
    world.core.clear(9, "nurse")
    monkeypatch.setattr(world, "all_low", all_low)
    world.advance(0.4)
    assert (world.core.status()["check"], world.core.status()["fault"]) == ("failed", "pin_failed")


def test_nobody_who_asks_in_a_pulse_makes_it_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    world = leased()
    looked = []
    real = world.latched
    monkeypatch.setattr(world, "latched", lambda: looked.append(world.levels.get("uv365", 0.0)) or real())
    world.core.pulse(1, "uv365", 0.9)
    for ask in (
        lambda: world.core.pulse(1, "uv365", 0.5),
        lambda: world.core.pulse(2, "uv365", 0.5),
        lambda: world.core.clear(2, "nurse"),
        lambda: world.core.new_lamp("uv365", "nurse"),
        lambda: world.core.lease(2, "s2", CONSENT, world.allowance()),
    ):
        with pytest.raises(LightRefused):
            ask()
    assert world.levels["uv365"] == 1.0
    assert set(looked) == {0.0}


def test_a_pulse_whose_client_gave_up_on_a_slow_disk_is_not_lit() -> None:
    world = leased()
    world.ledger_takes = 2.5
    assert refused(world) == "no_lease"
    assert world.uv_intervals() == []


def test_lights_never_flash_faster_than_three_times_a_second() -> None:
    world = leased()
    world.core.on(1, "white", 1.0)
    world.core.off(1)
    with pytest.raises(LightRefused) as caught:
        world.core.on(1, "cross", 1.0)
    assert caught.value.code == "too_soon"
    world.advance(caught.value.retry_s + 0.001)
    world.core.on(1, "cross", 1.0)


def test_a_stopped_core_lights_nothing() -> None:
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.core.stop()
    assert not any(world.levels.values())
    with pytest.raises(LightRefused):
        world.core.lease(1, "s1", CONSENT, None)
