"""The commands of the daemons: what is wrong at start-up is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hardware.board import BOARDS
from tests.support.kiosk_daemons import ROOT, SIMULATED, Daemon, small_board

REAL = BOARDS / "raspberrypi5.toml"
LAPTOP = BOARDS / "laptop.toml"


def dermakiosk(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kiosk_app.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("daemon", "said"), [("lightd", "pin_factory = 'lgpio'"), ("captured", "camera.driver = 'picamera2'")]
)
def test_a_driver_that_is_not_there_is_one_sentence(tmp_path: Path, daemon, said) -> None:
    result = dermakiosk(daemon, "--board", REAL, "--state", tmp_path / "k")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_portrait_is_for_simulated_boards_only(tmp_path: Path) -> None:
    result = dermakiosk("captured", "--board", REAL, "--state", tmp_path / "k", "--portrait", REAL)
    assert result.returncode == 2
    assert "real camera" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--portrait", SIMULATED, "--phantom", 7), "two patients"), (("--tone", 20), "name its seed")],
)
def test_one_patient_stands_in_front_of_the_camera(tmp_path: Path, arguments, said) -> None:
    result = dermakiosk("captured", "--board", SIMULATED, "--state", tmp_path / "k", *arguments)
    assert result.returncode == 2
    assert said in result.stderr


def test_a_portrait_that_is_no_picture_is_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    result = dermakiosk("captured", "--board", SIMULATED, "--state", tmp_path / "k", "--portrait", bad)
    assert result.returncode == 2
    assert "bad.jpg: This is not a picture that can be read." in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_board_that_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    bad = small_board(tmp_path, **{"uv_pulse_s = 1.0": "uv_pulse_s = 2.0"})
    result = dermakiosk("lightd", "--board", bad, "--state", tmp_path / "k")
    assert result.returncode == 2
    assert "limits.uv_pulse_s = 2.0" in result.stderr


def test_a_laptop_is_told_at_once_that_it_cannot_be_calibrated(tmp_path: Path) -> None:
    result = dermakiosk("calibrate", "--board", LAPTOP, "--state", tmp_path / "k")
    assert result.returncode == 2
    assert "'laptop' has no lamps of its own" in result.stderr


def test_the_light_daemon_of_a_laptop_says_that_it_has_no_uv_lamp(tmp_path: Path) -> None:
    daemon = Daemon("lightd", LAPTOP, tmp_path / "k")
    try:
        said = dermakiosk("lights", "status", "--state", tmp_path / "k")
    finally:
        daemon.end()
    assert said.returncode == 0
    assert "none on this board" in said.stdout
    assert "cannot be read" not in said.stdout


def test_a_peer_is_a_user_of_this_machine_by_name_or_number(tmp_path: Path) -> None:
    result = dermakiosk(
        "lightd", "--board", SIMULATED, "--state", tmp_path / "k", "--peer", "0", "--peer", "nosuch"
    )
    assert result.returncode == 2
    assert "no user 'nosuch'" in result.stderr
