"""Board profiles: what is right is read, what is wrong is named with its key."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from hardware.board import BOARDS, BoardError, load_board
from hardware.cli import _why_locked
from hardware.cli import board as board_command
from hardware.profile import Limits

SIMULATED = BOARDS / "simulated.toml"


REAL = [path for path in sorted(BOARDS.glob("*.toml")) if not load_board(path).simulated]
RASPBERRYPI5 = BOARDS / "raspberrypi5.toml"


def changed(tmp_path: Path, old: str, new: str, board: Path = SIMULATED) -> Path:
    text = board.read_text()
    assert old in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(old, new))
    return path


def test_the_simulated_board_has_every_light() -> None:
    board = load_board(SIMULATED)
    assert board.simulated
    assert list(board.lights) == ["white", "parallel", "cross", "uv365", "dir0", "dir1", "dir2", "dir3"]
    assert [name for name, light in board.lights.items() if light.is_uv] == ["uv365"]
    assert board.calibration == "nominal-simulated"


@pytest.mark.parametrize("field", list(Limits.model_fields))
def test_a_limit_can_be_stricter_but_never_looser(tmp_path: Path, field) -> None:
    bound = getattr(Limits(), field)
    stricter = changed(tmp_path, f"{field} = {bound}", f"{field} = {type(bound)(bound * 0.5)}")
    assert getattr(load_board(stricter).limits, field) < bound
    for loose in (bound * 2, "inf", "nan"):
        looser = changed(tmp_path, f"{field} = {bound}", f"{field} = {loose}")
        with pytest.raises(BoardError, match=f"limits.{field}"):
            load_board(looser)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pin = 18", "pin = 12", "pin 12 is used twice"),
        ("shroud_pins = [20, 21]", "shroud_pins = [20, 18]", "pin 18 is used twice"),
        ("[lights.white]", "[lights.green]", "lights.green"),
        ("wavelength_nm = 365", "wavelength_nm = 280", "lights.uv365.wavelength_nm"),
        ("wavelength_nm = 365", "", "wavelength_nm must be 315…400"),
        ("irradiance_w_m2 = 8.0", "", "irradiance_w_m2 at the eye plane"),
        ("irradiance_w_m2 = 8.0", "irradiance_w_m2 = 0.0", "lights.uv365.irradiance_w_m2"),
        ("pin = 23", "pin = 23\npwm_hz = 2000", "pwm_hz must go"),
        ("pwm_hz = 2000", "pwm_hz = 50", "lights.white.pwm_hz"),
        ("simulated = true", "simulated = false", "must be a date on a board that is not simulated"),
        ('engine = "ai-edge-litert"', 'engine = "guess"', "engine = 'guess'"),
        ("schema = 1", "schema = 2", "schema"),
        ("white_counts = 3300.0", "white_counts = 9999.0", "beyond what camera.bits can count"),
        ("bits = 12", "bits = 12\ncolour = 1", "camera.colour"),
        ("schema = 1", "schema = = 1", "no TOML"),
        ("schema = 1", "schema = 1\nx = " + 900 * "[" + 900 * "]", "no TOML"),
        ("schema = 1", "schema = 1\nx = " + 5000 * "9", "no TOML"),
        ("schema = 1", "schema = 1\n#" + 70_000 * "x", "larger than 64 KiB"),
        ("schema = 1", "schema = 1\npuls_s = 1.0", "puls_s is no key of a board profile"),
        ('engine = "ai-edge-litert"', "", "engine is missing"),
        ("simulated = true", 'simulated = "yes"', "simulated = 'yes'"),
        ("pin = 18", "pin = true", "lights.white.pin = True"),
        ("uv_pulse_s = 1.0", 'uv_pulse_s = "1.0"', "limits.uv_pulse_s = '1.0'"),
        ('calibrated_on = "simulated"', "calibrated_on = 1735689600", "lights.uv365.calibrated_on = 1735"),
        ("[220.0, 0.0, 260.0]", "[nan, 0.0, 260.0]", "lights.dir0.position_mm.0 = nan"),
        ('name = "simulated"', 'name = "simulated"\ntitle = "a\\u001b[2J"', "title = 'a\\x1b[2J'"),
        (
            "pin = 5\npwm_hz = 2000",
            "pin = 5\nwavelength_nm = 365\nirradiance_w_m2 = 8.0",
            "lights.dir0.wavelength_nm = 365 is UV: only uv365 may be",
        ),
        (
            'pin_factory = "mock"',
            'pin_factory = "lgpio"\nheader = "raspberrypi"',
            "simulated = true must go: pin_factory = 'lgpio' lights real lamps",
        ),
        ('driver = "simulated"\nwidth', 'driver = "v4l2"\nwidth', "close_up.device is missing"),
        ("mm_per_px = 0.033", "mm_per_px = 0.0", "close_up.mm_per_px"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old, new, said) -> None:
    with pytest.raises(BoardError) as caught:
        load_board(changed(tmp_path, old, new))
    assert said in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_board_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="cannot be read"):
        load_board(tmp_path / "none.toml")


def test_board_check_lists_the_lights_of_a_good_board() -> None:
    result = CliRunner().invoke(board_command, ["check", str(SIMULATED)])
    assert result.exit_code == 0
    assert "SIMULATED" in result.output
    assert "uv365" in result.output


def test_board_check_names_every_problem_and_exits_with_1(tmp_path: Path) -> None:
    path = changed(tmp_path, "uv_pulse_s = 1.0", "uv_pulse_s = 1.5")
    path.write_text(path.read_text().replace('key_store = "file"', 'key_store = "shoebox"'))
    result = CliRunner().invoke(board_command, ["check", str(path)])
    assert result.exit_code == 1
    assert "limits.uv_pulse_s = 1.5" in result.output
    assert "key_store = 'shoebox'" in result.output


def test_board_check_warns_of_a_lamp_above_the_design_value(tmp_path: Path) -> None:
    path = changed(tmp_path, "irradiance_w_m2 = 8.0", "irradiance_w_m2 = 12.0")
    result = CliRunner().invoke(board_command, ["check", str(path)])
    assert result.exit_code == 0
    assert "brighter than the design value" in result.output


@pytest.mark.parametrize("path", sorted(BOARDS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_board_that_ships_can_be_used_and_bears_its_files_name(path) -> None:
    assert load_board(path).name == path.stem


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_no_board_that_ships_claims_a_measurement_that_nobody_made(path) -> None:
    for light in load_board(path).lights.values():
        assert light.calibrated_on is None


def test_a_laptop_measures_under_the_light_of_the_room_and_says_so() -> None:
    laptop = BOARDS / "laptop.toml"
    board = load_board(laptop)
    assert list(board.lights) == ["white"]
    assert board.room_lit and not board.has_uv
    assert "white-light measures only" in CliRunner().invoke(board_command, ["check", str(laptop)]).output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('header = "raspberrypi"', "", "header is missing"),
        ("pin = 17", "pin = 4", "lights.parallel.pin = 4 idles high at power-on"),
        ("pin = 17", "pin = 50", "lights.parallel.pin = 50 is not on the header"),
        ("pin = 17", "pin = 10", "lights.parallel.pin = 10 carries the SPI bus of the TPM"),
        (
            "shroud_pins = [20, 21]",
            "shroud_pins = [2, 21]",
            "interlocks.shroud_pins.0 = 2 carries the I2C bus",
        ),
        ("pin = 17", "", "lights.parallel.pin is missing"),
        ("[interlocks]\nshroud_pins = [20, 21]\none_shot_s = 2.0", "", "interlocks is missing"),
        ("one_shot_s = 2.0", "one_shot_s = 2.5", "interlocks.one_shot_s = 2.5"),
        ('eye_protection = "closed_eyes"', 'eye_protection = "none"', "for boards without UV"),
        ('eye_protection = "closed_eyes"', 'eye_protection = "goggles"', "'goggles' has no detector"),
        ("channel = 2", "channel = 1", "two sensors share a channel"),
        ("address = 0x48", "address = 0x20", "sensors.adc.address"),
        ('pin_factory = "lgpio"', 'pin_factory = "gpiod"', "gpio_chip belongs to pin_factory = 'gpiod'"),
        ('pin_factory = "lgpio"', 'pin_factory = "none"', "lights.white.pin must go"),
        ('pin_factory = "lgpio"', 'pin_factory = "mock"', "pin_factory = 'mock' needs simulated = true"),
        ('driver = "picamera2"', 'driver = "v4l2"', "camera.device is missing"),
        ("rotate_deg = 90", "rotate_deg = 45", "camera.rotate_deg"),
        ("pwm_hz = 2000", "pwm_hz = 20000", "lights.white.pwm_hz is more than lgpio can do"),
        ("bus = 1", "bus = 0", "sensors.adc.bus must be 1"),
        ("broken_below = -20.0", "broken_below = -300.0", "broken_below must be -50 or more: a torn wire"),
        ("lit_above = 0.5", "lit_above = 4.1", "sensors.photodiode.lit_above is more than half of"),
        ("exposure_us = 60000", "exposure_us = 100001", "lights.uv365.exposure_us is longer than a frame"),
        (
            "height = 640, fps = 10.0",
            "height = 640, fps = 5.0",
            "camera.preview.fps is less than camera.still.fps",
        ),
    ],
)
def test_what_is_wrong_with_a_real_board_is_named(tmp_path: Path, old, new, said) -> None:
    with pytest.raises(BoardError) as caught:
        load_board(changed(tmp_path, old, new, RASPBERRYPI5))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('dead_lamps = ["white", "dir7"]', "simulation.dead_lamps"),
        ('stuck_lamps = ["dir7"]', "simulation.stuck_lamps"),
        ('patient_opens_shroud_at = { light = "dir7" }', "simulation.patient_opens_shroud_at.light"),
    ],
)
def test_a_fault_of_a_light_that_the_board_lacks_is_named(tmp_path: Path, line, key) -> None:
    path = tmp_path / "board.toml"
    path.write_text((BOARDS / "simulated.toml").read_text() + f"\n[simulation]\n{line}\n")
    with pytest.raises(BoardError, match=f"{key} = 'dir7' is no light of this board"):
        load_board(path)


def test_libgpiod_cannot_dim(tmp_path: Path) -> None:
    jetson = changed(tmp_path, "pin = 50", "pin = 50\npwm_hz = 2000", BOARDS / "jetson-orin-nano.toml")
    with pytest.raises(BoardError, match=r"lights\.white\.pwm_hz must go: libgpiod cannot dim"):
        load_board(jetson)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(BoardError, match="it is a device, where a file has to be"):
        load_board(Path("/dev/zero"))


def test_a_file_larger_than_any_profile_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text("#" * (64 * 1024 + 1))
    with pytest.raises(BoardError, match="larger than 64 KiB"):
        load_board(path)


@pytest.mark.parametrize(
    ("measured", "irradiance", "said"),
    [
        (lambda today: today + timedelta(days=2), 8.0, "lies in the future: this lamp stays locked until"),
        (lambda today: today - timedelta(days=366), 8.0, "366 days ago: this lamp is locked since {today}"),
        (lambda today: today, 33.5, "above the lock-out of 33 W/m²: this lamp stays locked"),
        (lambda today: today - timedelta(days=340), 8.0, "this lamp is locked in 26 days"),
        (lambda today: today - timedelta(days=365), 8.0, "this lamp is locked in 1 day."),
    ],
)
def test_board_check_says_why_a_uv_lamp_is_locked(tmp_path: Path, measured, irradiance, said) -> None:
    day = measured(datetime.now(timezone.utc).date())
    path = changed(
        tmp_path,
        "irradiance_w_m2 = 8.0",
        f"irradiance_w_m2 = {irradiance}\ncalibrated_on = {day}",
        RASPBERRYPI5,
    )
    result = CliRunner().invoke(board_command, ["check", str(path)])
    assert result.exit_code == 0
    assert said.format(today=datetime.now(timezone.utc).date()) in result.output


def test_board_check_says_of_what_was_measured_today_that_it_is_of_today() -> None:
    today = datetime.now(timezone.utc).date()
    light = load_board(SIMULATED).lights["uv365"].model_copy(update={"calibrated_on": today})
    often = load_board(SIMULATED).limits.model_copy(update={"uv_calibration_days": 7})
    assert "is of today: this lamp is locked in 8 days." in str(_why_locked(light, often, today))


def test_board_check_names_the_header_pin_of_each_line() -> None:
    rows = CliRunner().invoke(board_command, ["check", str(RASPBERRYPI5)]).output.splitlines()
    assert [row.split()[:3] for row in rows if row.startswith(("white", "shroud"))] == [
        ["white", "18", "12"],
        ["shroud", "switch", "1"],
        ["shroud", "switch", "2"],
    ]
    assert any(row.split() == ["shroud", "switch", "1", "20", "38"] for row in rows)


def test_every_mistake_between_keys_is_named_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, "pin = 17", "pin = 4", RASPBERRYPI5)
    path.write_text(path.read_text().replace('eye_protection = "closed_eyes"', 'eye_protection = "none"'))
    with pytest.raises(BoardError) as caught:
        load_board(path)
    assert len(caught.value.problems) == 2


def test_board_check_reads_many_boards_and_fails_for_one(tmp_path: Path) -> None:
    wrong = changed(tmp_path, "schema = 1", "schema = 2")
    result = CliRunner().invoke(board_command, ["check", *map(str, REAL), str(wrong)])
    assert result.exit_code == 1
    assert all(path.stem in result.output for path in REAL)
    assert "stays locked until it is measured" in result.output


def test_a_sensor_reads_its_unit_from_volts() -> None:
    sensors = load_board(RASPBERRYPI5).sensors
    assert sensors is not None
    assert sensors.lamp_temperature.reading(0.75) == pytest.approx(25.0)
    assert sensors.photodiode.reading(0.8) == pytest.approx(8.0)


def test_a_thermometer_with_a_torn_wire_is_broken_and_not_cold() -> None:
    sensors = load_board(RASPBERRYPI5).sensors
    assert sensors is not None
    with pytest.raises(OSError, match="broken"):
        sensors.lamp_temperature.reading(0.0)


def test_a_brightness_band_upside_down_is_named(tmp_path: Path) -> None:
    text = (BOARDS / "simulated.toml").read_text().replace("pin = 13\n", "pin = 13\nexpect = [0.5, 0.1]\n")
    path = tmp_path / "board.toml"
    path.write_text(text)
    with pytest.raises(BoardError, match=r"lights\.cross\.expect must be a band"):
        load_board(path)


def test_a_real_board_has_no_drawn_close_ups_and_not_the_face_camera_for_them(tmp_path: Path) -> None:
    laptop = (BOARDS / "laptop.toml").read_text()
    assert load_board(BOARDS / "laptop.toml").close_up is None
    path = tmp_path / "board.toml"
    for lines, said in {
        'driver = "simulated"': "close_up.driver = 'simulated' needs simulated = true",
        'driver = "v4l2"\ndevice = "/dev/video0"': "close_up.device is the face camera's",
    }.items():
        path.write_text(f"{laptop}\n[close_up]\n{lines}\n")
        with pytest.raises(BoardError, match=re.escape(said)):
            load_board(path)
    path.write_text(f'{laptop}\n[close_up]\ndriver = "v4l2"\ndevice = "/dev/v4l/by-id/usb-scope"\n')
    assert load_board(path).close_up.device == "/dev/v4l/by-id/usb-scope"
