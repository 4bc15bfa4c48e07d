"""The real capture daemon with the real light daemon: pictures, faults, and lights off on every way out."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from firmware.capture.client import GUIDANCE, CaptureClient, CaptureFault
from firmware.lights.client import Lights
from firmware.line.link import Link, LinkError
from firmware.line.stamps import ConsentStamp
from hardware.capture import Capture
from kiosk_app.demo.supervisor import START_ME_AGAIN
from tests.support.kiosk_daemons import (
    EVERY_LIGHT,
    ROOT,
    Kiosk,
    consent,
    dark_after,
    intervals,
    running_kiosk,
    small_board,
    until,
    uv_allowance,
)
from tests.support.waiting import unless_held_up

LIGHTS = ["dark", "white", "parallel", "cross", "dir0", "dir1", "dir2", "dir3", "uv365"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kiosk]:
    folder = tmp_path_factory.mktemp("kiosk")
    with running_kiosk(small_board(folder), folder / "k") as kiosk:
        yield kiosk


@pytest.fixture
def kiosk(shared: Kiosk) -> Kiosk:
    """One kiosk for all tests of this module; what a test killed is started again for the next."""
    shared.revive()
    return shared


@pytest.fixture
def session() -> str:
    """A scan of its own, for a patient of the same name: doses are counted by both."""
    return uuid.uuid4().hex


@pytest.fixture
def client(kiosk: Kiosk) -> CaptureClient:
    return CaptureClient(kiosk.capture_socket, timeout=60)


def test_a_capture_has_a_frame_under_every_light_then_darkness(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    steps = []
    capture = client.capture(
        session, consent(), EVERY_LIGHT, uv_allowance(session), lambda *step: steps.append(step)
    )
    assert [frame.light for frame in capture.frames] == LIGHTS
    assert [step[0] for step in steps] == [*LIGHTS, "done"]
    assert capture.missing == {}
    assert capture.simulated
    assert capture.calibration == "nominal-simulated"
    assert all(frame.pixels.dtype == np.uint16 for frame in capture.frames)
    assert kiosk.lit() == set()


def test_each_frame_began_while_its_own_light_was_on(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    capture = client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
    since: dict[str, list[tuple[int, int]]] = {}
    began: dict[str, int] = {}
    for item in kiosk.history():
        if item.level > 0:
            began[item.light] = item.at_ns
        else:
            since.setdefault(item.light, []).append((began[item.light], item.at_ns))
    for frame in capture.frames[1:]:
        end_ns = frame.timestamp_ns + frame.exposure_us * 1000
        assert any(on < frame.timestamp_ns and end_ns <= off for on, off in since[frame.light])


def test_a_scan_without_uv_is_a_whole_scan(kiosk: Kiosk, client: CaptureClient, session: str) -> None:
    capture = client.capture(session, consent(), EVERY_LIGHT, None, None)
    assert [frame.light for frame in capture.frames] == LIGHTS[:-1]
    assert capture.missing == {"uv365": "not_allowed"}
    assert intervals(kiosk.history(), "uv365") == []


def test_the_next_patient_has_open_eyes_again_after_uv(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    first = client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
    second = client.capture(session, consent(), EVERY_LIGHT, None, None)
    assert first.frame("uv365") is not None
    blocks = [
        cv2.resize(c.frame("white").pixels, (48, 64), interpolation=cv2.INTER_AREA) for c in (first, second)
    ]
    # Noise averages out over a block of pixels; a lid over an eye does not.
    change = abs(blocks[0].astype(float) - blocks[1].astype(float)).max()
    assert change < 5000, change


def test_uv_that_the_light_daemon_refuses_is_missing_with_its_reason(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    lights = Lights(kiosk.light_socket)
    lights.lease(session, consent(), uv_allowance(session))
    for _ in range(6):
        lights.pulse("uv365", 0.01)
        lights.off()
    lights.close()
    capture = client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
    assert capture.missing == {"uv365": "pulse_limit"}


def test_no_picture_is_taken_without_consent(kiosk: Kiosk, session: str) -> None:
    for request in [
        {"v": 1, "do": "preview", "session": session},
        {"v": 1, "do": "preview", "session": session, "consent": {"text_version": "1", "language": "en"}},
        {"v": 1, "do": "capture", "session": "", "consent": consent().to_dict()},
    ]:
        with Link.connect(kiosk.capture_socket, 60) as link:
            link.send(request)
            answer, fds = link.receive(60)
        assert answer["code"] == "no_consent"
        assert fds == []
    assert kiosk.history() == []


def test_the_application_is_served_beside_any_number_of_clients_that_ask_nothing(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    silent: list[Link] = []
    for _ in range(20):
        until(lambda: connects(kiosk, silent), "as many silent clients connected as the daemon lets in")
    until(
        lambda: sum(link.peer_gone() for link in silent) == 14, "the daemon hanging up on 14 silent clients"
    )
    assert client.preview(session, consent()).guidance in GUIDANCE
    assert not silent[-1].peer_gone()
    client.end(session)
    for link in silent:
        link.close()


def connects(kiosk, links) -> bool:
    """Whether one more connection was made; not while as many wait as the kernel lets."""
    with contextlib.suppress(LinkError):
        links.append(Link.connect(kiosk.capture_socket, 60))
        return True
    return False


def test_the_preview_guides_and_its_light_goes_out_at_the_end(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    preview = client.preview(session, consent())
    assert preview.picture.shape == (256, 192, 3)
    assert preview.picture.dtype == np.uint8
    assert preview.guidance == "hold_still"
    assert preview.guidance in GUIDANCE
    x0, y0, x1, y1 = preview.face_box
    assert 0 <= x0 < x1 <= 1
    assert 0 <= y0 < y1 <= 1
    assert {item.light for item in kiosk.history() if item.level > 0} == {"white"}
    client.end(session)
    assert kiosk.lit() == set()


def test_the_preview_light_goes_out_when_nobody_looks_any_more(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    client.preview(session, consent())
    until(lambda: not kiosk.lit(), "every light off")


class Capturing:
    """A capture of a scan of its own in a thread."""

    def __init__(self, client) -> None:
        self._client, self._code = client, None
        self._thread = threading.Thread(target=self._capture)
        self._thread.start()

    def _capture(self) -> None:
        scan = uuid.uuid4().hex
        try:
            self._client.capture(scan, consent(), EVERY_LIGHT, uv_allowance(scan), None)
        except CaptureFault as fault:
            self._code = fault.code

    def poll(self) -> int | None:
        """As a process's: None as long as it is at work."""
        return None if self._thread.is_alive() else 0

    def failed(self) -> str | None:
        """How it failed, None where it did not, once it has ended."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._code


def met_under(kiosk, light, begin) -> Any:
    """Begin captures until one is met while `light` is lit: one look may come too late for it."""
    for _ in range(20):
        capture = begin()
        while capture.poll() is None:
            if light in kiosk.lit():
                return capture
            time.sleep(0.005)
    raise AssertionError(f"no capture was met under {light}")


def test_a_killed_capture_daemon_leaves_all_pins_low_in_every_step(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    for light in ("white", "dir1", "uv365"):

        def goes_dark(light=light) -> None:
            kiosk.revive()
            capture = met_under(kiosk, light, lambda: Capturing(client))
            killed_ns = time.monotonic_ns()
            kiosk.captured.kill(signal.SIGKILL)
            kiosk.captured.process.wait(60)
            assert dark_after(kiosk.pins, killed_ns) < 0.25
            assert capture.failed() == "unavailable"

        unless_held_up(goes_dark)
    kiosk.revive()
    assert len(client.capture(session, consent(), EVERY_LIGHT, None, None).frames) == 8


def test_a_killed_light_daemon_is_told_as_one_that_does_not_answer_and_a_new_one_serves_again(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:

    def is_told() -> None:
        kiosk.revive()
        capture = met_under(kiosk, "cross", lambda: Capturing(client))
        kiosk.lightd.end()
        assert kiosk.lit() == set()
        assert capture.failed() == "light_lost"

    unless_held_up(is_told)
    kiosk.revive()
    assert len(client.capture("s2", consent(), EVERY_LIGHT, None, None).frames) == 8


def test_a_killed_app_ends_the_sequence(kiosk: Kiosk) -> None:
    program = (
        "import sys, uuid; from pathlib import Path; from firmware.capture.client import CaptureClient;"
        "from tests.support.kiosk_daemons import EVERY_LIGHT, consent, uv_allowance;"
        "s = uuid.uuid4().hex; client = CaptureClient(Path(sys.argv[1]));"
        "client.capture(s, consent(), EVERY_LIGHT, uv_allowance(s), None)"
    )
    command = [sys.executable, "-c", program, str(kiosk.capture_socket)]

    def goes_dark() -> None:
        with met_under(kiosk, "uv365", lambda: subprocess.Popen(command, cwd=ROOT)) as app:
            killed_ns = time.monotonic_ns()
            app.kill()
        assert dark_after(kiosk.pins, killed_ns) < 0.25

    unless_held_up(goes_dark)
    assert CaptureClient(kiosk.capture_socket).preview("s2", consent()).guidance == "hold_still"


def test_sigterm_in_mid_sequence_exits_with_0_and_darkness(kiosk: Kiosk, client: CaptureClient) -> None:

    def ends() -> None:
        kiosk.revive()
        capture = met_under(kiosk, "parallel", lambda: Capturing(client))
        assert kiosk.captured.stop() == 0
        until(lambda: not kiosk.lit(), "every light off")
        assert capture.failed()

    unless_held_up(ends)
    assert kiosk.lightd.stop() == 0


def test_a_second_capture_meanwhile_is_told_busy(kiosk: Kiosk, client: CaptureClient) -> None:

    def is_busy() -> None:
        first = met_under(kiosk, "white", lambda: Capturing(client))
        second = Capturing(client)
        assert second.failed() == "busy"
        assert first.failed() is None

    unless_held_up(is_busy)


def test_a_preview_of_closed_eyes_asks_to_open_them(tmp_path: Path) -> None:
    with running_kiosk(small_board(tmp_path), tmp_path / "k") as kiosk:
        client = CaptureClient(kiosk.capture_socket)
        assert client.preview("s1", consent()).guidance == "hold_still"
        kiosk.captured.end()
        lids = cv2.imread(kiosk.portrait)
        height, width = lids.shape[:2]
        for x in (0.396, 0.604):
            eye = (round(x * width), round(0.404 * height))
            cv2.ellipse(lids, eye, (round(0.05 * width), round(0.03 * width)), 0, 0, 360, (125, 150, 205), -1)
        cv2.imwrite(kiosk.portrait, lids)
        kiosk.captured = kiosk.start_captured()
        assert client.preview("s2", consent()).guidance == "open_eyes"


def test_a_dead_white_lamp_is_named(tmp_path: Path) -> None:
    board = small_board(tmp_path, '\n[simulation]\ndead_lamps = ["white"]\n')
    with running_kiosk(board, tmp_path / "k") as kiosk:
        client = CaptureClient(kiosk.capture_socket)
        assert client.preview("s1", consent()).guidance == "too_dark"
        with pytest.raises(CaptureFault) as caught:
            client.capture("s1", consent(), EVERY_LIGHT, None, None)
        assert caught.value.code == "too_dark"
        assert "white light" in str(caught.value)
        assert kiosk.lit() == set()


def test_a_dead_side_lamp_is_missing_and_the_rest_is_there(tmp_path: Path) -> None:
    board = small_board(tmp_path, '\n[simulation]\ndead_lamps = ["dir2", "uv365"]\n')
    with running_kiosk(board, tmp_path / "k") as kiosk:
        capture = CaptureClient(kiosk.capture_socket).capture(
            "s1", consent(), EVERY_LIGHT, uv_allowance(), None
        )
        # The photodiode saw no UV either, so the light daemon allows no second pulse.
        assert capture.missing == {"dir2": "too_dark", "uv365": "uv_fault"}
        assert len(capture.frames) == 7


def test_a_frozen_camera_leaves_darkness_and_is_opened_anew(tmp_path: Path) -> None:
    board = small_board(tmp_path, "\n[simulation]\ncamera_freezes_after = 3\n")
    with running_kiosk(board, tmp_path / "k") as kiosk:
        client = CaptureClient(kiosk.capture_socket)
        with pytest.raises(CaptureFault) as caught:
            client.capture("s1", consent(), EVERY_LIGHT, None, None)
        assert caught.value.code == "camera_frozen"
        assert str(caught.value).startswith("No picture could be taken: the camera did not answer for ")
        assert kiosk.lit() == set()
        assert client.preview("s1", consent()).guidance == "hold_still"


def test_a_camera_that_freezes_again_ends_the_daemon_with_the_status_that_asks_for_a_start(
    tmp_path: Path,
) -> None:
    board = small_board(tmp_path, "\n[simulation]\ncamera_freezes_after = 0\n")
    with running_kiosk(board, tmp_path / "k") as kiosk:
        client = CaptureClient(kiosk.capture_socket)
        for _ in range(2):
            with pytest.raises(CaptureFault):
                client.preview("s1", consent())
        assert kiosk.captured.process.wait(60) == START_ME_AGAIN


def test_nothing_there_is_a_fault_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CaptureFault) as caught:
        CaptureClient(tmp_path / "none.sock", timeout=1).status()
    assert caught.value.code == "unavailable"
    assert "cannot be reached" in str(caught.value)


def test_pictures_never_become_files(kiosk: Kiosk, client: CaptureClient, session: str) -> None:
    client.preview(session, consent())
    client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
    big = [path for path in kiosk.state.rglob("*") if path.is_file() and path.stat().st_size > 200_000]
    assert [path.name for path in big if path.name != "portrait.png"] == []


def test_a_consent_without_time_zone_is_no_consent() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ConsentStamp("1", "en", datetime(2026, 1, 1))
    assert ConsentStamp.from_dict(consent().to_dict()).at <= datetime.now(timezone.utc)


def test_the_lights_never_flash_faster_than_three_times_a_second(
    kiosk: Kiosk, client: CaptureClient, session: str
) -> None:
    client.preview(session, consent())
    client.capture(session, consent(), EVERY_LIGHT, uv_allowance(session), None)
    client.preview(session, consent())
    rises = [item.at_ns for item in kiosk.history() if item.level > 0]
    assert all(later - earlier > 1e9 / 3 for earlier, later in zip(rises, rises[1:], strict=False))
    # Seven other lights, two previews, UV, and the look at the eyes before it.
    assert len(rises) == 11


def _capture(client) -> Capture:
    return client.capture("s1", consent(), EVERY_LIGHT, None, None)
