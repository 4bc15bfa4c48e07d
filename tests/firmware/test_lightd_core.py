"""The light core's rules, driven by an injected clock; then by hypothesis, with a judge over the pins."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import date
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from firmware.lightcore import LightRefused
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


def test_a_light_shines_only_under_a_lease():
    world = World()
    with pytest.raises(LightRefused, match="lease"):
        world.core.on(1, "white", 1.0)
    assert world.history == []


def test_one_light_at_a_time():
    world = leased()
    world.core.on(1, "white", 0.5)
    world.advance(0.4, beat=1)
    world.core.on(1, "cross", 1.0)
    assert {name for name, level in world.levels.items() if level} == {"cross"}


def test_a_second_client_waits_until_the_first_lets_go():
    world = leased()
    with pytest.raises(LightRefused) as caught:
        world.core.lease(2, "s2", CONSENT, None)
    assert caught.value.code == "busy"
    world.core.release(1)
    world.core.lease(2, "s2", CONSENT, None)


def test_hanging_up_puts_everything_out():
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.core.release(1)
    assert not any(world.levels.values())


def test_a_silent_client_loses_its_white_light_and_its_lease():
    world = leased()
    world.core.on(1, "white", 1.0)
    world.advance(2.5)
    assert world.levels["white"] == 0.0
    with pytest.raises(LightRefused):
        world.core.beat(1)


def test_uv_goes_out_200_ms_after_the_last_heartbeat():
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.advance(0.5)
    ((begin, end),) = world.uv_intervals()
    assert 0.2 <= end - begin <= 0.22


def test_a_pulse_ends_by_itself():
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.advance(2.0, beat=1)
    ((begin, end),) = world.uv_intervals()
    assert 0.9 <= end - begin <= 0.92


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.96, 1.0, 60.0, float("nan"), float("inf")])
def test_a_pulse_of_any_other_length_is_refused(seconds):
    assert refused(leased(), seconds) == "pulse_too_long"


def test_uv_is_never_simply_switched_on():
    world = leased()
    with pytest.raises(LightRefused) as caught:
        world.core.on(1, "uv365", 1.0)
    assert caught.value.code == "uv_needs_pulse"


def test_what_the_app_did_not_assert_is_refused():
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
def test_an_open_interlock_refuses_a_pulse_and_ends_one(shroud, temperature, code):
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.advance(0.1)
    world.set_interlock(shroud, temperature)
    world.advance(0.02)
    assert world.levels["uv365"] == 0.0
    world.advance(0.5)
    assert refused(world) == code


def test_a_sense_that_does_not_answer_counts_as_open():
    world = leased()
    world.sense_fails = True
    assert refused(world) == "sense_failed"


def test_a_scan_has_at_most_six_pulses():
    world = leased(irradiance=1.0)
    for _ in range(6):
        world.core.pulse(1, "uv365", 0.1)
        world.advance(0.5, beat=1)
    assert refused(world) == "pulse_limit"
    world.core.lease(1, "s1", CONSENT, world.allowance())
    assert refused(world) == "pulse_limit"


def test_the_dose_of_a_scan_is_bounded():
    world = leased()
    for _ in range(4):
        world.core.pulse(1, "uv365", 0.95)
        world.advance(1.5, beat=1)
    assert refused(world, 0.95) == "dose_limit"


def test_the_dose_of_a_day_is_bounded_over_scans_restarts_and_clock_jumps():
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


def test_a_clock_that_ran_backwards_or_was_never_set_means_no_uv():
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


def test_a_ledger_that_cannot_be_written_means_no_uv_but_white_light():
    world = leased()
    world.ledger_fails = True
    assert refused(world) == "ledger_failed"
    world.core.on(1, "white", 1.0)
    assert world.levels["white"] == 1.0


def test_an_old_calibration_or_too_bright_a_lamp_means_no_uv():
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


def test_uv_still_seen_after_off_latches_a_fault_over_a_restart():
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


def test_a_loop_that_was_held_up_with_uv_on_owns_up_and_locks():
    world = leased()
    world.core.pulse(1, "uv365", 0.2)
    world.now += 5.0
    world.core.tick()
    assert world.levels["uv365"] == 0.0
    assert world.faults == ["uv_late", "uv_overran"]
    with pytest.raises(LightRefused, match="uv_overran"):
        world.core.lease(1, "s2", CONSENT, None)


def test_the_dose_of_a_pulse_that_ended_late_counts_in_full():
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


def test_a_late_pulse_that_cannot_be_written_down_locks_the_lights():
    world = leased()
    world.core.pulse(1, "uv365", 0.1)
    world.ledger_fails = True
    world.now += 0.5
    world.core.tick()
    assert "uv_overran" in world.faults


def test_a_pin_that_fails_latches_a_fault():
    world = leased()
    world.pin_fails = True
    with pytest.raises(LightRefused):
        world.core.on(1, "white", 1.0)
    assert world.faults == ["pin_failed"]


def test_lights_never_flash_faster_than_three_times_a_second():
    world = leased()
    world.core.on(1, "white", 1.0)
    world.core.off(1)
    with pytest.raises(LightRefused) as caught:
        world.core.on(1, "cross", 1.0)
    assert caught.value.code == "too_soon"
    world.advance(caught.value.retry_s + 0.001)
    world.core.on(1, "cross", 1.0)


def test_a_stopped_core_lights_nothing():
    world = leased()
    world.core.pulse(1, "uv365", 0.9)
    world.core.stop()
    assert not any(world.levels.values())
    with pytest.raises(LightRefused):
        world.core.lease(1, "s1", CONSENT, None)


clients = st.integers(1, 2)
patients = st.sampled_from(["p1", "p2"])
sessions = st.sampled_from(["s1", "s2", "s3", "s4", "s5", "s6"])


class Faults(RuleBasedStateMachine):
    """Random clients, faults and clocks; after every step the judge reads the pins' history."""

    loosened: ClassVar[dict[str, float]] = {}

    @initialize()
    def begin(self) -> None:
        self.world = World(limits=self.loosened)
        self.holder: int | None = None
        self.scans = 0

    @rule(client=clients, session=sessions, patient=patients, uv=st.booleans(), age=st.sampled_from([1, 40]))
    def lease(self, client, session, patient, uv, age):
        with contextlib.suppress(LightRefused):
            self.world.lease(client, session, self.world.allowance(patient, age) if uv else None)
            self.holder = client

    @rule(client=clients, light=st.sampled_from(["white", "cross", "dir0", "uv365"]))
    def on(self, client, light):
        with contextlib.suppress(LightRefused):
            self.world.on(client, light)

    @rule(client=clients, seconds=st.sampled_from([0.1, 0.5, 0.95, 1.5]), beats=st.integers(0, 12))
    def pulse(self, client, seconds, beats):
        self._pulse(client, seconds)
        for _ in range(beats):
            self.beat(client)
            self.world.advance(0.1)

    @rule(
        patient=patients,
        pulses=st.integers(1, 8),
        seconds=st.sampled_from([0.2, 0.95, 0.95, 1.5]),
        trouble=st.sampled_from(["none", "none", "silent", "open", "hot"]),
    )
    def scan(self, patient, pulses, seconds, trouble):
        """What an app without sense would do: as much UV as it can get."""
        self.world.hang_up(1)
        self.world.hang_up(2)
        self.scans += 1
        for _ in range(pulses):
            self.lease(1, f"scan {self.scans}", patient, True, 1)
            self._pulse(1, seconds)
            for step in range(int(10 * seconds) + 2):
                if trouble != "silent":
                    self.beat(1)
                if step == 1 and trouble in ("open", "hot"):
                    self.world.set_interlock((trouble != "open", True), 61.0 if trouble == "hot" else 35.0)
                self.world.advance(0.1)
        if trouble in ("open", "hot"):
            self.world.set_interlock((True, True), 35.0)

    @rule(patient=patients, scans=st.integers(3, 6), hours=st.sampled_from([0, 2]))
    def day(self, patient, scans, hours):
        """One patient, scan after scan."""
        for _ in range(scans):
            self.scan(patient, 4, 0.95, "none")
            self.world.skip(hours * 3600)

    @rule(light=st.sampled_from(["white", "uv365"]))
    def walk_away(self, light):
        self.lease(1, "s1", "p1", True, 1)
        if light == "uv365":
            self._pulse(1, 0.5)
        else:
            self.on(1, light)
        self.hang_up(1)

    @rule(waits=st.lists(st.sampled_from([0.0, 0.05, 0.2, 0.34]), min_size=2, max_size=6))
    def flicker(self, waits):
        self.lease(1, "s1", "p1", False, 1)
        for wait in waits:
            self.on(1, "white")
            self.world.core.off(1)
            self.world.advance(wait)

    @rule()
    def mend(self):
        """All is well again."""
        self.world.set_interlock((True, True), 35.0)
        self.world.set_ledger_fails(False)
        self.world.wall_offset += 48 * 3600

    def _pulse(self, client, seconds):
        with contextlib.suppress(LightRefused):
            self.world.pulse(client, seconds)

    @rule(client=clients)
    def beat(self, client):
        with contextlib.suppress(LightRefused):
            self.world.beat(client)

    @rule(client=clients)
    def hang_up(self, client):
        held = self.world.core.status()["leased"] and self.holder == client
        self.world.hang_up(client)
        assert not (held and any(self.world.levels.values()))

    @rule(client=clients)
    def off(self, client):
        self.world.core.off(client)
        assert not any(self.world.levels.values())

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.4, 3.0]))
    def wait(self, seconds):
        self.world.advance(seconds)

    @rule(hours=st.sampled_from([1, 1, 12, 25]))
    def wait_long(self, hours):
        self.world.skip(hours * 3600)

    @rule(hours=st.sampled_from([-1, 1, 30]))
    def jump_the_clock(self, hours):
        self.world.wall_offset += hours * 3600

    @rule(a=st.booleans(), b=st.booleans(), temperature=st.sampled_from([35.0, 35.0, 61.0]))
    def interlock(self, a, b, temperature):
        self.world.set_interlock((a or b, a or not b), temperature)

    @rule(fails=st.booleans())
    def ledger(self, fails):
        self.world.set_ledger_fails(fails)

    @rule()
    def restart(self):
        self.world.restart()

    @invariant()
    def nothing_was_lit_that_may_not_be(self) -> None:
        assert self.world.judge() == []


Faults.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestFaults = Faults.TestCase


@pytest.mark.parametrize(
    "loosened",
    [
        {"uv_pulse_s": 2.0},
        {"uv_pulses_per_scan": 99, "uv_dose_per_scan_j_m2": 1e9},
        {"uv_dose_per_scan_j_m2": 1e9},
        {"uv_dose_per_day_j_m2": 1e9},
        {"heartbeat_s": 9.0},
        {"lamp_temperature_c": 99.0},
        {"flashes_per_s": 99.0},
    ],
    ids=lambda loosened: next(iter(loosened)),
)
def test_the_judge_catches_a_daemon_without_this_limit(loosened):
    machine = type("Loosened", (Faults,), {"loosened": loosened})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine, settings=settings(Faults.TestCase.settings, phases=[Phase.generate], print_blob=False)
        )
