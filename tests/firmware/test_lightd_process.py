"""The real light daemon as a process: whatever happens to a client, or to it, the pins go low."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from firmware.lights.client import Lights, LightsFault
from firmware.lights.daemon import LightDaemon
from firmware.line.link import Link, LinkError
from firmware.line.stamps import UvAllowance
from hardware.board import load_board
from hardware.simulated.pins import PinReader
from tests.support.kiosk_daemons import (
    ROOT,
    Daemon,
    consent,
    dark_after,
    intervals,
    lit,
    small_board,
    until,
    uv_allowance,
)
from tests.support.waiting import unless_held_up

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightd")
    small_board(folder)
    return folder


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[list[Daemon]]:
    daemons = [start(folder)]
    yield daemons
    daemons[-1].end()


@pytest.fixture
def state(folder: Path) -> Path:
    return folder / "k"


@pytest.fixture
def daemon(shared: list[Daemon], folder: Path, pins: PinReader) -> Daemon:
    """One light daemon for all tests of this module; a test that ended it gets the next a new one."""
    if shared[-1].process.poll() is not None:
        shared.append(start(folder))
    until(lambda: not lit(pins), "every light off")
    return shared[-1]


def test_the_light_daemon_loads_none_of_the_libraries_for_pictures(daemon: Daemon) -> None:
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "pydantic_core" in mapped
    assert [name for name in ("numpy", "cv2", "PIL") if f"/{name}/" in mapped] == []


@pytest.fixture
def session() -> str:
    return uuid.uuid4().hex


def start(folder) -> Daemon:
    return Daemon("lightd", folder / "board.toml", folder / "k")


@contextlib.contextmanager
def connected(state) -> Iterator[Lights]:
    lights = Lights(state / "run" / "light.sock", PATIENCE_S)
    try:
        yield lights
    finally:
        lights.close()


@pytest.fixture
def pins(state: Path) -> Iterator[PinReader]:
    reader = PinReader(state / "run" / "pins.page")
    yield reader
    reader.close()


@contextlib.contextmanager
def leased(state) -> Iterator[Lights]:
    """A client with the lights for a scan of its own."""
    session = uuid.uuid4().hex
    with connected(state) as lights:
        lights.lease(session, consent(), uv_allowance(session))
        yield lights


@pytest.fixture
def lights(daemon: Daemon, state: Path, session: str) -> Iterator[Lights]:
    with connected(state) as lights:
        lights.lease(session, consent(), uv_allowance(session))
        yield lights


def test_a_light_goes_on_and_off_as_asked(lights: Lights, pins: PinReader) -> None:
    before_ns = time.monotonic_ns()
    at_ns = lights.on("white", 0.5)
    assert before_ns <= at_ns <= time.monotonic_ns()
    assert lit(pins) == {"white"}
    lights.off()
    assert lit(pins) == set()


def test_a_pulse_ends_by_itself_while_the_client_beats(daemon: Daemon, state: Path, pins: PinReader) -> None:
    def ends_by_itself() -> None:
        with leased(state) as lights:
            lights.pulse("uv365", 0.4)
            until(lambda: lights.beat() or not lit(pins), "every light off")
        assert 0.35 < intervals(pins.history(), "uv365")[-1] < 0.5

    unless_held_up(ends_by_itself)


def test_uv_goes_out_without_heartbeats(daemon: Daemon, state: Path, pins: PinReader) -> None:
    def goes_out() -> None:
        with leased(state) as lights:
            lights.pulse("uv365", 0.9)
            until(lambda: not lit(pins), "every light off")
        assert intervals(pins.history(), "uv365")[-1] < 0.3

    unless_held_up(goes_out)


def test_hanging_up_in_a_pulse_puts_uv_out(daemon: Daemon, state: Path, pins: PinReader) -> None:
    def goes_out() -> None:
        with leased(state) as lights:
            lights.pulse("uv365", 0.9)
            hung_up_ns = time.monotonic_ns()
        assert dark_after(pins, hung_up_ns) < 0.25

    unless_held_up(goes_out)


def test_sigterm_in_a_pulse_puts_uv_out_and_exits_with_0(
    daemon: Daemon, lights: Lights, pins: PinReader
) -> None:
    lights.pulse("uv365", 0.9)
    assert daemon.stop() == 0
    assert lit(pins) == set()


def test_a_killed_light_daemon_leaves_all_pins_low(daemon: Daemon, lights: Lights, pins: PinReader) -> None:
    lights.pulse("uv365", 0.9)
    daemon.kill(signal.SIGKILL)
    daemon.process.wait(60)
    assert lit(pins) == set()


def test_a_killed_client_leaves_all_pins_low(daemon: Daemon, state: Path, pins: PinReader) -> None:
    program = (
        "import sys, time, uuid; from pathlib import Path; from firmware.lights.client import Lights;"
        "from tests.support.kiosk_daemons import consent, uv_allowance;"
        "lights = Lights(Path(sys.argv[1])); lights.lease(uuid.uuid4().hex, consent(), uv_allowance());"
        "lights.pulse('uv365', 0.9); print('lit', flush=True);"
        "[(lights.beat(), time.sleep(0.05)) for _ in range(100)]"
    )
    command = [sys.executable, "-c", program, str(state / "run" / "light.sock")]

    def goes_out() -> None:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as client:
            try:
                assert client.stdout.readline() == b"lit\n"
                assert lit(pins) == {"uv365"}
                killed_ns = time.monotonic_ns()
            finally:
                client.kill()
        assert dark_after(pins, killed_ns) < 0.25

    unless_held_up(goes_out)


def test_the_dose_ledger_outlives_a_killed_daemon(
    daemon: Daemon, lights: Lights, shared: list[Daemon], folder: Path, state: Path, session: str
) -> None:
    for _ in range(6):
        lights.pulse("uv365", 0.05)
        lights.off()
    daemon.end()
    shared.append(start(folder))
    with connected(state) as fresh:
        fresh.lease(session, consent(), uv_allowance(session))
        with pytest.raises(LightsFault) as caught:
            fresh.pulse("uv365", 0.05)
        assert caught.value.code == "pulse_limit"
    assert session.encode() not in (state / "light" / "doses.sqlite").read_bytes()
    assert stat.S_IMODE((state / "light" / "doses.sqlite").stat().st_mode) == 0o600


def test_a_ledger_that_cannot_be_opened_locks_every_light(tmp_path: Path) -> None:
    """Which fault is latched in it is not known."""
    state = tmp_path / "k"
    (state / "light" / "doses.sqlite").mkdir(parents=True)
    daemon = Daemon("lightd", small_board(tmp_path), state)
    try:
        with connected(state) as lights:
            with pytest.raises(LightsFault, match="fault_unknown") as caught:
                lights.lease("s1", consent(), uv_allowance())
            assert caught.value.code == "fault"
    finally:
        daemon.end()


def test_a_stuck_uv_lamp_locks_the_lights(tmp_path: Path) -> None:
    state = tmp_path / "k"
    board = small_board(tmp_path, '\n[simulation]\nstuck_lamps = ["uv365"]\n')
    daemon = Daemon("lightd", board, state)
    try:
        with connected(state) as lights:
            lights.lease("s1", consent(), uv_allowance())
            lights.pulse("uv365", 0.1)
            lights.off()
            until(lambda: lights.status()["fault"] == "light_after_off", "the fault of a light that stays on")
    finally:
        daemon.end()


def test_an_open_shroud_means_no_uv(tmp_path: Path) -> None:
    state = tmp_path / "k"
    board = small_board(tmp_path, "\n[simulation]\nshroud_closed = [true, false]\n")
    daemon = Daemon("lightd", board, state)
    try:
        with connected(state) as lights:
            lights.lease("s1", consent(), uv_allowance())
            with pytest.raises(LightsFault) as caught:
                lights.pulse("uv365", 0.1)
            assert caught.value.code == "shroud_open"
    finally:
        daemon.end()


def test_nonsense_is_answered_and_harms_nobody(daemon: Daemon, state: Path, lights: Lights) -> None:
    lights.on("white")
    for request in [{}, {"v": 1}, {"v": 9, "do": "on"}, {"v": 1, "do": "on"}, {"v": 1, "do": "lease"}]:
        with Link.connect(state / "run" / "light.sock", PATIENCE_S) as link:
            link.send(request)
            answer, _ = link.receive(PATIENCE_S)
            assert answer["ok"] is False
            assert answer["code"] == "bad_request"
    raw = Link.connect(state / "run" / "light.sock", PATIENCE_S)
    os.write(raw.fileno(), b"\xff\x00 no json")
    raw.close()
    assert lights.status()["lit"] == {"white": 1.0}


HUGE = 10**400
PATIENT = UvAllowance("p1", True, 0.0).to_dict()


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "on", "light": "white", "level": HUGE},
        {"do": "on", "light": ["white"], "level": 1.0},
        {"do": "pulse", "light": "uv365", "seconds": HUGE},
        {"do": "lease", "session": None, "consent": consent().to_dict(), "uv": None},
        {"do": "lease", "session": "s", "consent": consent().to_dict() | {"language": None}, "uv": None},
        {"do": "lease", "session": "s", "consent": consent().to_dict(), "uv": []},
        {
            "do": "lease",
            "session": "s",
            "consent": consent().to_dict(),
            "uv": PATIENT | {"patient_reference": None},
        },
        {
            "do": "lease",
            "session": "s",
            "consent": consent().to_dict(),
            "uv": PATIENT | {"eyes_closed_confirmed_at": HUGE},
        },
        {"do": "clear", "staff": "\ud800"},
        {"do": ["on"] * 1000},
    ],
    ids=lambda request: str(request)[:60],
)
def test_values_that_no_client_of_ours_sends_are_refused(daemon: Daemon, state: Path, request_) -> None:
    with Link.connect(state / "run" / "light.sock", PATIENCE_S) as link:
        link.send({"v": 1, **request_})
        answer, _ = link.receive(PATIENCE_S)
        assert (answer["ok"], answer["code"]) in [(False, "bad_request"), (False, "no_fault")]
        link.send({"v": 1, "do": "status"})
        status, _ = link.receive(PATIENCE_S)
        assert not status["leased"]
    assert daemon.process.poll() is None


def test_whatever_fails_at_its_end_the_daemon_lets_go_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = load_board(small_board(tmp_path))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def fail(*_) -> NoReturn:
        raise RuntimeError("failed")

    daemon = LightDaemon(board, tmp_path / "k")
    monkeypatch.setattr(daemon, "_turn", fail)
    monkeypatch.setattr(daemon._core, "stop", fail)
    monkeypatch.setattr(daemon._notifier, "close", fail)
    try:
        with pytest.raises(RuntimeError, match="failed"):
            daemon.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert signal.set_wakeup_fd(-1) == -1
    again = LightDaemon(board, tmp_path / "k")
    again._close()


def test_the_silent_shut_nobody_out(daemon: Daemon, state: Path, lights: Lights, pins: PinReader) -> None:
    """Nor does who holds a light lose it, though silent beside them, or who has asked the line."""
    lights.on("white")
    with contextlib.ExitStack() as closing:
        asked = [closing.enter_context(connected_link(state)) for _ in range(3)]
        assert all(status_by(link)["ok"] for link in asked)
        silent = []
        for _ in range(20):
            silent.append(closing.enter_context(connected_link(state)))
            lights.beat()
        until(
            lambda: lights.beat() or sum(link.peer_gone() for link in silent) == 14,
            "the daemon hanging up on 14 silent clients",
        )
        with connected(state) as newcomer:
            assert newcomer.status()["lit"] == {"white": 1.0}
        assert not any(link.peer_gone() for link in asked)
        assert not silent[-1].peer_gone()
        assert all(status_by(link)["ok"] for link in [*asked, silent[-1]])
        assert lit(pins) == {"white"}
        lights.off()


def test_a_light_goes_out_with_its_line_whoever_else_is_connected(
    daemon: Daemon, state: Path, pins: PinReader
) -> None:
    def goes_out() -> None:
        with contextlib.ExitStack() as closing, leased(state) as lights:
            lights.pulse("uv365", 0.9)
            for _ in range(8):
                closing.enter_context(connected_link(state))
            hung_up_ns = time.monotonic_ns()
            lights.close()
            assert dark_after(pins, hung_up_ns) < 0.25

    unless_held_up(goes_out)


def test_who_is_one_too_many_is_told_so_and_let_in_once_another_has_gone(daemon: Daemon, state: Path) -> None:
    with contextlib.ExitStack() as closing:
        others = []
        for _ in range(8):
            others.append(closing.enter_context(connected_link(state)))
            assert status_by(others[-1])["ok"]
        lights = closing.enter_context(connected(state))
        for _ in range(2):
            with pytest.raises(LightsFault, match="^8 others are connected to the light daemon") as full:
                lights.status()
            assert full.value.code == "full"
        others[0].close()
        until(lambda: there(lights), "the light daemon there again")


def connected_link(state) -> Link:
    """One more connection; not while as many wait as the kernel lets."""
    made = []

    def connects() -> list[Link]:
        with contextlib.suppress(LinkError):
            made.append(Link.connect(state / "run" / "light.sock", PATIENCE_S))
        return made

    until(connects, "a place for one more client")
    return made[0]


def status_by(link) -> dict[str, Any]:
    link.send({"v": 1, "do": "status"})
    return link.receive(PATIENCE_S)[0]


def there(lights) -> dict[str, Any] | None:
    with contextlib.suppress(LightsFault):
        return lights.status()


def test_a_second_light_daemon_is_refused(daemon: Daemon, folder: Path, state: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from kiosk_app.cli import main; main()",
        "lightd",
        "--board",
        str(folder / "board.toml"),
        "--state",
        str(state),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "already owns the pins" in result.stderr
    assert daemon.process.poll() is None
