"""The driver of a Picamera2 camera, against a stand-in with its manners."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firmware.cameras.camera import open_camera
from firmware.cameras.picamera import PiCamera
from firmware.cameras.reflectance import reflectance
from hardware.board import Board, DriverMissing
from tests.support.picamera2_fake import fake_module
from tests.support.waiting import unless_held_up


@pytest.fixture
def module() -> SimpleNamespace:
    return fake_module()


@pytest.fixture
def camera(board: Board, module: SimpleNamespace) -> Iterator[PiCamera]:
    camera = PiCamera(board, module)
    yield camera
    camera.close()


def test_both_modes_come_of_one_configuration(camera: PiCamera, module: SimpleNamespace) -> None:
    still = camera.expose("still", 5000, 1.0, time.monotonic_ns())
    preview = camera.expose("preview", 5000, 1.0, time.monotonic_ns())
    assert still.counts().shape == (64, 48, 3)
    assert preview.counts().shape == (32, 24, 3)
    assert len(module.opened[0].configurations) == 1


def test_the_sensor_lies_on_its_side_and_gives_uncompressed_bayer(
    camera: PiCamera, module: SimpleNamespace
) -> None:
    raw = module.opened[0].configurations[0]["raw"]
    assert raw == {"size": (64, 48), "format": "SBGGR12"}


def test_a_camera_with_fewer_pixels_than_asked_for_is_refused(board: Board, module: SimpleNamespace) -> None:
    module.gives_size = (32, 24)
    with pytest.raises(OSError, match=r"gives 24 × 32 pixels where camera\.still asks for 48 × 64"):
        PiCamera(board, module)
    assert module.opened[0].closed


def test_exposure_and_white_balance_are_locked(camera: PiCamera, module: SimpleNamespace) -> None:
    controls = module.opened[0].configurations[0]["controls"]
    assert controls["AeEnable"] is False
    assert controls["AwbEnable"] is False
    assert controls["FrameDurationLimits"] == (20_000, 20_000)


def test_colours_come_out_red_green_blue(camera: PiCamera) -> None:
    counts = camera.expose("still", 5000, 1.0, 0).counts()
    assert counts.dtype == np.uint16
    assert counts[20, 20].tolist() == [1000, 800, 600]


def test_a_pi_5_that_shifts_its_pixels_up_gives_the_same_counts(
    board: Board, module: SimpleNamespace
) -> None:
    module.gives_format = "SBGGR16"
    module.scene = lambda begin_ns, exposure_us: (1000 << 4, 800 << 4, 600 << 4)
    assert PiCamera(board, module).expose("still", 5000, 1.0, 0).counts()[20, 20].tolist() == [1000, 800, 600]


@pytest.mark.parametrize("name", ["BGGR_PISP_COMP1", "MONO10"])
def test_a_raw_format_that_is_not_linear_bayer_is_refused(
    board: Board, module: SimpleNamespace, name
) -> None:
    module.gives_format = name
    with pytest.raises(OSError, match=name):
        PiCamera(board, module)
    assert module.opened[0].closed


def test_a_frame_began_after_the_light_was_on(camera: PiCamera, module: SimpleNamespace) -> None:
    lit_ns = time.monotonic_ns() + 30_000_000
    module.scene = lambda begin_ns, exposure_us: (1000, 800, 600) if begin_ns >= lit_ns else (64, 64, 64)
    exposure = camera.expose("still", 5000, 1.0, lit_ns)
    assert exposure.timestamp_ns >= lit_ns
    assert exposure.counts().mean() > 500


def test_a_frame_ends_when_its_last_row_was_read_out(camera: PiCamera) -> None:
    exposure = camera.expose("still", 5000, 1.0, time.monotonic_ns())
    shutter_ns = exposure.timestamp_ns + exposure.exposure_us * 1000
    # A frame lasts 20 ms; the fake one is there that long after its first row.
    assert shutter_ns < exposure.end_ns <= min(shutter_ns + 20_000_000, time.monotonic_ns())


def test_a_frame_with_older_settings_is_passed_over(camera: PiCamera) -> None:
    camera.expose("still", 5000, 1.0, 0)
    exposure = camera.expose("still", 15_000, 4.0, 0)
    assert exposure.exposure_us == pytest.approx(15_000, abs=100)
    assert exposure.gain == pytest.approx(4.0, rel=0.05)


def test_what_was_prepared_is_there_at_once(camera: PiCamera, module: SimpleNamespace) -> None:
    camera.prepare("still", 12_000, 2.0)
    changed = len(module.opened[0].controls_set)

    def is_there_at_once() -> None:
        started = time.monotonic_ns()
        exposure = camera.expose("still", 12_000, 2.0, started)
        # The frame that begins next, and its arrival; not three frames more for the sensor to obey.
        assert exposure.timestamp_ns - started < 2.1 * 20e6

    unless_held_up(is_there_at_once)
    assert len(module.opened[0].controls_set) == changed


def test_every_request_goes_back_to_the_camera(camera: PiCamera, module: SimpleNamespace) -> None:
    for number in range(12):
        camera.expose("still", 5000 + 1000 * (number % 3), 1.0, time.monotonic_ns())
    assert module.opened[0].free == module.opened[0].configurations[0]["buffer_count"]


def test_a_wait_that_ran_out_keeps_no_buffer(board: Board, impatient: Board, module: SimpleNamespace) -> None:
    camera = PiCamera(impatient, module)
    module.fails = "freeze"
    for _ in range(2):
        with pytest.raises(TimeoutError):
            camera.expose("still", 5000, 1.0, 0)
    module.fails = None
    camera._profile = board.camera
    camera.expose("still", 5000, 1.0, 0)
    camera.close()
    assert module.opened[0].free == module.opened[0].configurations[0]["buffer_count"]


@pytest.mark.parametrize(("fault", "words"), [("freeze", "no frames"), ("unplug", "timed out")])
def test_a_camera_that_stops_is_an_error_within_its_deadline(
    impatient: Board, module: SimpleNamespace, fault, words
) -> None:
    camera = PiCamera(impatient, module)
    module.fails = fault

    def ends() -> None:
        started = time.monotonic()
        with pytest.raises(OSError, match=words):
            camera.expose("still", 5000, 1.0, time.monotonic_ns())
        assert time.monotonic() - started < 2

    unless_held_up(ends)
    camera.close()


def test_after_a_freeze_a_new_one_works(board: Board, impatient: Board, module: SimpleNamespace) -> None:
    camera = PiCamera(impatient, module)
    module.fails = "freeze"
    with pytest.raises(TimeoutError):
        camera.expose("still", 5000, 1.0, 0)
    camera.close()
    module.fails = None
    assert PiCamera(board, module).expose("still", 5000, 1.0, 0).counts().mean() > 0
    assert [opened.closed for opened in module.opened] == [True, False]


def test_settings_that_never_work_are_an_error(impatient: Board, module: SimpleNamespace) -> None:
    camera = PiCamera(impatient, module)
    module.opened[0].set_controls = lambda controls: None
    with pytest.raises(TimeoutError, match="no frame with 9000 µs"):
        camera.expose("still", 9000, 1.0, 0)


def test_no_camera_and_a_busy_one_are_errors(board: Board, module: SimpleNamespace) -> None:
    module.cameras = 0
    with pytest.raises(OSError, match=r"camera 0 cannot be opened \(No camera number 0 found\)"):
        PiCamera(board, module)
    module.cameras, module.fails = 1, "open"
    with pytest.raises(OSError, match=r"camera 0 cannot be opened \(.*busy\)"):
        PiCamera(board, module)
    module.fails = "start"
    with pytest.raises(OSError, match=r"does not start \(.*busy\)"):
        PiCamera(board, module)
    assert module.opened[0].closed


@pytest.mark.parametrize("name", ["ColourGains", "ExposureTime", "NoiseReductionMode"])
def test_a_control_that_the_camera_lacks_is_named(board: Board, module: SimpleNamespace, name) -> None:
    module.lacks = name
    with pytest.raises(OSError, match=f"camera 0 does not start .*{name}"):
        PiCamera(board, module)
    assert module.opened[0].closed


def test_a_control_that_has_gone_is_named(camera: PiCamera, module: SimpleNamespace) -> None:
    module.lacks = "AnalogueGain"
    with pytest.raises(OSError, match="cannot be set .*AnalogueGain"):
        camera.prepare("still", 9000, 2.0)


def test_a_camera_without_raw_frames_is_an_error(board: Board, module: SimpleNamespace) -> None:
    module.gives_format = "none"
    with pytest.raises(OSError, match=r"camera 0 does not start \(it gives no raw frames"):
        PiCamera(board, module)
    assert module.opened[0].closed


@pytest.mark.parametrize("name", ["SensorTimestamp", "ExposureTime", "AnalogueGain"])
def test_a_frame_that_does_not_say_how_it_was_taken_is_an_error(
    camera: PiCamera, module: SimpleNamespace, name
) -> None:
    module.unsaid = name
    with pytest.raises(OSError, match=name):
        camera.expose("still", 5000, 1.0, 0)
    assert module.opened[0].free == module.opened[0].configurations[0]["buffer_count"]


def test_a_camera_that_does_not_close_is_an_error(camera: PiCamera, module: SimpleNamespace) -> None:
    module.fails = "close"
    with pytest.raises(OSError, match="does not close .*Unable to stop"):
        camera.close()
    module.fails = None


def test_without_picamera2_the_line_to_fix_is_named(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    real = board.model_copy(update={"camera": board.camera.model_copy(update={"driver": "picamera2"})})
    with pytest.raises(DriverMissing, match=r"camera.driver = 'picamera2'.*apt install"):
        open_camera(real, tmp_path, lambda: None)


def test_the_board_names_picamera2_and_gets_it(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", module)
    real = board.model_copy(update={"camera": board.camera.model_copy(update={"driver": "picamera2"})})
    camera = open_camera(real, tmp_path, lambda: None)
    assert camera.name == "picamera2"
    camera.close()


def test_white_balance_is_the_boards_for_each_light(board: Board) -> None:
    white = board.lights["white"].model_copy(update={"colour_gains": (2.0, 1.5)})
    balanced = board.model_copy(update={"lights": {**board.lights, "white": white}})
    counts = np.full((4, 4, 3), (64 + 500, 64 + 1000, 64 + 600), np.uint16)

    class Taken:
        exposure_us, gain, timestamp_ns = white.exposure_us, white.gain, 0

    red, green, blue = (int(value) for value in reflectance(balanced, "white", counts, Taken)[0, 0])
    assert red == green
    assert blue / green == pytest.approx(0.9, rel=0.001)
    assert green == pytest.approx(65_535 * 1000 / white.white_counts, abs=1)
    bright = np.full((1, 1, 3), 4095, np.uint16)
    assert reflectance(balanced, "white", bright, Taken).max() == 65_535
