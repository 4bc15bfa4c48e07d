"""The demo's supervisor: who is started again, who is not, and when it gives up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hardware.board import BOARDS
from kiosk_app.demo import supervisor as module
from kiosk_app.demo.supervisor import Part, PartFailed, Stopped, Supervisor, logged_ready, run_step
from provisioning.authority import Authority
from tests.support.mosquitto import running_broker
from tests.support.waiting import wait_until

READY = 'print(\'{"event": "ready"}\', flush=True)\n'
STAY = READY + "import time; time.sleep(60)"


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(module, "RESTART_S", 0.02)
    started = Supervisor(tmp_path / "logs")
    yield started
    started.stop()


def part(program: str, name: str = "part") -> Part:
    return Part(name, [sys.executable, "-c", program], logged_ready)


def until(supervisor_does: Callable[[], None], question: Callable[[], bool], what: str) -> None:
    def look() -> bool:
        supervisor_does()
        return question()

    wait_until(look, what)


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
    speaks = Part("part", [sys.executable, "-c", READY + SPEAKS.format(alive="True")], logged_ready, 60.0)
    supervisor.start(speaks, part(STAY, "other"))
    first, other = supervisor.pid("part"), supervisor.pid("other")
    # It has been heard once it may be silent for no longer: only then it is stopped.
    heartbeats = supervisor._heartbeats
    until(
        supervisor.mend,
        lambda: heartbeats._until["part"] < time.monotonic() + 60.0,
        "the part's heartbeat heard",
    )
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(first).status() == psutil.STATUS_STOPPED, "the part's process stopped")
    assert heartbeats.silent() == []
    supervisor.mend()
    assert supervisor.pid("part") == first, "it may be silent for a minute"
    heartbeats._until["part"] = time.monotonic()  # the minute is over
    until(supervisor.mend, lambda: supervisor.pid("part") != first, "the part started again")
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


@pytest.mark.parametrize("speaks", [STAY, READY + SPEAKS.format(alive="False")])
def test_a_part_that_hangs_before_its_first_word_is_started_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, speaks: str
) -> None:
    supervisor.start(Part("part", [sys.executable, "-c", speaks], logged_ready, 0.1))
    first = supervisor.pid("part")
    supervisor.mend()
    assert not ended(first), "a start takes longer than a turn of a loop"
    monkeypatch.setattr(module, "START_S", 0.1)
    supervisor.kill("part")
    supervisor.start(Part("part", [sys.executable, "-c", speaks], lambda _: True, 0.1))
    second = supervisor.pid("part")
    until(supervisor.mend, lambda: supervisor.pid("part") != second, "the part started again")


@pytest.mark.parametrize("is_done", [True, False])
def test_a_part_that_announces_a_long_step_is_given_its_time_and_no_more(
    supervisor: Supervisor, tmp_path: Path, is_done: bool
) -> None:
    step = f"""
import pathlib, time
from sync.clinic.store.notify import Notifier
notifier, done = Notifier(), pathlib.Path({str(tmp_path / "done")!r})
notifier.alive()
with notifier.long_step(600.0):
    while not done.exists():
        time.sleep(0.01)
