"""The simulated kiosk closes the loop: what the pins light is what the camera sees."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from hardware.board import BOARDS, Board, load_board
from hardware.capture import Capture, Frame
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.patient import Patient, PortraitError, read_portrait
from hardware.simulated.pins import PinPage
from hardware.srgb import srgb_linear
from tests.support.stand_in_face import landmarks, portrait

WIDTH, HEIGHT = 384, 512


@pytest.fixture(scope="module")
def board() -> Board:
    board = load_board(BOARDS / "simulated.toml")
    still = board.camera.still.model_copy(update={"width": WIDTH, "height": HEIGHT, "fps": 60.0})
    preview = board.camera.preview.model_copy(update={"width": 96, "height": 128})
    camera = board.camera.model_copy(update={"still": still, "preview": preview})
    return board.model_copy(update={"camera": camera})


@pytest.fixture(scope="module")
def frames(board: Board, tmp_path_factory: pytest.TempPathFactory) -> dict[str, npt.NDArray[np.float64]]:
    """Reflectance (float, H×W×3) under each light, and in the dark, of the stand-in's portrait."""
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    return shoot(board, patient, tmp_path_factory.mktemp("run") / "pins.page", ["dark", *board.lights])


def shoot(board, patient, path, lights) -> dict[str, npt.NDArray[np.float64]]:
    page = PinPage(path, list(board.lights))
    camera = SimulatedCamera(board, patient, path)
    taken = {}
    for name in lights:
        profile = board.lights.get(name, board.lights["white"])
        if name != "dark":
            page.write(name, 1.0)
        exposure = camera.expose("still", profile.exposure_us, profile.gain, time.monotonic_ns())
        if name != "dark":
            page.write(name, 0.0)
        counts = exposure.counts()
        assert counts.dtype == np.uint16
        assert counts.max() < 4096
        taken[name] = (counts.astype(np.float64) - board.camera.black_level) / profile.white_counts
    camera.close()
    page.close()
    return taken


def linear(picture) -> npt.NDArray[np.float64]:
    return srgb_linear(picture / 255)


def zone(frame, x, y, radius=12) -> npt.NDArray[np.float64]:
    """Mean colour around a place given in half face widths from the middle of the face."""
    half = 0.26 * WIDTH
    column, row = round(WIDTH / 2 + x * half), round(0.47 * HEIGHT + y * half)
    return frame[row - radius : row + radius, column - radius : column + radius].mean(axis=(0, 1))


def test_without_light_the_frame_is_dark(frames: dict[str, npt.NDArray[np.float64]]) -> None:
    assert np.median(frames["dark"]) < 0.003


def test_white_looks_like_the_portrait(frames: dict[str, npt.NDArray[np.float64]]) -> None:
    seen = cv2.resize(frames["white"], (600, 800), interpolation=cv2.INTER_AREA)
    given = cv2.GaussianBlur(linear(portrait().astype(np.float64)), (0, 0), 3)
    difference = np.abs(cv2.GaussianBlur(seen, (0, 0), 3) - given)
    assert np.median(difference) < 0.02
    assert np.percentile(difference, 90) < 0.08


def test_cross_has_no_shine_and_parallel_has_all_of_it(frames: dict[str, npt.NDArray[np.float64]]) -> None:
    def contrast(frame) -> float:
        """How much the shiny spot on the forehead stands out of the cheeks."""
        cheeks = (zone(frame, 0.5, 0.4) + zone(frame, -0.5, 0.4)) / 2
        return float((zone(frame, 0, -0.8, 6) / cheeks).mean())

    assert contrast(frames["parallel"]) > contrast(frames["white"]) > contrast(frames["cross"])
    assert contrast(frames["cross"]) - 1 < 0.65 * (contrast(frames["white"]) - 1)


def test_polarisers_halve_the_diffuse_light(frames: dict[str, npt.NDArray[np.float64]]) -> None:
    ratio = zone(frames["cross"], 0.5, 0.4) / zone(frames["white"], 0.5, 0.4)
    assert np.allclose(ratio, 0.5, atol=0.05)


def test_a_light_from_the_side_shades_the_other_cheek(frames: dict[str, npt.NDArray[np.float64]]) -> None:
    # dir0 is at the right of the picture, dir1 at its left, dir2 above, dir3 below.
    right, left = (0.75, 0.3), (-0.75, 0.3)
    assert zone(frames["dir0"], *right).mean() > 1.3 * zone(frames["dir0"], *left).mean()
    assert zone(frames["dir1"], *left).mean() > 1.3 * zone(frames["dir1"], *right).mean()
    above, below = (0.0, -0.9), (0.0, 0.9)
    assert zone(frames["dir2"], *above).mean() > zone(frames["dir3"], *above).mean()
    assert zone(frames["dir3"], *below).mean() > zone(frames["dir2"], *below).mean()


def test_under_uv_skin_glows_blue(frames: dict[str, npt.NDArray[np.float64]]) -> None:
    red, green, blue = zone(frames["uv365"], 0.5, 0.4)
    assert blue > green > red > 0
    assert blue > 0.05


