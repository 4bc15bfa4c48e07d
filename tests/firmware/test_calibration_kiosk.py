"""Calibration closes the loop through the pins: measured, applied to captures, checked every day."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from firmware.bench.calibrate import led_and_sensor
from firmware.bench.chart import read_chart
from firmware.bench.colour import delta_e00
from firmware.bench.lamp_position import find_ball, locate_lamp
from firmware.cameras.calibration import (
    CalibrationError,
    cells,
    newest_calibration,
)
from firmware.cameras.grey_card_check import why_not_to_scan
from firmware.capture.client import CaptureClient, CaptureFault
from firmware.staff_cli import calibrate, greycard, selftest
from hardware.board import BOARDS, load_board
from hardware.capture import Capture
from hardware.colour import lab
from hardware.simulated.patient import Patient
from hardware.simulated.targets import Target, mm_per_px
from hardware.spectra import LEDS, SENSORS
from hardware.targets import Sphere, reference_chart
from tests.support.kiosk_daemons import EVERY_LIGHT, Daemon, Kiosk, consent, running_kiosk
from tests.support.own_log import own_log
from tests.support.stand_in_face import find_stand_in, portrait
from tests.support.uncalibrated import small

WITH_LAMPS = [
    path for path in sorted(BOARDS.glob("*.toml")) if (board := load_board(path)).pins and not board.simulated
]


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kiosk]:
    folder = tmp_path_factory.mktemp("kiosk")
    with running_kiosk(small(folder), folder / "k") as kiosk:
        yield kiosk


def run(command, board, state, *more, engine=lambda name: (True, "right answers")) -> Result:
    """`engine`: what the root command hands down, for the self-test. The log is beside what is printed."""
    given = ["--board", str(board), "--state", str(state), *more]
    with own_log():
        return CliRunner().invoke(command, given, obj={"engine_checker": engine})


def taken(kiosk) -> Capture:
    client = CaptureClient(kiosk.capture_socket, timeout=60)
    return client.capture(uuid.uuid4().hex, consent(), EVERY_LIGHT, None)


def face_error(capture, board) -> float:
    """ΔE00 between the patient's own colours and the cross frame (twice it: half the light is lost)."""
    face = find_stand_in(portrait(), board.engine)
    scene = Patient(board, portrait(), face.landmarks).still
    own = np.concatenate([parts["cross"] for _, parts in scene.strips({"cross": 1.0}, {})])
    pixels = capture.frame("cross").pixels / 65_535
    middle = np.s_[160:320, 130:250]
    seen, right = (cells(2 * picture[middle]) for picture in (pixels, own))
    return float(np.median(delta_e00(lab(seen), lab(right))))


@pytest.fixture(scope="module")
def calibrated(kiosk: Kiosk) -> tuple[dict[str, Any], Capture, Capture]:
    """(what calibrate said, a capture from before it, one from after)."""
    before = taken(kiosk)
    result = run(calibrate, kiosk.board, kiosk.state, "--json", "--hood-empty")
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout.splitlines()[-1]), before, taken(kiosk)


def test_flat_fields_leave_less_than_one_per_cent(
    calibrated: tuple[dict[str, Any], Capture, Capture],
) -> None:
    said, _, _ = calibrated
    assert set(said["flat_residual"]) == {"white", "parallel", "cross", "uv365"}
    assert max(said["flat_residual"].values()) <= 0.01


def test_the_chart_gives_the_scale_and_checks_the_colours(
    calibrated: tuple[dict[str, Any], Capture, Capture],
) -> None:
    said, _, _ = calibrated
    assert said["mm_per_px"] == pytest.approx(mm_per_px(384), rel=0.005)
    assert said["chart_de00"]["mean"] < 3


def test_the_ball_gives_the_lamps_places(calibrated: tuple[dict[str, Any], Capture, Capture]) -> None:
    said, _, _ = calibrated
    assert set(said["lamp_beside_profile_mm"]) == {"dir0", "dir1", "dir2", "dir3"}
    assert max(said["lamp_beside_profile_mm"].values()) < 12


def test_captures_name_the_newest_calibration_and_show_true_colours(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk
) -> None:
    said, before, after = calibrated
    board = load_board(kiosk.board)
    assert before.calibration == "nominal-simulated-uncalibrated"
    assert after.calibration == said["calibration"]
    assert after.mm_per_px == said["mm_per_px"]
    assert face_error(before, board) > 5
    assert face_error(after, board) < 1.5


