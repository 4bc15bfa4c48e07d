"""The preview: every frame of the camera for who asks at once, none from before its light was on."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from firmware.cameras.camera import Exposure
from firmware.capture.client import CaptureClient, CaptureFault
from firmware.capture.daemon import CaptureDaemon
from firmware.lights.client import Lights, LightsFault
from firmware.line.link import SEND_S, Link
from hardware.board import load_board
from hardware.host.patience import waiting_at_most
from hardware.simulated.camera import SimulatedCamera
from hardware.simulated.patient import Patient
from hardware.simulated.pins import PinReader
from models.networks.runtime import NetworkNotFinite, NetworkTooSlow
from tests.support.kiosk_daemons import Daemon, consent, lit, small_board, until
from tests.support.own_log import own_log
from tests.support.stand_in_face import find_stand_in, landmarks, portrait


def test_a_preview_may_have_begun_before_it_was_asked_for_but_not_before_its_light_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, begun, lit_ns = [], [], []
    expose = SimulatedCamera.expose

    def noting(camera, mode, exposure_us, gain, after_ns) -> Exposure:
        exposure = expose(camera, mode, exposure_us, gain, after_ns)
        asked.append(after_ns)
        begun.append(exposure.timestamp_ns)
        return exposure

    def noting_when(lights, light, level=1.0) -> int:
        lit_ns.append(on(lights, light, level))
        return lit_ns[-1]

    on = Lights.on
    monkeypatch.setattr(SimulatedCamera, "expose", noting)
    monkeypatch.setattr(Lights, "on", noting_when)
    profile = small_board(tmp_path)
    board = load_board(profile)
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    lightd = Daemon("lightd", profile, tmp_path / "k")
    daemon = CaptureDaemon(board, tmp_path / "k", find_stand_in, lambda: patient)
    thread = threading.Thread(target=daemon.serve)
    thread.start()
    try:
        client = CaptureClient(tmp_path / "k" / "run" / "capture.sock", timeout=60)
        for _ in range(3):
            client.preview("s1", consent())
        client.end("s1")
        client.preview("s2", consent())
        client.end("s2")
    finally:
        daemon.stop()
        thread.join(60)
        lightd.end()
    # The next session's light has gone on since: what was taken in the dark between is not for it.
    settled = [at_ns + board.camera.settle_ms * 1_000_000 for at_ns in lit_ns]
    assert board.camera.settle_ms > 0
    assert asked == [settled[0], begun[0] + 1, begun[1] + 1, settled[1]]
    assert begun[3] >= asked[3]


@pytest.fixture
def previewing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[CaptureClient, list[str]]]]:
    """`previewing(…)`: a client of a capture daemon on such a small_board, and its leases' sessions."""
    leased, ending = [], contextlib.ExitStack()
    lease = Lights.lease

    def noting(lights, session, *allowed) -> None:
        leased.append(session)
        lease(lights, session, *allowed)

    monkeypatch.setattr(Lights, "lease", noting)

    def start(simulation="", **replaced) -> tuple[CaptureClient, list[str]]:
        profile = small_board(tmp_path, simulation, **replaced)
        board = load_board(profile)
        patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
        lightd = Daemon("lightd", profile, tmp_path / "k")
        ending.callback(lightd.end)
        daemon = CaptureDaemon(board, tmp_path / "k", find_stand_in, lambda: patient)
        thread = threading.Thread(target=daemon.serve)
        thread.start()
        ending.callback(thread.join, 60)
        ending.callback(daemon.stop)
        return CaptureClient(tmp_path / "k" / "run" / "capture.sock", timeout=60), leased

    with ending:
        yield start


def test_a_camera_that_is_slow_to_give_its_pictures_keeps_the_preview_in_one_light(
    previewing: Callable[..., tuple[CaptureClient, list[str]]],
) -> None:
    client, leased = previewing("[simulation]\ncamera_readout_ms = 400\n")
    # Asked for without a pause, they leave nobody else a turn; together they outlast a silent lease twice.
    seen = [client.preview("s1", consent()) for _ in range(10)]
    assert {one.guidance for one in seen} == {"hold_still"}
    assert leased == ["s1"]


