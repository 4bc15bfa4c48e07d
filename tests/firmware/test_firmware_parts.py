"""The smaller parts of the firmware: links, sealed memory, guidance, watched calls, brightness."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from firmware.cameras.camera import CameraFrozen, open_camera, watched
from firmware.cameras.reflectance import to_srgb
from firmware.capture.client import CaptureClient, CaptureFault
from firmware.capture.guidance import guide, look_for_face
from firmware.lights.client import Lights, LightsFault
from firmware.line.link import Link, LinkClosed, LinkError, LinkTimeout, Listener
from firmware.line.memory import adopt, publish
from firmware.line.stamps import ConsentStamp, StampError, UvAllowance
from firmware.pins.opening import open_light_hardware
from hardware.board import BOARDS, DriverMissing, load_board
from hardware.host.sockets import PathTooLong
from models.analysis.face import find_face
from models.analysis.refusal import SENTENCES, Refused
from models.networks.runtime import DEFAULT_ENGINE
from tests.support.stand_in_face import NoFace, StandInFace, landmarks

PICTURE = np.full((640, 480, 3), 120, np.uint8)


def face(x=0.5, y=0.47, width=0.52, turned=0.0) -> StandInFace:
    points = landmarks((x * 480, y * 640), width * 480)
    points[1, 0] += turned * width * 480
    return StandInFace((0, 0, 1, 1), points)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (face(), "hold_still"),
        (face(width=0.3), "too_far"),
        (face(width=0.75), "too_near"),
        (face(x=0.35), "move_left"),
        (face(x=0.65), "move_right"),
        (face(y=0.3), "move_down"),
        (face(y=0.62), "move_up"),
        (face(turned=0.2), "turn_to_front"),
    ],
)
def test_guidance_tells_which_way(found, code) -> None:
    assert guide(PICTURE, found, None) == code


@pytest.mark.parametrize(("breadth", "code"), [(80, "too_far"), (140, "hold_still"), (200, "too_near")])
def test_before_a_webcam_a_face_is_near_enough_while_it_is_whole(breadth, code) -> None:
    picture = np.full((360, 640, 3), 120, np.uint8)
    found = StandInFace((0, 0, 1, 1), landmarks((320, 0.47 * 360), breadth))
    assert guide(picture, found, None) == code


def test_closed_eyes_are_asked_to_open_once_the_face_is_in_its_place() -> None:
    assert guide(PICTURE, face(), None, eyes_closed=True) == "open_eyes"
    assert guide(PICTURE, face(width=0.3), None, eyes_closed=True) == "too_far"


def test_guidance_without_a_face() -> None:
    assert guide(PICTURE, None, "no_face") == "no_face"
    assert guide(PICTURE, None, "two_faces") == "two_faces"
    assert guide(PICTURE // 20, None, "no_face") == "too_dark"


def test_a_refusal_of_the_face_finder_is_a_reason_and_a_bug_is_not() -> None:
    def refuses(picture, engine) -> NoReturn:
        raise NoFace

    def breaks(picture, engine) -> NoReturn:
        raise ZeroDivisionError

    assert look_for_face(refuses, PICTURE, "e") == (None, "no_face")
    with pytest.raises(ZeroDivisionError):
        look_for_face(breaks, PICTURE, "e")


@pytest.mark.parametrize("reason", sorted(SENTENCES))
def test_what_the_analysis_refuses_is_a_reason(reason: str) -> None:
    """The finder's own class is of a room that this one does not know."""

    def refuses(picture, engine) -> NoReturn:
        raise Refused(reason)

    assert look_for_face(refuses, PICTURE, "e") == (None, reason)


def test_the_finder_of_the_kiosk_sees_no_face_where_there_is_none() -> None:
    assert look_for_face(find_face, PICTURE, DEFAULT_ENGINE) == (None, "no_face")