def test_a_dark_frame_stays_dark_after_calibration(
    calibrated: tuple[dict[str, Any], Capture, Capture],
) -> None:
    _, _, after = calibrated
    assert np.median(after.frame("dark").pixels) < 100


def test_the_grey_card_passes_after_calibration_and_a_changed_lens_fails_it(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk, tmp_path: Path
) -> None:
    board = load_board(kiosk.board)
    passed = run(greycard, kiosk.board, kiosk.state)
    assert passed.exit_code == 0
    assert "the calibration is still true" in passed.output
    calibration = newest_calibration(kiosk.state, board)
    assert why_not_to_scan(kiosk.state, board, calibration) is None
    changed = small(tmp_path, **{"uneven = 0.3": "uneven = 0.45"})
    failed = run(greycard, changed, kiosk.state)
    assert failed.exit_code == 1
    assert "FAILED" in failed.output
    assert "Nobody can be scanned now" in failed.output
    with pytest.raises(CaptureFault) as refused:
        taken(kiosk)
    assert refused.value.code == "not_calibrated"
    assert "dermakiosk greycard" in str(refused.value)
    assert kiosk.lit() == set()
    assert run(greycard, kiosk.board, kiosk.state).exit_code == 0
    assert taken(kiosk).frame("white") is not None


def test_a_calibration_notes_its_lamps_hours(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk
) -> None:
    calibration = newest_calibration(kiosk.state, load_board(kiosk.board))
    assert calibration.lamp_hours["white"] > 0


def test_no_uv_is_lit_to_calibrate_unless_the_hood_is_empty(
    calibrated: tuple[dict[str, Any], Capture, Capture],
    kiosk: Kiosk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = []
    monkeypatch.setattr(
        "firmware.cameras.calibration.write_calibration", lambda state, made: kept.append(made)
    )
    since = len(uv_pins(kiosk))
    assert run(calibrate, kiosk.board, kiosk.state).exit_code == 0
    assert "uv365" not in kept[0].gains
    assert len(uv_pins(kiosk)) == since


def rows_of(result) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in map(json.loads, result.stdout.splitlines())}


def uv_pins(kiosk) -> list[Any]:
    return [item for item in kiosk.pins.history() if item.light == "uv365"]


def test_the_self_test_sees_every_light(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk
) -> None:
    result = run(selftest, kiosk.board, kiosk.state, "--json", "--hood-empty")
    rows = rows_of(result)
    lights = list(load_board(kiosk.board).lights)
    assert all(rows[f"light {name}"]["ok"] is True for name in lights), rows
    assert rows["networks"]["ok"] is True and rows["networks"]["found"] == "right answers"
    for name in lights:
        read = rows[f"sensors, {name}"]["values"]
        wanted = [0.0, 8.0 if name == "uv365" else 0.0, 0.0]
        assert read["photodiode_w_m2"] == pytest.approx(wanted, abs=0.3), rows
        assert read["lamp_current_a"] == pytest.approx([0.7 * (one > 0) for one in wanted], abs=0.1), rows
    assert rows["calibration"]["ok"] is True
    assert rows["lamp hours"]["values"]["white"] > 0


def test_the_self_test_exercises_every_interlock(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk
) -> None:
    rows = rows_of(run(selftest, kiosk.board, kiosk.state, "--json", "--hood-empty"))
    exercised = [row for name, row in rows.items() if name.startswith(("UV", "shroud", "lamp temperature"))]
    assert len(exercised) == 13
    assert all(row["ok"] is True for row in exercised), rows
    assert kiosk.lit() == set()


def test_the_self_test_lights_no_uv_unless_the_hood_is_empty(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk
) -> None:
    since = len(uv_pins(kiosk))
    rows = rows_of(run(selftest, kiosk.board, kiosk.state, "--json"))
    assert rows["light uv365"]["ok"] is None
    assert rows["UV that is refused"]["ok"] is None
    assert rows["shroud"]["ok"] is True
    assert len(uv_pins(kiosk)) == since