def test_a_camera_that_is_waited_for_keeps_its_light(
    previewing: Callable[..., tuple[CaptureClient, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, leased = previewing()
    client.preview("s1", consent())
    beat, expose, beats = Lights.beat, SimulatedCamera.expose, []

    def counted(lights) -> None:
        beat(lights)
        beats.append(None)

    def slow(*setting) -> Exposure:
        before = len(beats)
        until(lambda: len(beats) > before + 2, "further heartbeats of the preview's light")
        return expose(*setting)

    monkeypatch.setattr(Lights, "beat", counted)
    monkeypatch.setattr(SimulatedCamera, "expose", slow)
    assert client.preview("s1", consent()).guidance == "hold_still"
    assert leased == ["s1"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("USB device 3 went away."), "USB device 3 went away."),
        (OSError("I/O error"), "I/O error."),
        (OSError(errno.EIO, "Input/output error"), "input/output error."),
        (OSError("the camera sends no frames"), "the camera sends no frames."),
    ],
)
def test_why_there_is_no_picture_is_said_in_the_words_of_the_camera(
    previewing: Callable[..., tuple[CaptureClient, list[str]]], monkeypatch: pytest.MonkeyPatch, error, said
) -> None:
    client, _ = previewing()

    def fails(*_setting) -> NoReturn:
        raise error

    monkeypatch.setattr(SimulatedCamera, "expose", fails)
    with pytest.raises(CaptureFault) as caught:
        client.preview("s1", consent())
    assert str(caught.value) == f"No picture could be taken: {said}"


def test_a_preview_whose_light_was_lost_while_it_was_taken_is_taken_anew(
    previewing: Callable[..., tuple[CaptureClient, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, leased = previewing()
    bright = client.preview("s1", consent()).picture.mean()
    beat, expose, taken, lost = Lights.beat, SimulatedCamera.expose, [], []

    def noting(*setting) -> Exposure:
        taken.append(None)
        return expose(*setting)

    def too_late(lights) -> None:
        if taken and not lost:
            lost.append(None)
            lights.release()
        beat(lights)

    monkeypatch.setattr(SimulatedCamera, "expose", noting)
    monkeypatch.setattr(Lights, "beat", too_late)
    seen = client.preview("s1", consent())
    assert seen.picture.mean() == pytest.approx(bright, rel=0.1)
    assert leased == ["s1", "s1"]


def test_an_error_that_nobody_foresaw_is_answered_in_the_dark_and_logged_by_kind_and_place(
    previewing: Callable[..., tuple[CaptureClient, list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, leased = previewing()
    client.preview("s1", consent())
    pins = PinReader(tmp_path / "k" / "run" / "pins.page")
    expose = SimulatedCamera.expose

    def broken(*setting) -> NoReturn:
        raise ZeroDivisionError("a measurement of 0.123")

    with own_log():
        monkeypatch.setattr(SimulatedCamera, "expose", broken)
        with pytest.raises(CaptureFault, match=r"ZeroDivisionError at test_captured_preview\.py:\d") as fault:
            client.preview("s1", consent())
        assert lit(pins) == set()
        monkeypatch.setattr(SimulatedCamera, "expose", expose)
        assert client.preview("s1", consent()).guidance == "hold_still"
    pins.close()
    assert (fault.value.code, leased) == ("unavailable", ["s1", "s1"])
    said = capsys.readouterr().err
    assert "request_failed" in said
    assert "0.123" not in said + str(fault.value)


def test_a_light_that_a_busy_computer_lost_again_is_told_as_that(
    previewing: Callable[..., tuple[CaptureClient, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, leased = previewing()

    def lost(lights) -> NoReturn:
        raise LightsFault("no_lease", "This client holds no lease on the lights.")

    monkeypatch.setattr(Lights, "beat", lost)
    with pytest.raises(CaptureFault, match="This computer was too busy") as fault:
        client.preview("s1", consent())
    assert (fault.value.code, leased) == ("busy", ["s1", "s1"])


@pytest.mark.parametrize("box", [[], [0, 0, 1], [0, 0, 1, 1, 1], "abcd", 7, [None] * 4])
def test_a_box_that_is_no_box_is_an_answer_that_is_not_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box
) -> None:
    answer = {"shape": [1, 1, 3], "guidance": "hold_still", "face_box": box}
    monkeypatch.setattr(CaptureClient, "_ask", lambda client, request: (answer, memoryview(b"rgb")))
    with pytest.raises(CaptureFault, match="not understood"):
        CaptureClient(tmp_path / "capture.sock").preview("s1", consent())


@pytest.mark.parametrize("kind", [NetworkNotFinite, NetworkTooSlow])
@pytest.mark.parametrize("what", ["preview", "capture"])
def test_a_network_that_says_nothing_usable_is_told_of_with_its_own_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind, what
) -> None:
    sentence = "The network 'face-landmarks' answered with what is no number. Run 'dermakiosk models verify'."

    def find(picture, engine) -> NoReturn:
        raise kind(sentence)

    profile = small_board(tmp_path)
    board = load_board(profile)
    patient = Patient(board, portrait(), landmarks((300, 0.47 * 800), 0.52 * 600))
    lightd = Daemon("lightd", profile, tmp_path / "k")
    with own_log():
        daemon = CaptureDaemon(board, tmp_path / "k", find, lambda: patient)
        thread = threading.Thread(target=daemon.serve)
        thread.start()
        try:
            client = CaptureClient(tmp_path / "k" / "run" / "capture.sock", timeout=60)
            with pytest.raises(CaptureFault) as fault:
                if what == "preview":
                    client.preview("s1", consent())
                else:
                    client.capture("s1", consent(), {"white"}, None)
            assert (fault.value.code, str(fault.value)) == ("unavailable", sentence)
            assert client.status()["last_fault"] == "unavailable"
        finally:
            daemon.stop()
            thread.join(60)
            lightd.end()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [event["why"] for event in events if event["level"] == "error"] == [sentence]


def test_the_camera_is_not_asked_where_no_time_is_left_for_its_answer(tmp_path: Path) -> None:
    """It is no fault of the camera's, not even where others are before us."""
    kind = socket.AF_UNIX, socket.SOCK_SEQPACKET
    with closing(socket.socket(*kind)) as daemon, closing(socket.socket(*kind)) as other:
        daemon.bind(str(tmp_path / "capture.sock"))
        daemon.listen(0)
        other.connect(str(tmp_path / "capture.sock"))
        with waiting_at_most(1.0, 0.0), pytest.raises(CaptureFault) as fault:
            CaptureClient(tmp_path / "capture.sock").status()
        assert fault.value.code == "deadline"
        assert "gave no answer within the moment that was left;" in str(fault.value)


def test_a_question_is_sent_in_the_time_that_is_left_for_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = [], Link.send

    def noted(link, message, fds=(), timeout=SEND_S) -> None:
        sent.append(timeout)
        send(link, message, fds, timeout)

    monkeypatch.setattr(Link, "send", noted)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as daemon:
        daemon.bind(str(tmp_path / "capture.sock"))
        daemon.listen()
        with waiting_at_most(1.0, 0.2), pytest.raises(CaptureFault, match="no answer"):
            CaptureClient(tmp_path / "capture.sock").status()
    assert [timeout <= 0.2 for timeout in sent] == [True]