def test_a_message_and_its_memory_arrive(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "s")
    client = Link.connect(tmp_path / "s", 60)
    server = listener.accept(60)
    fd = publish("test", [b"hello ", memoryview(b"world")])
    server.send({"a": 1}, [fd])
    os.close(fd)
    message, (received,) = client.receive(60)
    assert message == {"a": 1}
    assert bytes(adopt(received)) == b"hello world"
    assert not server.peer_gone()
    client.close()
    assert server.peer_gone()
    with pytest.raises(LinkClosed):
        server.receive(60)
    listener.close()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": True},
        {"ok": True, "shape": 7, "guidance": "hold_still", "face_box": None},
        {"ok": True, "shape": [6], "guidance": "hold_still", "face_box": None},
        {"ok": True, "shape": [2, 3, 1], "guidance": "hold_still", "face_box": None},
        {"ok": True, "shape": [0, 2, 3], "guidance": "hold_still", "face_box": None},
        {"ok": True, "shape": [1, 2, 3], "guidance": "hold_still", "face_box": ["left", 0, 1, 1]},
        {"progress": None},
        {"progress": ["white", "some", 3]},
        {"progress": ["white", float("inf"), 3]},
    ],
)
def test_what_is_no_answer_of_the_capture_daemon_is_told_as_none(tmp_path: Path, answer) -> None:
    listener = Listener(tmp_path / "s")
    size = 0 if answer.get("shape") == [0, 2, 3] else 6

    def serve() -> None:
        for _ in range(3):
            with listener.accept(60) as link:
                link.receive(60)
                fd = publish("answer", [bytes(size)])
                link.send(answer, [fd])
                os.close(fd)

    server = threading.Thread(target=serve)
    server.start()
    client, consent = CaptureClient(tmp_path / "s"), ConsentStamp("1", "en", datetime.now(timezone.utc))
    for ask in (client.preview, client.close_up_preview, client.close_up):
        with pytest.raises(CaptureFault) as fault:
            ask("s1", consent)
        assert fault.value.code == "unavailable"
    server.join()
    listener.close()


def test_memory_that_could_still_change_is_refused() -> None:
    fd = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.write(fd, b"x")
    with pytest.raises(LinkError, match="could still be changed"):
        adopt(fd)
    with pytest.raises(LinkError, match="not memory"):
        adopt(os.open("/dev/null", os.O_RDONLY))


def test_memory_received_cannot_be_written() -> None:
    view = adopt(publish("test", [b"x"]))
    assert view.readonly


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b"[" * 60_000])
def test_what_is_no_message_is_an_error_not_a_crash(data) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.send(data)
    with pytest.raises(LinkError):
        Link(right).receive(1)
    left.close()
    right.close()


def test_silence_has_a_deadline() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pytest.raises(LinkTimeout, match="There was no answer within 0.1 s"):
        Link(right).receive(0.12)
    left.close()
    right.close()


@pytest.mark.parametrize("wait_s", [0.0, 0.02, -0.5])
def test_who_had_no_time_to_wait_is_not_told_of_so_many_seconds(wait_s) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pytest.raises(LinkTimeout, match="no answer within the moment that was left"):
        Link(right).receive(wait_s)
    with pytest.raises(LinkTimeout, match="took no message within the moment that was left"):
        while True:
            Link(right).send({"v": 1, "filler": "x" * 10_000}, timeout=max(0.0, wait_s))
    left.close()
    right.close()


def test_a_daemon_for_which_too_many_wait_is_said_to_be_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon, ExitStack() as waiting:
        daemon.bind(str(tmp_path / "s"))
        daemon.listen(0)
        with pytest.raises(LinkError, match="Too many others wait at"):
            while True:  # until nobody more can wait to be taken
                waiting.enter_context(Link.connect(tmp_path / "s", 5))
        with pytest.raises(LinkError, match="Another daemon already serves"):
            Listener(tmp_path / "s")


