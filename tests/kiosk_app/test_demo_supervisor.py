"""The demo's supervisor: who is started again, who is not, and when it gives up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hardware.board import BOARDS
from kiosk_app.demo import supervisor as module
from kiosk_app.demo.supervisor import Part, PartFailed, Stopped, Supervisor, logged_ready, run_step
from tests.support.waiting import wait_until

READY = 'print(\'{"event": "ready"}\', flush=True)\n'
STAY = READY + "import time; time.sleep(60)"


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.02)
    started = Supervisor(tmp_path / "logs")
    yield started
    started.stop()


def part(program: str, name: str = "part") -> Part:
    return Part(name, [sys.executable, "-c", program], logged_ready)


def until(supervisor_does: Callable[[], None], question: Callable[[], bool]) -> None:
    def look() -> bool:
        supervisor_does()
        return question()

    wait_until(look)


def ends_once(folder: Path, how: str) -> str:
    """A program that is ready, then ends by `how` the first time, and stays the second."""
    return (
        f"{READY}import os, pathlib, signal, sys, time\nseen = pathlib.Path({str(folder / 'seen')!r})\n"
        f"if not seen.exists():\n    seen.touch(); {how}\ntime.sleep(60)"
    )


SPEAKS = """
import time
from hardware.host.notify import Notifier
notifier = Notifier()
notifier.ready()
while {alive}:
    notifier.alive()
    time.sleep(0.01)
time.sleep(60)
"""


def test_a_part_that_hangs_is_killed_and_started_again(supervisor: Supervisor) -> None:
    speaks = Part("part", [sys.executable, "-c", READY + SPEAKS.format(alive="True")], logged_ready, 1.0)
    supervisor.start(speaks, part(STAY, "other"))
    first, other = supervisor.pid("part"), supervisor.pid("other")
    # It has been heard once it can fall silent: only then it is stopped.
    until(supervisor.mend, lambda: "part" in supervisor._watchdog._heard)
    os.kill(first, signal.SIGSTOP)
    until(supervisor.mend, lambda: supervisor.pid("part") != first)
    assert not psutil.pid_exists(first)
    assert supervisor.pid("other") == other


def test_a_stop_that_comes_while_a_part_is_launched_leaves_none_behind(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[subprocess.Popen[bytes]] = []
    launch = subprocess.Popen

    def stopped_meanwhile(*given: Any, **more: Any) -> subprocess.Popen[bytes]:
        launched.append(launch(*given, **more))
        os.kill(os.getpid(), signal.SIGTERM)
        return launched[0]

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(subprocess, "Popen", stopped_meanwhile)
    try:
        module.stop_on_signals()
        with pytest.raises(Stopped):
            supervisor.start(part(STAY))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    supervisor.stop()
    assert launched[0].poll() is not None


def test_a_part_that_only_says_that_it_is_ready_may_be_silent_for_ever(supervisor: Supervisor) -> None:
    quiet = Part("part", [sys.executable, "-c", READY + SPEAKS.format(alive="False")], logged_ready, 0.0)
    supervisor.start(quiet)
    first = supervisor.pid("part")
    for _ in range(20):
        supervisor.mend()
    assert supervisor.pid("part") == first


@pytest.mark.parametrize("look", ["check", "mend"])
def test_a_part_that_asks_for_it_is_started_again(supervisor: Supervisor, tmp_path: Path, look: str) -> None:
    program = ends_once(tmp_path, "sys.exit(os.EX_TEMPFAIL)")
    supervisor.start(part(program), part(STAY, "other"))
    first, other = supervisor.pid("part"), supervisor.pid("other")
    until(getattr(supervisor, look), lambda: supervisor.pid("part") != first)
    assert supervisor.pid("other") == other


@pytest.mark.parametrize("how", ["sys.exit(1)", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_part_that_dies_is_mended_where_that_is_asked_for(
    supervisor: Supervisor, tmp_path: Path, how: str
) -> None:
    supervisor.start(part(ends_once(tmp_path, how)))
    first = supervisor.pid("part")
    until(supervisor.mend, lambda: supervisor.pid("part") != first)


def test_a_part_that_dies_is_named_where_it_is_not(supervisor: Supervisor) -> None:
    supervisor.start(part(STAY))
    os.kill(supervisor.pid("part"), signal.SIGKILL)
    with pytest.raises(PartFailed, match="part ended with status -9"):
        until(supervisor.check, lambda: False)


def test_a_part_that_cannot_live_is_given_up_after_some_starts(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    program = f"{READY}open({str(starts)!r}, 'a').write('x'); raise SystemExit('no camera')"
    supervisor.start(part(program))
    with pytest.raises(PartFailed, match="started 5 times within 60 s to no avail.*no camera"):
        until(supervisor.mend, lambda: False)
    assert starts.read_text() == "x" * (1 + module.RESTARTS)


def test_restarts_of_long_ago_do_not_count(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTARTS_WITHIN_SECONDS", 0.0)
    starts = tmp_path / "starts"
    supervisor.start(part(f"{READY}open({str(starts)!r}, 'a').write('x')"))
    until(supervisor.mend, lambda: len(starts.read_text()) > module.RESTARTS + 2)


def test_a_part_is_not_started_again_at_once(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_SECONDS", 3600.0)
    supervisor.start(part(STAY))
    first = supervisor.pid("part")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: ended(first))
    supervisor.mend()  # sees the end
    supervisor.mend()  # would start it
    assert supervisor.pid("part") == first


def test_what_a_dead_part_left_running_goes_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    child = tmp_path / "child"
    leave = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']);"
        f" open({str(child)!r}, 'w').write(str(child.pid)); os._exit(1)"
    )
    supervisor.start(part(ends_once(tmp_path, leave)))
    first = supervisor.pid("part")
    until(supervisor.mend, lambda: supervisor.pid("part") != first)
    wait_until(lambda: ended(int(child.read_text())))


def ended(pid: int) -> bool:
    """Whether the process is gone; nobody may have asked for its exit status yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_power_cut_leaves_no_part_the_time_to_do_anything(supervisor: Supervisor, tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = (
        "import atexit, signal, sys\n"
        f"atexit.register(lambda: open({str(said)!r}, 'w').write('bye'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + STAY
    )
    supervisor.start(part(program, "one"), part(program, "two"))
    pids = [supervisor.pid(name) for name in ("one", "two")]
    supervisor.kill_all()
    assert all(ended(pid) for pid in pids)
    assert not said.exists()
    supervisor.check()
    supervisor.start(part(STAY, "one"))


def test_a_stop_that_is_asked_for_while_the_parts_end_leaves_none_and_hides_no_reason(
    supervisor: Supervisor,
) -> None:
    answer = f"lambda *_: (os.kill({os.getpid()}, signal.SIGINT), time.sleep(0.3), os._exit(0))"
    last = f"import os, signal, time\nsignal.signal(signal.SIGTERM, {answer})\n{STAY}"
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    module.stop_on_signals()
    try:
        supervisor.start(part(STAY, "first"), part(last, "last"))
        processes = [psutil.Process(process.pid) for process in supervisor._running.values()]
        with pytest.raises(PartFailed, match="the reason"):
            try:
                raise PartFailed("the reason")
            finally:
                supervisor.stop()
        assert not any(process.is_running() for process in processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_a_step_says_is_read_whatever_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    board = BOARDS / "simulated.toml"
    with pytest.raises(PartFailed, match="has no light grün"):
        run_step("scan", "--board", board, "--out", tmp_path, "--lights", "grün")