def test_two_lights_add_up(board: Board, tmp_path: Path) -> None:
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    page = PinPage(tmp_path / "pins.page", list(board.lights))
    camera = SimulatedCamera(board, patient, tmp_path / "pins.page")
    means = []
    for level in (0.4, 0.8):
        page.write("white", level)
        counts = camera.expose("preview", 10_000, 1.0, time.monotonic_ns()).counts()
        means.append(counts.mean() - board.camera.black_level)
    assert means[1] == pytest.approx(2 * means[0], rel=0.05)
    camera.close()
    page.close()


def test_through_an_open_shroud_the_light_of_the_room_comes_in(board: Board, tmp_path: Path) -> None:
    seen = {}
    for closed in (True, False):
        simulation = board.simulation.model_copy(update={"shroud_closed": (closed, closed)})
        simulated = board.model_copy(update={"simulation": simulation})
        patient = Patient(simulated, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
        seen[closed] = shoot(simulated, patient, tmp_path / "pins.page", ["dark"])["dark"].mean()
    assert seen[True] < 0.003 < 0.02 < seen[False] < 0.05


def test_a_frame_begins_after_it_was_asked_for(board: Board, tmp_path: Path) -> None:
    patient = Patient(board, portrait(), None)
    camera = SimulatedCamera(board, patient, tmp_path / "none")
    after = time.monotonic_ns() + 50_000_000
    exposure = camera.expose("preview", 5_000, 1.0, after)
    assert exposure.timestamp_ns >= after
    assert time.monotonic_ns() >= exposure.timestamp_ns + 5_000_000
    camera.close()


def test_closing_wakes_up_whoever_waits_for_a_frozen_camera(board: Board, tmp_path: Path) -> None:
    simulation = board.simulation.model_copy(update={"camera_freezes_after": 0})
    frozen = board.model_copy(update={"simulation": simulation})
    camera = SimulatedCamera(frozen, Patient(frozen, portrait(), None), tmp_path / "none")
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(OSError, match="closed"):
            camera.expose("preview", 5_000, 1.0, 0)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not ended.wait(0.1)
    camera.close()
    assert ended.wait(60)


def test_a_picture_without_a_face_stands_there_flat_and_whole(board: Board, tmp_path: Path) -> None:
    landscape = np.zeros((200, 600, 3), np.uint8)
    landscape[:, :300] = (200, 30, 30)
    landscape[:, 300:] = (30, 30, 200)
    seen = shoot(board, Patient(board, landscape, None), tmp_path / "pins.page", ["white", "dir0"])
    for frame in seen.values():
        assert frame[HEIGHT // 2, 20, 0] > frame[HEIGHT // 2, 20, 2]
        assert frame[HEIGHT // 2, -20, 2] > frame[HEIGHT // 2, -20, 0]


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (3000, 2000), (600, 4000)])
def test_any_size_of_portrait_will_do(board: Board, size) -> None:
    picture = np.full((*size, 3), 120, np.uint8)
    face = landmarks((size[1] / 2, size[0] / 2), 0.8 * min(size))
    for found in (None, face):
        patient = Patient(board, picture, found)
        assert (patient.still.height, patient.still.width) == (HEIGHT, WIDTH)


def test_a_portrait_is_read_upright_and_a_huge_one_smaller(tmp_path: Path) -> None:
    picture = np.zeros((60, 40, 3), np.uint8)
    picture[:20] = 255
    ok, data = cv2.imencode(".jpg", picture)
    # An EXIF block that says: turn by 90° clockwise to see it upright.
    exif = bytes.fromhex("ffe10022457869660000" + "4d4d002a00000008" + "000101120003000000010006000000000000")
    path = tmp_path / "turned.jpg"
    path.write_bytes(data.tobytes()[:2] + exif + data.tobytes()[2:])
    assert ok
    upright = read_portrait(path)
    assert upright.shape == (40, 60, 3)
    assert upright[:, 50:].mean() > 200 > 50 > upright[:, :30].mean()
    huge = tmp_path / "huge.png"
    cv2.imwrite(str(huge), np.zeros((4000, 5000, 3), np.uint8))
    rows, columns, _ = read_portrait(huge).shape
    assert rows * columns <= 8_000_000


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_what_is_no_portrait_is_named(tmp_path: Path, content) -> None:
    path = tmp_path / "portrait.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PortraitError, match=r"portrait\.jpg"):
        read_portrait(path)


def test_a_capture_in_blocks_is_the_capture() -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(2, 4, 3)
    capture = Capture("b", (Frame("white", pixels, 1, 1.0, 2),), missing={"uv365": "not_allowed"})
    again = Capture.from_bytes(b"".join(capture.blocks()))
    assert capture.to_bytes() == b"".join(capture.blocks())
    assert np.array_equal(again.frames[0].pixels, pixels)
    assert again.missing == {"uv365": "not_allowed"}


def test_a_portrait_too_large_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "portrait.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PortraitError, match=r"portrait\.png: This picture is too big") as refused:
        read_portrait(path)
    assert refused.value.exit_status == 2


def test_a_portrait_of_16_bits_is_read_as_one_of_8(tmp_path: Path) -> None:
    path = tmp_path / "portrait.tif"
    cv2.imwrite(str(path), np.full((20, 30, 3), 0x80FF, np.uint16))
    assert np.unique(read_portrait(path)).tolist() == [0x80] and read_portrait(path).dtype == np.uint8