@pytest.mark.parametrize(
    ("simulation", "named"),
    [
        ('dead_senses = ["photodiode"]', "the photodiode does not see uv365 lit"),
        ('dead_senses = ["lamp_current"]', "the current sense does not see uv365 lit"),
        ('dead_senses = ["lamp_temperature"]', "the thermometer cannot be read"),
        ("welded_switches = [false, true]", "switch 2 says closed, the shroud is open"),
        ("shroud_closed = [false, true]", "switch 1 says open, the shroud is closed"),
        ('dead_lamps = ["uv365"]', "the photodiode does not see uv365 lit"),
    ],
)
def test_the_self_test_names_what_is_broken_at_the_lamp(tmp_path: Path, simulation, named) -> None:
    board = small(tmp_path, **{"[simulation]\n": f"[simulation]\n{simulation}\n"})
    daemon = Daemon("lightd", board, tmp_path / "k")
    try:
        result = run(selftest, board, tmp_path / "k", "--hood-empty")
    finally:
        daemon.end()
    assert result.exit_code == 1
    assert [line for line in result.output.splitlines() if "FAILED" in line and named in line], result.output


def test_the_self_test_names_a_dead_lamp(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk, tmp_path: Path
) -> None:
    board = small(tmp_path, **{"[simulation]\n": '[simulation]\ndead_lamps = ["parallel"]\n'})
    result = run(selftest, board, kiosk.state)
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.output.splitlines() if "FAILED" in line] == ["parallel"]
    assert "ok, 1 failed (light parallel), " in result.output.splitlines()[-1]


def test_without_a_light_daemon_the_self_test_says_so_and_goes_on(tmp_path: Path) -> None:
    result = run(selftest, small(tmp_path), tmp_path / "k")
    assert result.exit_code == 1
    assert "The light daemon cannot be reached" in result.output
    assert "storage" in result.output


def test_a_board_that_names_no_led_cannot_be_calibrated(
    calibrated: tuple[dict[str, Any], Capture, Capture], kiosk: Kiosk, tmp_path: Path
) -> None:
    board = small(
        tmp_path, **{'[lights.white]\npin = 18\nled = "violet-pump-6500k"': "[lights.white]\npin = 18"}
    )
    result = run(calibrate, board, kiosk.state)
    assert isinstance(result.exception, CalibrationError)
    assert "lights.white.led is missing" in str(result.exception)
    assert kiosk.lit() == set()


@pytest.mark.parametrize("path", WITH_LAMPS, ids=lambda path: path.stem)
def test_every_kiosk_that_ships_names_what_its_colour_is_fitted_by(path) -> None:
    led, sensor = led_and_sensor(load_board(path))
    assert (led in LEDS, sensor in SENSORS) == (True, True)


def scene_of(name, tmp_path: Path, light="white", position=None) -> npt.NDArray[np.float32]:
    board = load_board(small(tmp_path))
    positions = {} if position is None else {light: position}
    strips = Target(board, name).still.strips({light: 1.0}, positions)
    return np.concatenate([parts[light] for _, parts in strips])


def test_a_chart_with_a_marker_covered_is_not_read(tmp_path: Path) -> None:
    picture = np.round(scene_of("chart", tmp_path) * 60_000).astype(np.uint16)
    assert read_chart(picture, reference_chart()).mm_per_px == pytest.approx(mm_per_px(384), rel=0.005)
    picture[: 512 // 2, : 384 // 2] = 30_000
    with pytest.raises(CalibrationError, match="marker 0"):
        read_chart(picture, reference_chart())


@pytest.mark.parametrize("position", [(220.0, 0.0, 260.0), (-180.0, 60.0, 300.0), (0.0, -240.0, 200.0)])
def test_a_lamp_is_found_from_40_mm_beside_its_place(tmp_path: Path, position) -> None:
    seen = np.round(scene_of("sphere", tmp_path) * 60_000).astype(np.uint16)
    ball = find_ball(seen, Sphere(), mm_per_px(384))
    light = scene_of("sphere", tmp_path, "dir0", position)
    start = (position[0] + 25, position[1] - 25, position[2] + 20)
    lamp = locate_lamp(light, ball, Sphere(), mm_per_px(384), start)
    assert np.linalg.norm(np.subtract(lamp.position_mm, position)) < 6


def test_a_white_card_is_no_ball(tmp_path: Path) -> None:
    seen = np.round(scene_of("white", tmp_path) * 60_000).astype(np.uint16)
    with pytest.raises(CalibrationError, match="ball"):
        find_ball(seen, Sphere(), mm_per_px(384))
