"""The commands of the daemons: what is wrong at start-up is one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.kiosk_daemons import ROOT, SIMULATED, small_board


def dermakiosk(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kiosk_app.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def real_board(tmp_path):
    """A board that says it is no simulation, with drivers that this version does not have."""
    return small_board(
        tmp_path,
        **{
            "simulated = true": "simulated = false",
            'pin_factory = "mock"': 'pin_factory = "lgpio"',
            'driver = "simulated"': 'driver = "picamera2"',
            'calibrated_on = "simulated"': "calibrated_on = 2026-01-01",
        },
    )


@pytest.mark.parametrize(
    ("daemon", "said"), [("lightd", "pin_factory = 'lgpio'"), ("captured", "camera.driver = 'picamera2'")]
)
def test_a_driver_that_is_not_there_is_one_sentence(tmp_path, daemon, said):
    result = dermakiosk(daemon, "--board", real_board(tmp_path), "--state", tmp_path / "k")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_portrait_is_for_simulated_boards_only(tmp_path):
    result = dermakiosk(
        "captured", "--board", real_board(tmp_path), "--state", tmp_path / "k", "--portrait", "x.jpg"
    )
    assert result.returncode == 2
    assert "real camera" in result.stderr


def test_a_portrait_that_is_no_picture_is_one_sentence(tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    result = dermakiosk("captured", "--board", SIMULATED, "--state", tmp_path / "k", "--portrait", bad)
    assert result.returncode == 2
    assert "bad.jpg is not a picture" in result.stderr


def test_a_board_that_is_wrong_is_one_sentence(tmp_path):
    bad = small_board(tmp_path, **{"uv_pulse_s = 1.0": "uv_pulse_s = 2.0"})
    result = dermakiosk("lightd", "--board", bad, "--state", tmp_path / "k")
    assert result.returncode == 2
    assert "limits.uv_pulse_s = 2.0" in result.stderr