time.sleep(240)
"""
    supervisor.start(Part("part", [sys.executable, "-c", READY + step], logged_ready, 60.0))
    first, until_when = supervisor.pid("part"), supervisor._heartbeats._until
    until(
        supervisor.mend,
        lambda: until_when.get("part", 0.0) > time.monotonic() + 120.0,
        "the part given more time",
    )
    if is_done:
        (tmp_path / "done").touch()
        until(
            supervisor.mend, lambda: until_when["part"] < time.monotonic() + 60.0, "the part's more time over"
        )
        assert supervisor.pid("part") == first
    else:
        until_when["part"] = time.monotonic()  # all of its time is over
        until(supervisor.mend, lambda: supervisor.pid("part") != first, "the part started again")


def test_a_part_that_says_nothing_of_itself_is_asked_and_started_again_when_it_answers_no_more(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.02)
    monkeypatch.setattr(module, "START_S", 0.1)
    asked: list[bool] = []
    silent = {"one": False, "other": False}

    def question(name: str) -> Callable[[], bool]:
        def answers() -> bool:
            asked.append(silent[name])
            return not silent[name]

        return answers

    program = [sys.executable, "-c", STAY]
    supervisor.start(*(Part(name, program, lambda _: True, 0.3, question(name)) for name in silent))
    first = {name: supervisor.pid(name) for name in silent}
    until(supervisor.mend, lambda: len(asked) > 100, "a hundred questions to the other part")
    assert {name: supervisor.pid(name) for name in silent} == first, "both may be silent for ever"
    silent["one"] = True
    until(supervisor.mend, lambda: supervisor.pid("one") != first["one"], "the part started again")
    assert supervisor.pid("other") == first["other"]


def test_one_question_without_an_answer_does_not_end_a_part(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.0)
    answers = [True]
    busy = Part("part", [sys.executable, "-c", STAY], logged_ready, 60.0, lambda: answers[0])
    supervisor.start(busy)
    first = supervisor.pid("part")
    for answers[0] in (False, True):
        supervisor.mend()
        assert ("part" in supervisor._heartbeats._until) is not answers[0]
    assert supervisor.pid("part") == first


def test_a_broker_that_hangs_greets_nobody_though_its_port_accepts(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker:
        question = module.greets(broker.port, broker.configuration.with_name("ca.crt"))
        assert question()
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            assert module.accepts(broker.port)(b"")
            assert not question()
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert question()
        Authority.create(tmp_path / "other", "Another clinic")
        stranger = module.greets(broker.port, tmp_path / "other" / "root.crt")
        assert stranger(), "another start mends no certificate"
    assert not question()


@pytest.mark.parametrize("look", ["check", "mend"])
def test_a_part_that_asks_for_it_is_started_again(supervisor: Supervisor, tmp_path: Path, look: str) -> None:
    program = ends_once(tmp_path, "sys.exit(os.EX_TEMPFAIL)")
    supervisor.start(part(STAY, "other"))
    supervisor.start(part(program))  # alone: it may have ended, and begun again, while another is waited for
    first, other = supervisor.pid("part"), supervisor.pid("other")
    until(getattr(supervisor, look), lambda: supervisor.pid("part") != first, "the part started again")
    assert supervisor.pid("other") == other


@pytest.mark.parametrize("how", ["sys.exit(1)", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_part_that_dies_is_mended_where_that_is_asked_for(
    supervisor: Supervisor, tmp_path: Path, how: str
) -> None:
    supervisor.start(part(ends_once(tmp_path, how)))
    first = supervisor.pid("part")
    until(supervisor.mend, lambda: supervisor.pid("part") != first, "the part started again")


def test_a_part_that_dies_is_named_where_it_is_not(supervisor: Supervisor) -> None:
    supervisor.start(part(STAY))
    os.kill(supervisor.pid("part"), signal.SIGKILL)
    with pytest.raises(PartFailed, match="part ended with status -9"):
        until(supervisor.check, lambda: False, "the supervisor giving up")


def test_a_part_that_cannot_live_is_given_up_after_some_starts(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    program = f"{READY}open({str(starts)!r}, 'a').write('x'); raise SystemExit('no camera')"
    supervisor.start(part(program))
    with pytest.raises(PartFailed, match="started 5 times within 60 s to no avail.*no camera"):
        until(supervisor.mend, lambda: False, "the supervisor giving up")
    assert starts.read_text() == "x" * (1 + module.RESTARTS)


def test_restarts_of_long_ago_do_not_count(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTARTS_WITHIN_S", 0.0)
    starts = tmp_path / "starts"
    supervisor.start(part(f"{READY}open({str(starts)!r}, 'a').write('x')"))
    until(
        supervisor.mend,
        lambda: len(starts.read_text()) > module.RESTARTS + 2,
        "more starts than the supervisor allows at once",
    )


def test_a_part_is_not_started_again_at_once(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_S", 3600.0)
    supervisor.start(part(STAY))
    first = supervisor.pid("part")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: ended(first), "the first process ended")
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
    until(supervisor.mend, lambda: supervisor.pid("part") != first, "the part started again")
    wait_until(lambda: ended(int(child.read_text())), "what the dead part had started ended")


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
