"""What systemd hears of the light daemon, and how staff clears a fault."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from firmware.lights import core as lightcore
from firmware.lights.client import Lights, LightsFault
from firmware.lights.core import LightRefused
from firmware.lights.doses import DAY_S, FAULT_UNKNOWN, LEDGER_NEW, UV_ONLY, DoseLedger
from firmware.lights.latch import CHECK_WORDS, FAULT_WORDS
from firmware.pins.sampler import OLDEST_S
from hardware.host.notify import Notifier
from tests.support.kiosk_daemons import ROOT, Daemon, consent, small_board, until, uv_allowance
from tests.support.lightworld import World


def latched() -> World:
    """A world whose lamp stuck once."""
    world = World()
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.set_uv_stuck(True)
    world.advance(0.3)
    world.hang_up(1)
    world.advance(0.4)
    assert world.core.status()["fault"] == "light_after_off"
    return world


def refusal(ask):
    with pytest.raises(LightRefused) as refused:
        ask()
    return refused.value.code


def test_staff_clears_a_fault_by_a_light_check_that_passes():
    world = latched()
    world.set_uv_stuck(False)
    world.clear_by_staff()
    status = world.core.status()
    assert (status["lit"], status["fault"], status["check"]) == ({}, None, "passed")
    world.restart()
    world.lease(1, "s2", world.allowance())
    world.pulse(1, 0.1)
    assert world.judge() == []


def test_a_lamp_that_is_still_stuck_is_not_cleared():
    world = latched()
    with pytest.raises(LightRefused):
        world.clear_by_staff()
    world.restart()
    assert world.core.status()["fault"] == "light_after_off"


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
def test_a_sensor_that_sees_nothing_locks_uv_and_leaves_white_light(sensor):
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
def test_a_lamp_that_stays_on_is_noticed_by_the_sensor_that_is_left(sensor, how):
    world = World()
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.2)
    world.advance(0.1, beat=1)
    getattr(world, how)(True, sensor)
    world.set_uv_stuck(True)
    world.advance(0.3, beat=1)
    assert world.core.status()["fault"] == "light_after_off"


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
def test_a_sensor_that_does_not_answer_means_no_uv(sensor):
    world = World()
    world.set_lost(True, sensor)
    world.lease(1, "s1", world.allowance())
    with pytest.raises(LightRefused) as refused:
        world.pulse(1, 0.1)
    assert refused.value.code == "sense_failed"
    assert world.uv_intervals() == []


@pytest.mark.parametrize("sensor", [0, 1], ids=["photodiode", "current sense"])
def test_a_sensor_lost_in_a_pulse_locks_uv_until_it_is_back_and_staff_cleared_it(sensor):
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
def test_a_pulse_is_not_judged_by_what_was_sampled_before_it(lit_s):
    world = World()

    def sampled_before():
        levels = [level for at, light, level in world.history if at <= world.now - OLDEST_S]
        return (bool(levels and levels[-1]),) * 2

    world.uv_seen = sampled_before
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.5)
    world.advance(lit_s, beat=1)
    world.core.off(1)
    world.advance(0.3, beat=1)
    assert world.faults == []


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
def test_a_light_check_that_fails_says_why(trouble, why_not):
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
def test_a_light_check_that_was_cut_fails_although_the_lamp_was_seen(cut, why_not):
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


def test_every_word_for_staff_ends_with_what_to_do():
    assert [words for words in (*FAULT_WORDS.values(), *CHECK_WORDS.values()) if words.count(": ") != 1] == []
    assert all(words[0].isupper() and words.endswith(", then try again") for words in CHECK_WORDS.values())


def test_who_beats_hears_of_a_fault_that_put_the_light_out():
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


def test_a_lamp_that_lights_by_itself_is_noticed_in_the_dark():
    world = World()
    world.set_uv_stuck(True)
    world.advance(0.3)
    assert world.core.status()["fault"] == "light_unasked"


@pytest.mark.parametrize("interlock", [((False, True), 35.0), ((True, True), 61.0)])
def test_the_light_check_respects_every_interlock(interlock):
    world = latched()
    world.set_uv_stuck(False)
    world.set_interlock(*interlock)
    before = world.uv_intervals()
    with pytest.raises(LightRefused):
        world.clear_by_staff()
    assert world.uv_intervals() == before


def test_the_light_check_ends_when_its_client_hangs_up():
    world = latched()
    world.set_uv_stuck(False)
    world.core.clear(9, "nurse")
    world.hang_up(9)
    assert not any(world.levels.values())
    assert world.core.status()["check"] == "failed"


@pytest.fixture
def lost(tmp_path):
    """A world whose ledger is lost while the daemon runs."""
    world = World(calibrated_on=date(2027, 1, 15))
    world._database = ledger = DoseLedger(tmp_path / "doses.sqlite")
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.advance(0.4, beat=1)
    (tmp_path / "doses.sqlite").unlink()
    ledger.close()
    return world


def test_a_ledger_lost_while_the_daemon_runs_locks_every_light(lost):
    assert refusal(lambda: lost.pulse(1, 0.1)) == "fault"
    assert lost.core.status()["fault"] == FAULT_UNKNOWN
    assert refusal(lambda: lost.on(1, "white")) == "fault"


@pytest.mark.parametrize("what", ["pulse", "clear"])
def test_a_ledger_lost_under_the_open_daemon_gives_not_one_pulse(tmp_path, what):
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


def test_after_a_lost_ledger_uv_stays_off_for_24_hours(lost):
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


def test_a_lost_ledger_does_not_make_a_new_lamp_the_measured_one(lost):
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
def test_after_a_lost_ledger_white_light_needs_no_pulse(lost, no_pulse):
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
def test_after_a_lost_ledger_white_light_needs_both_sensors_to_see_darkness(lost, trouble):
    lost.restart()
    lost.core.clear(9, "nurse")
    trouble(lost, True)
    lost.advance(0.4)
    assert lost.core.status()["check"] == "failed"
    assert refusal(lambda: lost.lease(1, "s2", None)) == "fault"


def test_a_fault_that_cannot_be_read_at_the_start_locks_every_light_until_it_is():
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


def test_a_ledger_that_can_be_read_again_and_has_no_fault_locks_nothing():
    world = World()
    world.set_ledger_fails(True)
    world.restart()
    world.set_ledger_fails(False)
    world.advance(6.0)
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)


def test_a_lamp_that_lights_while_no_fault_could_be_read_is_latched_by_its_name():
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


def test_a_fault_that_could_not_be_written_is_written_later():
    world = World()
    world.set_ledger_fails(True)
    world.set_uv_stuck(True)
    world.advance(0.3)
    world.set_ledger_fails(False)
    world.set_uv_stuck(False)
    world.advance(6.0)
    world.restart()
    assert world.core.status()["fault"] == "light_unasked"


MEASURED = date(2027, 1, 10)


def test_a_fault_is_written_down_before_the_lamp_is_lit_to_clear_it():
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


def test_a_new_uv_lamp_is_locked_until_it_was_measured_and_staff_cleared_it():
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


def test_a_new_lamp_in_place_of_a_dead_one_is_measured_too():
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


def test_a_new_lamp_stays_locked_over_a_restart_although_an_earlier_fault_was_never_written():
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


def test_a_new_simulated_lamp_is_not_what_the_profile_says_either():
    world = World()
    world.renew_lamp()
    assert refusal(world.clear_by_staff) == "not_calibrated"


def test_a_lamp_is_not_renewed_by_nobody_nor_in_a_scan_nor_at_an_unknown_time():
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


def test_systemd_hears_ready_watchdog_and_stopping(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        daemon = Daemon("lightd", small_board(tmp_path), tmp_path / "k")
        try:
            assert systemd.recv(99) == b"READY=1"
            heard = [time.monotonic() for _ in range(4) if systemd.recv(99) == b"WATCHDOG=1"]
            assert len(heard) == 4
            assert daemon.stop() == 0
            said = {systemd.recv(99)}
            while b"STOPPING=1" not in said:
                said.add(systemd.recv(99))
            assert said <= {b"WATCHDOG=1", b"STOPPING=1"}
        finally:
            daemon.end()


def test_a_notifier_without_systemd_is_silent_and_one_for_another_process_does_not_beat():
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready()
    name = f"\0dermakiosk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(5)
        other = {"NOTIFY_SOCKET": "@" + name[1:], "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        notifier = Notifier(other)
        notifier.alive()
        notifier.ready()
        assert systemd.recv(99) == b"READY=1"
        notifier.close()


def lights_command(state, *arguments):
    command = [sys.executable, "-c", "from kiosk_app.cli import main; main()", "lights", *arguments]
    return subprocess.run(
        [*command, "--state", str(state)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_every_fault_has_its_words():
    latched = re.findall(r'_latch\("(\w+)"\)', Path(lightcore.__file__).read_text())
    assert set(FAULT_WORDS) == {*latched, *UV_ONLY, FAULT_UNKNOWN}


def test_staff_clears_a_fault_by_command(tmp_path):
    state = tmp_path / "k"
    dead = '\n[simulation]\ndead_lamps = ["uv365"]\n'
    daemon = Daemon("lightd", small_board(tmp_path, dead), state)
    try:
        lights = Lights(state / "run" / "light.sock")
        lights.lease("s1", consent(), uv_allowance())
        lights.pulse("uv365", 0.15)
        until(lambda: lights.status()["fault"] == "uv_unseen")
        lights.on("white")
        lights.close()
        failed = lights_command(state, "clear", "--staff", "nurse", "--hood-is-empty")
        assert failed.returncode == 1
        assert "light check failed, so UV stays locked (uv_unseen)" in failed.stderr
        assert "(uv_unseen). Photodiode or current sense did not see a UV pulse: look at" in failed.stderr
        daemon.end()
        daemon = Daemon("lightd", small_board(tmp_path), state)
        said = lights_command(state, "status", "--json")
        assert said.returncode == 1
        assert json.loads(said.stdout)["fault"] == "uv_unseen"
        words = lights_command(state, "status").stdout
        assert "uv_unseen, UV is locked: photodiode or current sense did not see" in words
        assert "dermakiosk lights clear" in words
        assert lights_command(state, "clear", "--staff", "nurse").returncode != 0
        cleared = lights_command(state, "clear", "--staff", "nurse", "--hood-is-empty")
        assert cleared.returncode == 0, cleared.stderr
        assert "uv_unseen is cleared" in cleared.stdout
        assert lights_command(state, "status").returncode == 0
        again = Lights(state / "run" / "light.sock")
        with pytest.raises(LightsFault, match="no fault"):
            again.clear("nurse")
        again.close()
    finally:
        daemon.end()


def test_staff_are_told_which_file_cannot_be_read_and_that_there_is_nothing_to_clear_meanwhile(tmp_path):
    state = tmp_path / "k"
    ledger = state / "light" / "doses.sqlite"
    ledger.mkdir(parents=True)
    daemon = Daemon("lightd", small_board(tmp_path), state)
    try:
        said = lights_command(state, "status")
        assert f"dose ledger         The dose ledger {ledger} failed" in said.stdout
        assert "move it aside" in said.stdout
        assert "lights clear" not in said.stdout
        refused = lights_command(state, "clear", "--staff", "nurse", "--hood-is-empty")
        assert refused.returncode == 1
        assert str(ledger) in refused.stderr and "no fault is cleared" in refused.stderr
        ledger.rmdir()
        until(lambda: lights_command(state, "status").returncode == 0)
        assert "dose ledger" not in lights_command(state, "status").stdout
    finally:
        daemon.end()


def test_staff_clears_a_lost_ledger_in_two_steps_by_command(tmp_path):
    state = tmp_path / "k"
    (state / "light").mkdir(parents=True)
    (state / "light" / "doses.made").touch()
    daemon = Daemon("lightd", small_board(tmp_path), state)
    clear = ["clear", "--staff", "nurse", "--hood-is-empty"]
    try:
        first = lights_command(state, *clear)
        assert first.returncode == 0, first.stderr
        assert "fault_unknown is cleared. UV stays locked (uv_ledger_new)" in first.stdout
        second = lights_command(state, *clear)
        assert "uv_ledger_new is cleared." in second.stdout
        assert "locked" not in second.stdout
    finally:
        daemon.end()


def test_staff_are_told_where_a_new_lamp_was_not_written_down(tmp_path):
    state = tmp_path / "k"
    daemon = Daemon("lightd", small_board(tmp_path), state)
    try:
        (state / "light" / "hours.json").mkdir()
        said = lights_command(state, "new-lamp", "--light", "white", "--staff", "nurse")
        assert said.returncode == 1
        assert "That the hours of white begin at 0 could not be written down" in said.stderr
        assert "UV is locked" not in said.stderr
        uv = lights_command(state, "new-lamp", "--light", "uv365", "--staff", "nurse")
        assert "UV is locked all the same" in uv.stderr
        (state / "light" / "hours.json").rmdir()
        assert lights_command(state, "new-lamp", "--light", "white", "--staff", "nurse").returncode == 0
    finally:
        daemon.end()


def test_staff_renews_the_uv_lamp_by_command(tmp_path):
    state, today = tmp_path / "k", datetime.now(timezone.utc).date()
    daemon = Daemon("lightd", small_board(tmp_path), state)
    new_lamp = ["new-lamp", "--light", "uv365", "--staff"]
    clear = ["clear", "--staff", "nurse", "--hood-is-empty"]
    try:
        assert lights_command(state, *new_lamp, " ").returncode == 1
        said = lights_command(state, *new_lamp, "nurse")
        assert said.returncode == 0, said.stderr
        assert "lights.uv365.irradiance_w_m2 and calibrated_on" in said.stdout
        assert "dermakiosk lights clear" in said.stdout
        refused = lights_command(state, *clear)
        assert refused.returncode == 1
        assert f"new lamp since {today}" in refused.stderr
        daemon.end()
        board = small_board(tmp_path)
        measured = board.read_text().replace('calibrated_on = "simulated"', f"calibrated_on = {today}")
        board.write_text(measured)
        daemon = Daemon("lightd", board, state)
        cleared = lights_command(state, *clear)
        assert cleared.returncode == 0, cleared.stderr
        assert "uv_lamp_new is cleared" in cleared.stdout
    finally:
        daemon.end()
