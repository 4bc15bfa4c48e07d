"""The light core under hypothesis: any order of requests, faults and time, with a judge over the pins."""

from __future__ import annotations

import contextlib
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

from firmware.lights.core import LightRefused
from tests.support.lightworld import World

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
    def lease(self, client, session, patient, uv, age) -> None:
        with contextlib.suppress(LightRefused):
            self.world.lease(client, session, self.world.allowance(patient, age) if uv else None)
            self.holder = client

    @rule(client=clients, light=st.sampled_from(["white", "cross", "dir0", "uv365"]))
    def on(self, client, light) -> None:
        with contextlib.suppress(LightRefused):
            self.world.on(client, light)

    @rule(client=clients, seconds=st.sampled_from([0.1, 0.5, 0.95, 1.5]), beats=st.integers(0, 12))
    def pulse(self, client, seconds, beats) -> None:
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
    def scan(self, patient, pulses, seconds, trouble) -> None:
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
    def day(self, patient, scans, hours) -> None:
        """One patient, scan after scan."""
        for _ in range(scans):
            self.scan(patient, 4, 0.95, "none")
            self.world.skip(hours * 3600)

    @rule(light=st.sampled_from(["white", "uv365"]))
    def walk_away(self, light) -> None:
        self.lease(1, "s1", "p1", True, 1)
        if light == "uv365":
            self._pulse(1, 0.5)
        else:
            self.on(1, light)
        self.hang_up(1)

    @rule(waits=st.lists(st.sampled_from([0.0, 0.05, 0.2, 0.34]), min_size=2, max_size=6))
    def flicker(self, waits) -> None:
        self.lease(1, "s1", "p1", False, 1)
        for wait in waits:
            self.on(1, "white")
            self.world.core.off(1)
            self.world.advance(wait)

    @rule()
    def mend(self) -> None:
        """All is well again."""
        self.world.set_interlock((True, True), 35.0)
        self.world.set_ledger_fails(False)
        self.world.wall_offset += 48 * 3600

    def _pulse(self, client, seconds) -> None:
        with contextlib.suppress(LightRefused):
            self.world.pulse(client, seconds)

    @rule(client=clients)
    def beat(self, client) -> None:
        with contextlib.suppress(LightRefused):
            self.world.beat(client)

    @rule(client=clients)
    def hang_up(self, client) -> None:
        held = self.world.core.status()["leased"] and self.holder == client
        self.world.hang_up(client)
        assert not (held and any(self.world.levels.values()))

    @rule(client=clients)
    def off(self, client) -> None:
        self.world.core.off(client)
        assert not any(self.world.levels.values())

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.4, 3.0]))
    def wait(self, seconds) -> None:
        self.world.advance(seconds)

    @rule(hours=st.sampled_from([1, 1, 12, 25]))
    def wait_long(self, hours) -> None:
        self.world.skip(hours * 3600)

    @rule(hours=st.sampled_from([-1, 1, 30]))
    def jump_the_clock(self, hours) -> None:
        self.world.wall_offset += hours * 3600

    @rule(a=st.booleans(), b=st.booleans(), temperature=st.sampled_from([35.0, 35.0, 61.0]))
    def interlock(self, a, b, temperature) -> None:
        self.world.set_interlock((a or b, a or not b), temperature)

    @rule(fails=st.booleans())
    def ledger(self, fails) -> None:
        self.world.set_ledger_fails(fails)

    @rule()
    def restart(self) -> None:
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
def test_the_judge_catches_a_daemon_without_this_limit(loosened) -> None:
    machine = type("Loosened", (Faults,), {"loosened": loosened})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine, settings=settings(Faults.TestCase.settings, phases=[Phase.generate], print_blob=False)
        )
