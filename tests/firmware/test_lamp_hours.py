"""Lamp hours: counted where the pins are switched, kept over restarts, never in the way of a light."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from click.testing import CliRunner

from firmware.cameras.calibration import Calibration, lamps_aged, newest_calibration, write_calibration
from firmware.lights import lamp_hours
from firmware.lights.client import Lights, LightsFault
from firmware.lights.lamp_hours import LampHours
from firmware.staff_cli import lights as lights_command
from hardware.board import BOARDS, load_board
from tests.support.kiosk_daemons import Daemon, consent, small_board


class Pins:
    def __init__(self) -> None:
        self.calls = []
        self.fails = False

    def set(self, light, level) -> None:
        self.calls.append((light, level))
        if self.fails:
            raise OSError("pin failed")

    def all_low(self) -> None:
        self.calls.append("low")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted(tmp_path: Path, clock: Clock) -> LampHours:
    return LampHours(Pins(), tmp_path / "hours.json", clock)


def lit(counted, clock, light, seconds, level=1.0) -> None:
    counted.set(light, level)
    clock.now += seconds
    counted.all_low()


def test_each_lamp_has_its_own_hours_and_darkness_counts_for_none(counted: LampHours, clock: Clock) -> None:
    lit(counted, clock, "white", 1800, level=0.35)
    clock.now += 10_000
    lit(counted, clock, "uv365", 9.0)
    lit(counted, clock, "white", 1800)
    assert counted.hours() == {"white": 1.0, "uv365": 0.0025}


def test_a_lamp_that_is_lit_now_counts_until_now(counted: LampHours, clock: Clock) -> None:
    counted.set("white", 1.0)
    clock.now += 360
    assert counted.hours() == {"white": 0.1}
    counted.set("white", 0.35)
    clock.now += 360
    assert counted.hours() == {"white": 0.2}


def test_every_order_goes_on_to_the_pins_and_so_does_their_failure(counted: LampHours, clock: Clock) -> None:
    lit(counted, clock, "white", 1.0)
    assert counted._pins.calls == [("white", 1.0), "low"]
    counted._pins.fails = True
    with pytest.raises(OSError, match="pin failed"):
        counted.set("white", 1.0)


def test_a_damaged_file_is_set_aside_for_good_before_a_new_one_begins(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut gives the new hours the damaged ones' place, and these are lost."""
    (tmp_path / "hours.json").write_text("{")
    fsync, on_disk = os.fsync, []

    def watched(handle) -> None:
        fsync(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            on_disk.append(os.listdir(handle))

    monkeypatch.setattr(os, "fsync", watched)
    LampHours(Pins(), tmp_path / "hours.json", clock)
    assert on_disk == [["hours.damaged"]]


def test_the_hours_go_on_after_a_restart(counted: LampHours, clock: Clock, tmp_path: Path) -> None:
    lit(counted, clock, "white", 3600)
    counted.write()
    again = LampHours(Pins(), tmp_path / "hours.json", clock)
    lit(again, clock, "white", 3600)
    assert again.hours() == {"white": 2.0}


def test_a_new_lamp_begins_at_nothing(counted: LampHours, clock: Clock) -> None:
    lit(counted, clock, "white", 3600)
    lit(counted, clock, "cross", 3600)
    counted.renew("white")
    lit(counted, clock, "white", 1800)
    assert counted.hours() == {"white": 0.5, "cross": 1.0}
    assert counted.renewals() == {"white": 1}


def test_a_new_lamp_is_remembered_over_a_restart(counted: LampHours, clock: Clock, tmp_path: Path) -> None:
    lit(counted, clock, "white", 3600)
    counted.renew("white")
    counted.renew("dir0")
    counted.renew("dir0")
    counted.write()
    again = LampHours(Pins(), tmp_path / "hours.json", clock)
    assert again.renewals() == {"white": 1, "dir0": 2}
    assert again.hours() == {"white": 0.0, "dir0": 0.0}


def test_hours_written_before_renewals_were_counted_go_on(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "hours.json").write_text('{"white": 3600.0}')
    counted = LampHours(Pins(), tmp_path / "hours.json", clock)
    assert (counted.hours(), counted.renewals()) == ({"white": 1.0}, {})


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        '{"white": -1}',
        '{"white": "NaN"}',
        '{"white": null}',
        '{"white": {"seconds": 1.0}}',
        '{"white": {"seconds": 1.0, "renewals": -1}}',
        '{"white": {"seconds": 1.0, "renewals": Infinity}}',
        "\xff",
    ],
)
def test_a_damaged_file_is_kept_aside_and_the_hours_begin_anew(
    counted: LampHours, clock: Clock, tmp_path: Path, damage
) -> None:
    path = tmp_path / "hours.json"
    path.write_text(damage, "latin-1")
    again = LampHours(Pins(), path, clock)
    assert again.hours() == {}
    assert (tmp_path / "hours.damaged").read_text("latin-1") == damage
    lit(again, clock, "white", 3600)
    again.write()
    assert LampHours(Pins(), path, clock).hours() == {"white": 1.0}


