"""`dermakiosk lights`: how staff clears a fault and renews a lamp, and what they are told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from firmware.lights import core as lightcore
from firmware.lights.client import Lights, LightsFault
from firmware.lights.doses import FAULT_UNKNOWN, UV_ONLY
from firmware.lights.latch import FAULT_WORDS
from tests.support.kiosk_daemons import ROOT, Daemon, consent, small_board, until, uv_allowance


def lights_command(state, *arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kiosk_app.cli import main; main()", "lights", *arguments]
    return subprocess.run(
        [*command, "--state", str(state)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_every_fault_has_its_words() -> None:
    latched = re.findall(r'_latch\("(\w+)"\)', Path(lightcore.__file__).read_text())
    assert set(FAULT_WORDS) == {*latched, *UV_ONLY, FAULT_UNKNOWN}


def test_staff_clears_a_fault_by_command(tmp_path: Path) -> None:
    state = tmp_path / "k"
    dead = '\n[simulation]\ndead_lamps = ["uv365"]\n'
    daemon = Daemon("lightd", small_board(tmp_path, dead), state)
    try:
        lights = Lights(state / "run" / "light.sock")
        lights.lease("s1", consent(), uv_allowance())
        lights.pulse("uv365", 0.15)
        until(lambda: lights.status()["fault"] == "uv_unseen", "the fault of a UV lamp that was not seen")
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


def test_staff_are_told_which_file_cannot_be_read_and_that_there_is_nothing_to_clear_meanwhile(
    tmp_path: Path,
) -> None:
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
        until(lambda: lights_command(state, "status").returncode == 0, "the light daemon answering")
        assert "dose ledger" not in lights_command(state, "status").stdout
    finally:
        daemon.end()


def test_staff_clears_a_lost_ledger_in_two_steps_by_command(tmp_path: Path) -> None:
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


def test_staff_are_told_where_a_new_lamp_was_not_written_down(tmp_path: Path) -> None:
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


def test_staff_renews_the_uv_lamp_by_command(tmp_path: Path) -> None:
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