def test_a_socket_left_behind_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(tmp_path / "s"))
    stale.close()
    listener = Listener(tmp_path / "s")
    with pytest.raises(LinkError, match="already serves"):
        Listener(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    listener.close()


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(PathTooLong, match="of --state has .* name a shorter one") as refused:
        Listener(tmp_path / ("x" * 110) / "light.sock")
    assert refused.value.exit_status == 2


def test_a_hanging_call_is_given_up_and_watched_meanwhile() -> None:
    looks = []
    stuck = threading.Event()
    with pytest.raises(CameraFrozen):
        watched(stuck.wait, 0.2, 0.02, lambda: looks.append(1))
    stuck.set()
    assert len(looks) > 3


def test_a_watched_call_gives_its_result_or_its_error() -> None:
    assert watched(lambda: 7, 60, 0.1, lambda: None) == 7
    with pytest.raises(OSError, match="no camera"):
        watched(lambda: (_ for _ in ()).throw(OSError("no camera")), 60, 0.1, lambda: None)


def test_a_driver_that_is_not_there_is_an_error_with_the_line_to_fix(tmp_path: Path) -> None:
    board = load_board(BOARDS / "simulated.toml").model_copy(update={"pin_factory": "lgpio"})
    with pytest.raises(DriverMissing, match="pin_factory = 'lgpio'"):
        open_light_hardware(board, tmp_path)
    camera = board.camera.model_copy(update={"driver": "picamera2"})
    with pytest.raises(DriverMissing, match="camera.driver = 'picamera2'"):
        open_camera(board.model_copy(update={"camera": camera}), tmp_path, lambda: None)


def test_a_board_without_lamps_takes_orders_and_lights_nothing(tmp_path: Path) -> None:
    hardware = open_light_hardware(load_board(BOARDS / "laptop.toml"), tmp_path)
    hardware.pins.set("white", 1.0)
    hardware.pins.all_low()
    assert hardware.senses.shroud_closed() == (False, False)
    assert hardware.senses.uv_seen() == (False, False)
    hardware.close()


def test_linear_pictures_become_srgb_for_eyes() -> None:
    linear = np.array([[[0, 65_535, 14_000]]], np.uint16)
    assert to_srgb(linear).tolist() == [[[0, 255, 127]]]


@pytest.mark.parametrize("dose", [-1.0, float("nan"), "much"])
def test_a_dose_from_elsewhere_that_is_no_dose_is_refused(dose) -> None:
    data = UvAllowance("p", True, 0.0).to_dict() | {"dose_elsewhere_j_m2": dose}
    with pytest.raises(StampError):
        UvAllowance.from_dict(data)


@pytest.mark.parametrize(("peers", "welcome"), [((), False), ((os.getuid(),), True)])
def test_only_its_own_user_and_its_peers_may_talk_to_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers, welcome
) -> None:
    with monkeypatch.context() as another:
        another.setattr(os, "getuid", lambda: 54_321)
        listener = Listener(tmp_path / "light.sock", peers)
    # Nobody answers who is let in; a hanging up comes in its own time.
    lights = Lights(tmp_path / "light.sock", timeout=0.5 if welcome else 60)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(refusal_of(lights.status)))
    asking.start()
    link = listener.accept(60)
    assert (link is not None) is welcome
    asking.join(60)
    assert ("nor one of its peers" in answers[0]) is not welcome
    lights.close()
    listener.close()


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": True},
        {"ok": True, "at_ns": None, "measure": 1, "written": None, "lit": [], "fault": 5},
        {"ok": "yes"},
        {"ok": False, "code": "too_soon", "sentence": "Later.", "retry_s": "soon"},
        {"ok": False},
    ],
)
def test_what_answers_otherwise_than_a_light_daemon_is_told_as_none_and_hung_up_on(
    tmp_path: Path, answer
) -> None:
    listener = Listener(tmp_path / "light.sock")
    lights = Lights(tmp_path / "light.sock", timeout=60)
    asks = [
        lights.status,
        lambda: lights.on("white"),
        lambda: lights.pulse("uv365", 0.1),
        lambda: lights.new_lamp("white", "A"),
        lambda: lights.clear("A"),
    ]
    for ask in asks:
        answers = []
        asking = threading.Thread(target=lambda ask=ask, into=answers: into.append(refusal_of(ask)))
        asking.start()
        link = listener.accept(60)
        with pytest.raises(LinkClosed):
            while True:
                link.receive(60)
                link.send(answer)
        asking.join(60)
        assert "is 'dermakiosk lightd' of this version running?" in answers[0]
        link.close()
    listener.close()


@pytest.mark.parametrize("retry_s", [-1, float("nan"), float("inf"), 10**400])
def test_a_light_that_may_come_at_no_time_to_wait_for_is_refused(tmp_path: Path, retry_s) -> None:
    listener = Listener(tmp_path / "light.sock")
    lights, answers = Lights(tmp_path / "light.sock", timeout=60), []
    asking = threading.Thread(target=lambda: answers.append(refusal_of(lambda: lights.on("white"))))
    asking.start()
    with listener.accept(60) as link:
        link.receive(60)
        link.send({"ok": False, "code": "too_soon", "sentence": "Later.", "retry_s": retry_s})
        asking.join(60)
    assert answers == ["Later."]
    listener.close()


def refusal_of(ask) -> str:
    with pytest.raises(LightsFault) as refused:
        ask()
    return str(refused.value)
