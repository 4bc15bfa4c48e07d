"""The self-test's judgements, on what a workbench reports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firmware.bench.selftest import _clock, _power, _sensed, _storage
from hardware.board import BOARDS, load_board

BOARD = load_board(BOARDS / "simulated.toml")


def bench(w_m2: float) -> SimpleNamespace:
    """A bench whose UV lamp gives so much while it is on."""

    def step(lit) -> dict[str, Any]:
        sensors = {"photodiode_w_m2": w_m2 if lit else 0.0, "lamp_current_a": 0.7 if lit else 0.0}
        return {"sensors": sensors, "uv_seen": [lit, lit]}

    return SimpleNamespace(board=BOARD, sense=lambda name: [step(False), step(True), step(False)])


@pytest.mark.parametrize(
    ("w_m2", "well", "said"),
    [
        (8.2, True, "photodiode 0.00, 8.20, 0.00 W/m²"),
        (9.7, False, "uv365 gives 9.7 W/m² by the photodiode, brighter than the 8 W/m²"),
        (4.0, False, "uv365 gives 4.0 W/m² by the photodiode, not as bright as the 8 W/m²"),
    ],
)
def test_a_uv_lamp_is_as_bright_as_the_dose_is_reckoned_by(w_m2, well, said) -> None:
    result = _sensed(bench(w_m2), "uv365")
    assert result.ok is well
    assert said in result.found


@pytest.mark.parametrize("soc", ["soc", "soc@107c000000"], ids=["Pi 4", "Pi 5"])
@pytest.mark.parametrize(
    ("flags", "well", "said"),
    [("0", True, "no under-voltage"), ("50005", False, "now"), ("50000", False, "since start")],
)
def test_under_voltage_is_told_on_every_raspberry_pi(tmp_path: Path, soc, flags, well, said) -> None:
    firmware = tmp_path / "devices" / "platform" / soc / f"{soc}:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text(f"{flags}\n")
    result = _power(tmp_path)
    assert (result.ok, said in result.found) == (well, True)


def test_a_machine_that_reports_no_under_voltage_was_not_tested(tmp_path: Path) -> None:
    assert _power(tmp_path).ok is None


def test_storage_is_tried_in_the_folder_that_staff_may_write(tmp_path: Path) -> None:
    assert _storage(tmp_path).ok
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]
    (tmp_path / "calibration").rmdir()
    (tmp_path / "calibration").write_text("in the way")
    assert "calibration cannot be written" in _storage(tmp_path).found


def test_nothing_has_to_vouch_for_the_clock_of_a_board_without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.bench.selftest.vouched_by", lambda wall: None)
    assert _clock(load_board(BOARDS / "laptop.toml")).ok
    without = _clock(load_board(BOARDS / "raspberrypi5.toml"))
    assert (without.ok, "there is no UV" in without.found) == (False, True)
    monkeypatch.setattr("firmware.bench.selftest.vouched_by", lambda wall: "the battery clock")
    assert _clock(load_board(BOARDS / "raspberrypi5.toml")).ok
