"""A camera that fails in any step of the sequence: all lights off, a named fault, a kiosk that goes on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest

from firmware.cameras.calibration import Calibration
from firmware.cameras.camera import CameraFrozen, Exposure
from firmware.cameras.kept_camera import CameraLost
from firmware.capture.client import CaptureClient, CaptureFault
from firmware.capture.daemon import CaptureDaemon
from firmware.capture.frame_checks import FrameChecks, sharpness
from firmware.capture.sequence import ORDER, Sequence, SequenceFailed
from hardware.board import Board
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.patient import Patient
from hardware.simulated.pins import PinReader
from tests.support.direct_lights import DirectLights
from tests.support.kiosk_daemons import EVERY_LIGHT, Daemon, consent, small_board, until, uv_allowance
from tests.support.sequences import STEPS, impatient, lit_lamps, run
from tests.support.stand_in_face import StandInFace, find_stand_in
from tests.support.waiting import unless_held_up

FAULTS = ["raises", "hangs", "disconnects"]


def exposure_of(step) -> int:
    """UV has an exposure before it: the look at the eyes."""
    return STEPS.index(step) + (1 if step == "uv365" else 0)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_a_camera_fault_in_any_step_leaves_all_lights_off(
    stage: Callable[..., Sequence], tmp_path: Path, step, fault
) -> None:
    begun = []

    def begins(light, done, of) -> None:
        begun.append(light)
        if light == step:
            sequence.board = impatient(sequence.board)

    sequence = stage(camera_fault=fault, camera_fault_at=exposure_of(step))
    with pytest.raises(CameraFrozen if fault == "hangs" else OSError) as caught:
        sequence.run(EVERY_LIGHT, True, begins)
    assert begun[-1] == step
    assert lit_lamps(tmp_path) == set()
    assert str(caught.value)
    assert {"raises": "error", "hangs": "0.5 s", "disconnects": "not there"}[fault] in str(caught.value)


@pytest.mark.parametrize("step", STEPS)
def test_a_watcher_that_gives_up_in_any_step_leaves_all_lights_off(
    stage: Callable[..., Sequence], tmp_path: Path, step
) -> None:
    class Enough(Exception):
        pass

    sequence = stage()
    begun = []

    def give_up() -> None:
        if begun and begun[-1] == step:
            raise Enough

    sequence.watch = give_up
    with pytest.raises(Enough):
        sequence.run(EVERY_LIGHT, True, lambda light, done, of: begun.append(light))
    assert lit_lamps(tmp_path) == set()


def test_a_whole_sequence_has_every_frame(stage: Callable[..., Sequence]) -> None:
    capture, steps = run(stage())
    assert [frame.light for frame in capture.frames] == STEPS
    assert steps == [*STEPS, "done"]
    assert capture.missing == {}


def test_the_sequence_goes_on_past_dropped_frames(stage: Callable[..., Sequence]) -> None:
    capture, _ = run(stage(camera_drops_every=2))
    assert capture.missing == {}


@pytest.mark.parametrize(
    ("lights", "frames"),
    [
        ((), ["dark", "white"]),
        (("cross", "white"), ["dark", "white", "cross"]),
        (("dir2", "narrow590"), ["dark", "white", "dir2"]),
        (("uv365",), ["dark", "white", "uv365"]),
    ],
)
def test_a_sequence_lights_what_it_is_asked_for_beside_white_and_no_more(
    stage: Callable[..., Sequence], tmp_path: Path, lights, frames
) -> None:
    capture, steps = run(stage(), lights=lights)
    assert [frame.light for frame in capture.frames] == frames
    assert (steps, capture.missing) == ([*frames, "done"], {})
    reader = PinReader(tmp_path / "pins.page")
    lit = {item.light for item in reader.history() if item.level > 0}
    reader.close()
    assert lit == set(frames) - {"dark"}


# Of few lights one that is lost says as much as two of many.
LIGHTS = [EVERY_LIGHT, ("white", "cross")]


@pytest.mark.parametrize("lights", LIGHTS)
def test_a_patient_who_moves_is_told_to_hold_still(stage: Callable[..., Sequence], lights) -> None:
    def seen_moving(picture, engine) -> StandInFace:
        seen_moving.looks += 1
        face = find_stand_in(picture, engine)
        face.landmarks[:, 0] += 10.0 * (seen_moving.looks > 1) * picture.shape[1] / 192
        return face

    seen_moving.looks = 0
    with pytest.raises(SequenceFailed) as caught:
        run(stage(seen_moving, patient_moves_at=2), lights=lights)
    assert caught.value.code == "moved"


def test_a_patient_who_twitches_once_costs_one_second_try(stage: Callable[..., Sequence]) -> None:
    looks = []

    def twitching(picture, engine) -> StandInFace:
        looks.append(1)
        face = find_stand_in(picture, engine)
        face.landmarks[:, 0] += 40.0 * (len(looks) == 2)
        return face

    capture, _ = run(stage(twitching))
    assert capture.missing == {}
    assert len(capture.frames) == len(STEPS)


@pytest.mark.parametrize("lights", LIGHTS)
def test_a_face_that_is_gone_ends_the_sequence(
    stage: Callable[..., Sequence], tmp_path: Path, lights
) -> None:
    from tests.support.stand_in_face import NoFace

    def leaving(picture, engine) -> StandInFace:
        if leaving.seen:
            raise NoFace
        leaving.seen = True
        return find_stand_in(picture, engine)

    leaving.seen = False
    with pytest.raises(SequenceFailed) as caught:
        run(stage(leaving, patient_leaves_at=2), lights=lights)
    assert caught.value.code == "moved"
    assert lit_lamps(tmp_path) == set()


def test_a_blurred_white_frame_asks_to_hold_still(stage: Callable[..., Sequence]) -> None:
    sequence = stage()
    camera = sequence.board.camera.model_copy(update={"sharpness_at_least": 100.0})
    sequence.board = sequence.board.model_copy(update={"camera": camera})
    sequence.__post_init__()
    with pytest.raises(SequenceFailed) as caught:
        run(sequence)
    assert caught.value.code == "moved"
    assert "blurred" in str(caught.value)


@pytest.mark.parametrize("along", [0, 1])
def test_movement_by_4_mm_in_any_direction_takes_half_the_sharpness(along) -> None:
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.standard_normal((1000, 800)).astype(np.float32), (0, 0), 3)
    face = 20_000 * (1 + 1.5 * texture)
    # 800 px are a face of 140 mm.
    swayed = cv2.blur(face, (23, 1) if along == 0 else (1, 23))
    sharp, blurred = (
        sharpness(np.repeat(np.clip(picture, 0, 65_535)[:, :, None], 3, 2).astype(np.uint16), None)
        for picture in (face, swayed)
    )
    assert blurred < 0.5 * sharp


def test_a_lamp_that_does_not_go_out_is_a_light_fault(stage: Callable[..., Sequence], tmp_path: Path) -> None:
    sequence = stage(stuck_lamps=("white",))
    sequence.lights.on("white")
    sequence.lights.off()
    with pytest.raises(SequenceFailed) as caught:
        run(sequence)
    assert caught.value.code == "light_fault"
    assert lit_lamps(tmp_path) == set()


def calibrated_in(stray, board) -> Calibration:
    """A calibration made in `stray` light, a reflectance of all channels or of each."""
    camera, white = board.camera, board.lights["white"].white_counts
    return Calibration(
        board=board.name,
        made_at=datetime.now(timezone.utc),
        still=(camera.still.width, camera.still.height),
        black=np.full((4, 3, 3), camera.black_level + white * np.array(stray), np.float32),
        gains={},
        matrix=np.eye(3),
    )


@pytest.mark.parametrize(("then", "now"), [(0.0, 0.03), (0.05, 0.0), ((0.05, 0.02, 0.0), 0.0), (0.0, 0.0)])
def test_stray_light_is_seen_in_the_dark_whether_it_falls_in_now_or_fell_into_the_calibration(
    stage: Callable[..., Sequence], monkeypatch: pytest.MonkeyPatch, then, now
) -> None:
    sequence = stage()
    sequence.calibration = calibrated_in(then, sequence.board)
    if now:
        monkeypatch.setattr("hardware.simulated.camera.AMBIENT", now)
    capture, _ = run(sequence, uv=False)
    assert capture.missing.get("dark") == (None if then == now else "stray_light")


@pytest.mark.parametrize(
    ("lamp", "found"), [(0.055, "lamp_stuck"), (0.04, "stray_light"), (0.0, "stray_light")]
)
def test_no_stray_light_of_a_calibration_hides_a_lamp_that_does_not_go_out(
    stage: Callable[..., Sequence], lamp, found
) -> None:
    board = stage().board
    white, stray = board.lights["white"], np.array([0.06, 0.0, 0.0]) / board.lights["white"].colour_gains[0]
    seen = board.camera.black_level + white.white_counts * np.array([0.0, lamp, 0.0])
    counts = np.broadcast_to(np.round(seen).astype(np.uint16), (64, 48, 3))
    assert FrameChecks(board, None).dark(counts, white, calibrated_in(stray, board)) == found


def test_a_dead_lamp_is_missing_and_uses_no_more_than_its_share_of_second_tries(
    stage: Callable[..., Sequence],
) -> None:
    capture, _ = run(stage(dead_lamps=("parallel", "cross", "dir0", "dir1", "dir2")))
    assert set(capture.missing.values()) == {"too_dark"}
    assert list(capture.missing) == ["parallel", "cross", "dir0", "dir1", "dir2"]


def test_a_frame_too_bright_for_its_light_is_missing(stage: Callable[..., Sequence]) -> None:
    sequence = stage()
    lights = dict(sequence.board.lights)
    lights["cross"] = lights["cross"].model_copy(update={"expect": (0.01, 0.05)})
    sequence.board = sequence.board.model_copy(update={"lights": lights})
    sequence.__post_init__()
    capture, _ = run(sequence)
    assert capture.missing == {"cross": "too_bright"}


def test_in_a_lit_room_no_dark_frame_is_taken_and_the_capture_says_why(
    stage: Callable[..., Sequence],
) -> None:
    sequence = stage()
    room = {"pin_factory": "none", "lights": {"white": sequence.board.lights["white"]}, "interlocks": None}
    sequence.board = sequence.board.model_copy(update=room)
    capture, steps = run(sequence, uv=False)
    assert steps == ["dark", "white", "done"]
    assert [frame.light for frame in capture.frames] == ["white"]
    assert capture.missing == {"dark": "room_lit"}


@pytest.mark.parametrize(("expected", "said"), [((0.96, 0.97), "is dark"), ((0.001, 0.002), "too bright")])
def test_no_lamp_is_blamed_where_there_is_none(stage: Callable[..., Sequence], expected, said) -> None:
    sequence = stage()
    white = sequence.board.lights["white"].model_copy(update={"expect": expected})
    room = {"pin_factory": "none", "lights": {"white": white}, "interlocks": None}
    sequence.board = sequence.board.model_copy(update=room)
    sequence.__post_init__()
    with pytest.raises(SequenceFailed, match=said) as failed:
        run(sequence, uv=False)
    assert "lamp" not in str(failed.value) and "try again" in str(failed.value)


def test_every_light_of_the_order_is_known_to_boards() -> None:
    assert ORDER[0] == "dark"
    assert ORDER[-1] == "uv365"


# Two of the Pi's cameras at full resolution: frame rate, latency of the sensor, a frame time to read out.
@pytest.mark.parametrize(("sensor", "fps"), [("IMX708", 14.35), ("IMX477", 10.0)])
def test_the_full_set_takes_less_than_8_s_at_the_cameras_real_rate(
    plain: Board, patient: Patient, tmp_path: Path, sensor, fps
) -> None:
    simulation = plain.simulation.model_copy(
        update={"camera_control_frames": 3, "camera_readout_ms": 1000 / fps}
    )
    still = plain.camera.still.model_copy(update={"fps": fps})
    camera = plain.camera.model_copy(update={"still": still, "settle_ms": 80})
    board = plain.model_copy(update={"simulation": simulation, "camera": camera})

    def takes_less() -> None:
        lights = DirectLights(board, tmp_path)
        driver = SimulatedCamera(board, patient, tmp_path / "pins.page")
        watching = WatchedCamera(driver)
        capture, _ = run(Sequence(board, watching, lights, lambda: None, find_stand_in))
        driver.close()
        lights.close()
        assert capture.missing == {}
        # The waits between flashes that were skipped here are time in a kiosk.
        assert watching.seconds + lights.skipped < 8.0, sensor

    unless_held_up(takes_less)


class WatchedCamera:
    """A camera that adds up how long it was waited for, light on or about to be."""

    def __init__(self, camera) -> None:
        self._camera, self.seconds = camera, 0.0
        self.tell, self.close = camera.tell, camera.close

    def prepare(self, *settings) -> None:
        self._timed(lambda: self._camera.prepare(*settings))

    def expose(self, *settings) -> Exposure:
        return self._timed(lambda: self._camera.expose(*settings))

    def _timed(self, call) -> Any:
        started = time.monotonic()
        try:
            return call()
        finally:
            self.seconds += time.monotonic() - started


@pytest.fixture(scope="module")
def lightd(plain: Board, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("k")
    daemon = Daemon("lightd", small_board(folder), folder / "k")
    yield folder / "k"
    daemon.end()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["white", "uv365"])
def test_the_daemon_names_the_fault_and_a_patient_is_not_stuck(
    plain: Board, patient: Patient, lightd: Path, fault, step
) -> None:
    simulation = {"camera_fault": fault, "camera_fault_at": exposure_of(step)}
    board = plain.model_copy(update={"simulation": plain.simulation.model_copy(update=simulation)})
    if fault == "hangs":
        board = impatient(board, 1.0)
    session = f"{fault} {step}"
    daemon = CaptureDaemon(board, lightd, find_stand_in, lambda: patient)
    thread = threading.Thread(target=daemon.serve)
    thread.start()
    try:
        client = CaptureClient(lightd / "run" / "capture.sock", timeout=60)
        with pytest.raises(CaptureFault) as caught:
            client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
        assert caught.value.code == "camera_frozen"
        assert lit_lamps(lightd / "run") == set()
        assert client.preview(session, consent()).guidance == "hold_still"
        client.end(session)
    finally:
        daemon.stop()
        thread.join(60)


@pytest.mark.parametrize("trouble", ["hangs", "raises"])
def test_a_camera_that_does_not_open_makes_the_daemon_ask_for_a_restart(
    plain: Board, patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble
) -> None:
    stuck = threading.Event()

    def open_badly(*_) -> NoReturn:
        stuck.wait()
        raise OSError("camera 0 is not there.")

    if trouble == "raises":
        stuck.set()
    monkeypatch.setattr("firmware.cameras.kept_camera._FIRST_OPEN_S", 0.2)
    monkeypatch.setattr("firmware.capture.daemon.open_camera", open_badly)
    with pytest.raises(CameraLost, match="cannot be opened") as lost:
        CaptureDaemon(plain, tmp_path, find_stand_in, lambda: patient)
    stuck.set()
    assert lost.value.exit_status == os.EX_TEMPFAIL


def test_a_camera_that_freezes_again_makes_the_daemon_ask_for_a_restart(
    plain: Board, patient: Patient, lightd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware.capture.daemon.on_stop", lambda _: None)
    board = impatient(plain).model_copy(
        update={"simulation": plain.simulation.model_copy(update={"camera_freezes_after": 0})}
    )
    daemon = CaptureDaemon(board, lightd, find_stand_in, lambda: patient)
    ended = []

    def serve() -> None:
        try:
            daemon.run()
        except CameraLost as lost:
            ended.append(lost)

    thread = threading.Thread(target=serve)
    thread.start()
    client = CaptureClient(lightd / "run" / "capture.sock", timeout=60)
    for _ in range(2):
        with pytest.raises(CaptureFault) as caught:
            client.preview("s1", consent())
        assert caught.value.code == "camera_frozen"
    thread.join(60)
    assert [lost.exit_status for lost in ended] == [os.EX_TEMPFAIL]
    until(lambda: not lit_lamps(lightd / "run"), "every lamp off")
