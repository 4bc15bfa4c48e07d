"""The close-up camera behind the real capture daemon: consent, no lamps, deadlines, its own faults only."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from firmware.cameras.close_up import UsbCloseUp, judge
from firmware.capture.client import CaptureClient, CaptureFault
from firmware.line.link import Link
from hardware.board import load_board
from hardware.profile import CloseUpProfile
from hardware.simulated.close_up import draw_skin
from tests.support.kiosk_daemons import (
    EVERY_LIGHT,
    ROOT,
    Kiosk,
    consent,
    intervals,
    running_kiosk,
    small_board,
    until,
    uv_allowance,
)
from tests.support.waiting import unless_held_up

SIMULATED = load_board(ROOT / "hardware/boards/simulated.toml").close_up
assert SIMULATED is not None


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kiosk]:
    folder = tmp_path_factory.mktemp("close")
    with running_kiosk(small_board(folder), folder / "k") as kiosk:
        yield kiosk


@pytest.fixture
def client(kiosk: Kiosk) -> CaptureClient:
    kiosk.revive()
    return CaptureClient(kiosk.capture_socket, timeout=60)


def test_a_close_up_is_one_frame_with_its_scale(client: CaptureClient) -> None:
    session = uuid.uuid4().hex
    seen = client.close_up_preview(session, consent())
    assert seen.guidance == "hold_still"
    capture = client.close_up(session, consent())
    [frame] = capture.frames
    assert (frame.light, frame.colour, frame.pixels.dtype) == ("closeup", "srgb", np.uint8)
    assert np.array_equal(frame.pixels, seen.picture)
    assert capture.spots["closeup"].mm_per_px == SIMULATED.mm_per_px


def test_no_close_up_is_seen_or_taken_without_consent(kiosk: Kiosk) -> None:
    for what in ("close_up_preview", "close_up"):
        with Link.connect(kiosk.capture_socket, 60) as link:
            link.send({"v": 1, "do": what, "session": "s"})
            answer, memory = link.receive(60)
        assert (answer["ok"], answer["code"], memory) == (False, "no_consent", [])


def test_no_lamp_is_lit_at_a_close_up_and_the_preview_light_goes_out(
    kiosk: Kiosk, client: CaptureClient
) -> None:
    session = uuid.uuid4().hex
    client.preview(session, consent())
    assert {item.light for item in kiosk.history() if item.level > 0} == {"white"}
    client.close_up(session, consent())
    until(lambda: not kiosk.lit(), "every light off")
    assert intervals(kiosk.history(), "uv365") == []


def test_a_close_up_waits_its_turn_while_the_face_is_under_uv(kiosk: Kiosk, client: CaptureClient) -> None:
    """Asked for with the UV lamp lit: it is refused as busy, or comes when that is off again, by itself."""

    def comes_by_itself() -> None:
        session, begun_ns = uuid.uuid4().hex, time.monotonic_ns()
        taken_ns, refused = list[int](), list[str]()
        met, over = threading.Event(), threading.Event()

        def ask() -> None:
            while kiosk.lit() != {"uv365"}:
                if over.wait(0.005):
                    return
            met.set()
            try:
                taken_ns.append(client.close_up(session, consent()).frames[0].timestamp_ns)
            except CaptureFault as fault:
                refused.append(fault.code)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            capture = client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session))
        finally:
            over.set()
            asking.join(60)
        assert met.is_set(), "the UV pulse was over before a look at it"
        assert len(taken_ns) + len(refused) == 1 and refused in ([], ["busy"])
        assert capture.missing == {}
        history = [item for item in kiosk.history() if item.at_ns >= begun_ns]
        uv = [item.at_ns for item in history if item.light == "uv365"]
        assert len(uv) == 2
        assert not [at for at in taken_ns if uv[0] <= at <= uv[1]]

    unless_held_up(comes_by_itself)


@pytest.mark.parametrize(
    ("fault", "code", "at_most_s"),
    [
        ("hangs", "close_up_lost", SIMULATED.deadline_s + 2),
        ("disconnects", "close_up_lost", SIMULATED.deadline_s),
        ("dark", "too_dark", SIMULATED.deadline_s),
        ("blurred", "too_blurred", SIMULATED.deadline_s),
    ],
)
def test_a_close_up_camera_with_a_fault_costs_the_close_up_and_not_the_scan(
    fault: str, code: str, at_most_s: float, tmp_path: Path
) -> None:
    with running_kiosk(
        small_board(tmp_path, f'[simulation]\nclose_up_fault = "{fault}"\n'), tmp_path / "k"
    ) as kiosk:
        client, session = CaptureClient(kiosk.capture_socket, timeout=60), uuid.uuid4().hex

        def is_refused() -> float:
            began = time.monotonic()
            with pytest.raises(CaptureFault) as refused:
                client.close_up(session, consent())
            assert refused.value.code == code
            return time.monotonic() - began

        # Each time; how long the quickest took is not a matter of what else this computer does.
        assert min(is_refused() for _ in range(3)) < at_most_s
        assert client.status()["last_fault"] == code
        assert client.capture(session, consent(), EVERY_LIGHT, None).frame("white") is not None
        assert kiosk.captured.process.poll() is None


def test_a_board_without_one_says_so(tmp_path: Path) -> None:
    board = small_board(tmp_path)
    lines = board.read_text().split("[close_up]")
    rest = lines[1].split("\n[", 1)[1]
    board.write_text(f"{lines[0]}[{rest}")
    assert load_board(board).close_up is None
    with running_kiosk(board, tmp_path / "k") as kiosk:
        with pytest.raises(CaptureFault) as refused:
            CaptureClient(kiosk.capture_socket, timeout=60).close_up("s", consent())
        assert refused.value.code == "no_close_up"


@pytest.mark.parametrize("seed", range(1, 6))
def test_drawn_skin_is_sharp_and_out_of_focus_it_is_not(seed: int) -> None:
    picture = draw_skin(600, 450, seed).picture
    assert judge(picture, SIMULATED) is None
    blurred = np.asarray(cv2.GaussianBlur(picture, (0, 0), 12), np.uint8)
    assert judge(blurred, SIMULATED) == "too_blurred"
    assert judge(picture // 12, SIMULATED) == "too_dark"


class FakeCapture:
    """A cv2.VideoCapture whose first frames have waited in a queue since before the question."""

    def __init__(self, waited: int = 3, unplugged_at: int | None = None) -> None:
        self.grabbed, self.waited, self.unplugged_at = 0, waited, unplugged_at
        self.set_to: dict[int, float] = {}
        self.opened_ms = time.monotonic() * 1000
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> None:
        self.set_to[key] = value

    def get(self, key: int) -> float:
        assert key == cv2.CAP_PROP_POS_MSEC
        return self.opened_ms if self.grabbed <= self.waited else time.monotonic() * 1000

    def grab(self) -> bool:
        self.grabbed += 1
        return self.unplugged_at is None or self.grabbed < self.unplugged_at

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((600, 800, 3), (self.grabbed, 0, 200), np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_usb_dermatoscope_gives_a_picture_that_is_not_from_before() -> None:
    device = FakeCapture()
    camera = UsbCloseUp(CloseUpProfile(driver="v4l2", device="/dev/video2"), lambda _: device)
    picture = camera.picture()
    assert picture[0, 0].tolist() == [200, 0, 4]  # RGB of the first frame after the three that waited
    assert (device.set_to[cv2.CAP_PROP_FRAME_WIDTH], device.set_to[cv2.CAP_PROP_FRAME_HEIGHT]) == (800, 600)
    camera.close()
    assert device.released


def test_a_usb_dermatoscope_that_is_pulled_out_says_so() -> None:
    camera = UsbCloseUp(CloseUpProfile(driver="v4l2", device=2), lambda _: FakeCapture(unplugged_at=2))
    with pytest.raises(OSError, match="unplugged"):
        camera.picture()


def test_a_usb_dermatoscope_is_not_let_go_under_the_feet_of_a_call_that_hangs_in_it() -> None:
    device, hangs, goes_on = FakeCapture(waited=0), threading.Event(), threading.Event()

    def grab() -> bool:
        hangs.set()
        return goes_on.wait(60)

    device.grab = grab  # type: ignore[method-assign]
    camera = UsbCloseUp(CloseUpProfile(driver="v4l2", device=2, deadline_s=0.1), lambda _: device)
    call = threading.Thread(target=camera.picture)
    call.start()
    assert hangs.wait(60)
    camera.close()
    assert not device.released
    device.grabbed = 1
    goes_on.set()
    call.join(60)
    camera.close()
    assert device.released
