"""The driver of a USB camera, against a stand-in with the manners of V4L2."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from firmware.cameras.camera import open_camera
from firmware.cameras.v4l2 import UsbCamera
from hardware.board import BOARDS, Board, load_board


class FakeCapture:
    """A cv2.VideoCapture of a USB camera at 50 frames a second, whose queue holds one frame."""

    def __init__(self, device, fault=None, refuses=()) -> None:
        self.device, self.fault, self.settings, self.released = device, fault, {}, False
        self.refuses, self.hanging, self.let_go = refuses, threading.Event(), threading.Event()
        self.value, self.waited_s, self.size = (60, 120, 180), 0.0, (48, 64)
        self._next = time.monotonic()

    def isOpened(self) -> bool:
        return self.fault != "absent"

    def set(self, setting, value) -> bool:
        if setting in self.refuses:
            return False
        self.settings[setting] = value
        return True

    def get(self, setting) -> float:
        assert setting == cv2.CAP_PROP_POS_MSEC
        return (time.monotonic() - self.waited_s) * 1e3

    def grab(self) -> bool:
        if self.fault == "unplugged":
            return False
        if self.fault == "hangs":
            self.hanging.set()
            self.let_go.wait(60.0)
            self.hanging.clear()
            return False
        self._next = max(self._next + 0.02, time.monotonic() - 0.02)
        time.sleep(max(0.0, self._next - time.monotonic()))
        return True

    def retrieve(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        if self.fault == "broken":
            return False, None
        return True, np.full((*self.size, 3), self.value, np.uint8)

    def release(self) -> None:
        assert not self.hanging.is_set(), "released under the feet of a call"
        self.released = True


@pytest.fixture
def usb(board: Board) -> tuple[UsbCamera, FakeCapture]:
    return open_usb(board)


def open_usb(board) -> tuple[UsbCamera, FakeCapture]:
    """The camera, and what stands in for its device."""
    board = board.model_copy(update={"camera": board.camera.model_copy(update={"device": "/dev/video2"})})
    captures = []

    def open_video(device) -> FakeCapture:
        captures.append(FakeCapture(device))
        return captures[-1]

    camera = UsbCamera(board, open_video)
    return camera, captures[0]


def test_a_usb_picture_becomes_linear_light(usb: tuple[UsbCamera, FakeCapture]) -> None:
    camera, capture = usb
    counts = camera.expose("still", 5000, 1.0, 0).counts()
    assert capture.device == "/dev/video2"
    assert counts.shape == (64, 48, 3)
    # BGR 60, 120, 180 in sRGB, of 4,095.
    assert counts[10, 10].tolist() == pytest.approx([1869, 771, 185], abs=3)


@pytest.mark.parametrize("size", [(24, 32), (48, 63), (47, 64)])
def test_a_usb_camera_that_is_too_small_is_refused_as_soon_as_it_is_opened(board: Board, size) -> None:
    capture = FakeCapture(0)
    capture.size = size
    with pytest.raises(OSError, match=rf"gives {size[0]} × {size[1]} pixels where camera\.still asks for"):
        UsbCamera(board, lambda device: capture)
    assert capture.released


@pytest.mark.parametrize("mode", ["still", "preview"])
@pytest.mark.parametrize("size", [(24, 32), (48, 63), (47, 64)])
def test_a_usb_picture_that_is_smaller_than_asked_for_is_refused(
    usb: tuple[UsbCamera, FakeCapture], mode, size
) -> None:
    camera, capture = usb
    capture.size = size
    said = rf"gives {size[0]} × {size[1]} pixels where camera\.still asks for 48 × 64"
    with pytest.raises(OSError, match=said):
        camera.expose(mode, 5000, 1.0, 0)


def test_a_usb_picture_that_is_larger_than_asked_for_is_cut_and_scaled_down(
    usb: tuple[UsbCamera, FakeCapture],
) -> None:
    camera, capture = usb
    capture.size = (96, 160)
    assert camera.expose("still", 5000, 1.0, 0).counts().shape == (64, 48, 3)


def test_a_usb_camera_is_locked_before_its_first_picture(usb: tuple[UsbCamera, FakeCapture]) -> None:
    camera, capture = usb
    camera.expose("still", 5000, 2.0, 0)
    assert capture.settings[cv2.CAP_PROP_AUTO_EXPOSURE] == 1
    assert capture.settings[cv2.CAP_PROP_AUTO_WB] == 0
    assert capture.settings[cv2.CAP_PROP_EXPOSURE] == 50
    assert capture.settings[cv2.CAP_PROP_GAIN] == 2.0


def test_a_usb_frame_counts_only_when_it_must_have_begun_after_the_light(
    usb: tuple[UsbCamera, FakeCapture],
) -> None:
    camera, _ = usb
    camera.prepare("still", 5000, 1.0)
    after = time.monotonic_ns()
    exposure = camera.expose("still", 5000, 1.0, after)
    assert exposure.timestamp_ns >= after
    assert time.monotonic_ns() - after > 2 * 20e6


def test_a_usb_frame_had_ended_when_it_came(usb: tuple[UsbCamera, FakeCapture]) -> None:
    camera, capture = usb
    capture.waited_s = 0.03
    exposure = camera.expose("still", 5000, 1.0, 0)
    assert exposure.end_ns - exposure.timestamp_ns == 2 * 20_000_000
    assert exposure.end_ns <= time.monotonic_ns() - 30_000_000


def test_a_usb_frame_that_waited_in_a_queue_counts_from_when_it_came(
    usb: tuple[UsbCamera, FakeCapture],
) -> None:
    camera, capture = usb
    capture.waited_s = 0.1
    after = time.monotonic_ns()
    camera.expose("still", 5000, 1.0, after)
    assert time.monotonic_ns() - after > 0.1e9


@pytest.mark.parametrize(("fault", "words"), [("unplugged", "unplugged"), ("broken", "not be read")])
def test_a_usb_camera_that_fails_is_an_error(usb: tuple[UsbCamera, FakeCapture], fault, words) -> None:
    camera, capture = usb
    capture.fault = fault
    with pytest.raises(OSError, match=words):
        camera.expose("still", 5000, 1.0, 0)


def test_a_usb_camera_that_is_not_there_is_named_and_let_go(board: Board) -> None:
    capture = FakeCapture(0, "absent")
    with pytest.raises(OSError, match="camera 0 is not there"):
        UsbCamera(board, lambda device: capture)
    assert capture.released


@pytest.mark.parametrize(
    ("setting", "named"),
    [(cv2.CAP_PROP_AUTO_EXPOSURE, "exposure"), (cv2.CAP_PROP_AUTO_WB, "white balance")],
)
def test_a_usb_camera_that_cannot_be_locked_is_refused_where_there_are_lamps(
    board: Board, setting, named
) -> None:
    capture = FakeCapture(0, refuses=[setting])
    with pytest.raises(OSError, match=f"keeps its {named} automatic"):
        UsbCamera(board, lambda device: capture)
    assert capture.released
    webcam = FakeCapture(0, refuses=[setting])
    webcam.size = (720, 1280)
    UsbCamera(load_board(BOARDS / "laptop.toml"), lambda device: webcam).close()


def test_a_usb_camera_that_does_not_take_an_exposure_time_is_an_error(
    usb: tuple[UsbCamera, FakeCapture],
) -> None:
    camera, capture = usb
    capture.refuses = [cv2.CAP_PROP_EXPOSURE]
    with pytest.raises(OSError, match="does not take an exposure time of 5 ms"):
        camera.prepare("still", 5000, 1.0)


def test_a_usb_camera_is_not_let_go_of_under_the_feet_of_a_call_that_hangs(impatient: Board) -> None:
    camera, capture = open_usb(impatient)
    capture.fault = "hangs"
    failed = []

    def expose() -> None:
        with pytest.raises(OSError, match="sends no frames") as caught:
            camera.expose("still", 5000, 1.0, 0)
        failed.append(caught)

    call = threading.Thread(target=expose)
    call.start()
    assert capture.hanging.wait(60.0)
    with pytest.raises(TimeoutError, match="left behind"):
        camera.close()
    assert not capture.released
    capture.let_go.set()
    call.join(60.0)
    camera.close()
    assert capture.released and failed


def test_the_real_opencv_says_when_there_is_no_such_camera(board: Board, tmp_path: Path) -> None:
    changes = {"driver": "v4l2", "device": "/dev/video63"}
    real = board.model_copy(update={"camera": board.camera.model_copy(update=changes)})
    with pytest.raises(OSError, match="/dev/video63"):
        open_camera(real, tmp_path, lambda: None)