def test_they_are_written_within_half_a_minute_and_not_at_every_pulse(
    monkeypatch: pytest.MonkeyPatch, counted: LampHours, clock: Clock, tmp_path: Path
) -> None:
    assert lamp_hours.EVERY_S <= 30.0
    for _ in range(100):
        lit(counted, clock, "uv365", 0.4)
    assert not (tmp_path / "hours.json").exists()
    monkeypatch.setattr(lamp_hours, "EVERY_S", 0.0)
    written = threading.Event()
    real = counted.write
    monkeypatch.setattr(counted, "write", lambda: (real(), written.set()))
    counted.start()
    assert written.wait(60)
    kept = json.loads((tmp_path / "hours.json").read_text())
    assert kept == {"uv365": {"seconds": pytest.approx(40.0), "renewals": 0}}
    counted.close()


def test_a_disk_that_hangs_holds_up_no_light(
    monkeypatch: pytest.MonkeyPatch, counted: LampHours, clock: Clock
) -> None:
    monkeypatch.setattr(lamp_hours, "EVERY_S", 0.0)
    monkeypatch.setattr(lamp_hours, "_CLOSE_S", 0.01)
    writing, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(counted, "write", lambda: (writing.set(), go_on.wait(240)))
    lit(counted, clock, "white", 1.0)
    counted.start()
    lit(counted, clock, "white", 1.0)
    assert writing.wait(60)
    lit(counted, clock, "white", 3598.0)
    assert counted.hours() == {"white": 1.0}
    counted.close()
    go_on.set()


def test_a_disk_that_is_full_holds_up_no_light_either(
    monkeypatch: pytest.MonkeyPatch, counted: LampHours, clock: Clock
) -> None:
    monkeypatch.setattr(lamp_hours, "EVERY_S", 0.0)
    failed = threading.Event()

    def fail() -> NoReturn:
        failed.set()
        raise OSError("disk full")

    monkeypatch.setattr(counted, "write", fail)
    counted.start()
    lit(counted, clock, "white", 3600)
    assert failed.wait(60)
    assert counted.hours() == {"white": 1.0}
    counted.close()


def test_a_new_lamp_is_written_down_before_staff_are_told(tmp_path: Path) -> None:
    daemon = Daemon("lightd", small_board(tmp_path), tmp_path / "k")
    try:
        lights = Lights(tmp_path / "k" / "run" / "light.sock")
        lights.new_lamp("white", "nurse")
        daemon.kill()
        lights.close()
        kept = json.loads((tmp_path / "k" / "light" / "hours.json").read_text())
        assert kept == {"white": {"seconds": 0.0, "renewals": 1}}
    finally:
        daemon.end()


def test_a_disk_that_hangs_holds_up_the_word_of_a_new_lamp_for_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, counted: LampHours
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(lamp_hours, "_CLOSE_S", 0.01)
    monkeypatch.setattr(counted, "write", lambda: go_on.wait(240))
    counted.start()
    counted.renew("white")
    assert not counted.written(0.05)
    go_on.set()
    assert counted.written(60)
    counted.close()


def test_the_light_daemon_counts_shows_and_renews(tmp_path: Path) -> None:
    state = tmp_path / "k"
    daemon = Daemon("lightd", small_board(tmp_path), state)
    try:
        lights = Lights(state / "run" / "light.sock")
        lights.lease("s1", consent())
        lights.on("white", 0.35)
        lights.off()
        assert lights.status()["lamp_hours"]["white"] >= 0.0
        lights.close()
        assert daemon.stop() == 0
        assert json.loads((state / "light" / "hours.json").read_text())["white"]["seconds"] > 0
        (state / "light" / "hours.json").write_text('{"white": 7200.0}')
        daemon = Daemon("lightd", small_board(tmp_path), state)
        shown = CliRunner().invoke(lights_command, ["status", "--state", str(state)])
        said = dict(line.split("  ", 1) for line in shown.output.splitlines())
        assert said["hours of white"].strip() == "2.00"
        assert said["shroud"].strip() == "closed"
        assert said["photodiode"].endswith("W/m²")
        new = ["new-lamp", "--state", str(state), "--staff", "nurse", "--light"]
        assert CliRunner().invoke(lights_command, [*new, "white"]).exit_code == 0
        refused = CliRunner().invoke(lights_command, [*new, "green"])
        assert isinstance(refused.exception, LightsFault)
        assert refused.exception.code == "unknown_light"
        assert lights.status()["lamp_hours"] == {"white": 0.0}
        assert lights.status()["lamp_renewals"] == {"white": 1}
        lights.close()
    finally:
        daemon.end()


def made(renewals=None, **hours) -> Calibration:
    return Calibration(
        board="simulated",
        made_at=datetime.now(timezone.utc).replace(microsecond=0),
        still=(1536, 2048),
        black=np.zeros((4, 3, 3), np.float32),
        gains={},
        matrix=np.eye(3),
        lamp_hours=hours,
        lamp_renewals=renewals or {},
    )


def now(renewals=None, **hours) -> dict[str, Any]:
    return {"lamp_hours": hours, "lamp_renewals": renewals or {}}


def test_a_calibration_keeps_the_hours_its_lamps_had(tmp_path: Path) -> None:
    write_calibration(tmp_path, made({"cross": 2}, white=12.5))
    kept = newest_calibration(tmp_path, load_board(BOARDS / "simulated.toml"))
    assert kept.lamp_hours == {"white": 12.5}
    assert kept.lamp_renewals == {"cross": 2}


def test_staff_hear_of_lamps_that_aged_since_the_calibration() -> None:
    board = load_board(BOARDS / "simulated.toml")
    after_500 = board.model_copy(update={"calibrate_after_lamp_h": 500.0})
    then = made(white=100.0, cross=10.0)
    assert lamps_aged(after_500, then, now(white=600.0, cross=10.0)) is None
    assert lamps_aged(board, then, now(white=6000.0, cross=10.0)) is None
    said = lamps_aged(after_500, then, now(white=601.0, cross=10.0, dir0=700.0))
    assert said.startswith("Lit since the calibration: dir0 for 700 h, white for 501 h")
    assert "dermakiosk calibrate" in said
    assert "cross: a new lamp" in lamps_aged(after_500, then, now(white=100.0, cross=0.0))


def test_a_calibration_from_before_hours_were_counted_ages_by_all_of_them() -> None:
    board = load_board(BOARDS / "simulated.toml").model_copy(update={"calibrate_after_lamp_h": 500.0})
    assert lamps_aged(board, made(), now(white=499.0)) is None
    assert "white for 6000 h" in lamps_aged(board, made(), now(white=6000.0))


def test_a_new_lamp_is_another_one_however_long_it_was_lit_since() -> None:
    board = load_board(BOARDS / "simulated.toml")
    then = made({"white": 1}, white=10.0, cross=10.0)
    assert lamps_aged(board, then, now({"white": 1}, white=15.0, cross=15.0)) is None
    assert "white: a new lamp" in lamps_aged(board, then, now({"white": 2}, white=15.0, cross=15.0))
    assert "cross: a new lamp" in lamps_aged(
        board, then, now({"white": 1, "cross": 1}, white=15.0, cross=15.0)
    )
