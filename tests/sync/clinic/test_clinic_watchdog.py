"""The clinic's daemons say that they live as long as their own loop turns, and no longer."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import OperationalError

from kiosk_app.demo.supervisor import free_port
from sync.clinic import cli, server
from sync.clinic.receiving import broker as broker_module
from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.ingest import Arrival, IngestWorker
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.opening_together import Taken
from sync.clinic.receiving.tap import Tap
from sync.clinic.store import patience
from sync.clinic.store.database import Database
from sync.clinic.store.engine import BUSY_S, DEADLINES
from sync.clinic.store.notify import Notifier
from sync.clinic.work import jobs
from sync.clinic.work import machines as machines_module
from sync.clinic.work.machines import LONGEST_SWEEP_S, MachinesWorker
from sync.clinic.work.worker import Worker
from sync.wire import topics
from tests.support import unhurried
from tests.support.ingesting import Clinic, running
from tests.support.systemd import Systemd, heard_by, listening_systemd
from tests.support.waiting import wait_until

DAEMONS = {
    "ingest": (),
    "open": (),
    "serve": ("--port", "0"),
    "work": (),
    "tap": ("--out", "OUT"),
}
WATCHDOG_S = 0.5
HANGS_S = 30.0


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    """What listens to the daemons that a test runs in its own process."""
    with listening_systemd(WATCHDOG_S) as listening:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        for name, value in listening.environment.items():
            monkeypatch.setenv(name, value)
        yield listening


def test_every_command_that_goes_on_until_it_is_told_to_stop_is_among_these() -> None:
    lasting = {
        name
        for name, command in cli.clinic.commands.items()
        if "_stop_on_signal()" in inspect.getsource(command.callback or cli)
    }
    assert lasting == DAEMONS.keys()


@pytest.mark.parametrize("command", DAEMONS)
def test_a_daemon_says_that_it_works_that_it_lives_and_that_it_stops(
    clinic: Clinic, tmp_path: Path, command: str
) -> None:
    options = [word.replace("OUT", str(tmp_path / "out")) for word in DAEMONS[command]]
    argv = [*unhurried.CLINIC, command, *options]
    with listening_systemd(WATCHDOG_S) as systemd:
        process = subprocess.Popen(
            [*argv, "--state", str(clinic.state)], env=heard_by(systemd), stderr=subprocess.DEVNULL
        )
        try:
            systemd.await_words()
            assert systemd.words[0] == "READY=1"
            process.send_signal(signal.SIGSTOP)
            wait_until(
                lambda: "T" in Path(f"/proc/{process.pid}/stat").read_text().split()[2],
                "the daemon's process stopped",
            )
            before = systemd.alive()
            time.sleep(3 * WATCHDOG_S)
            assert systemd.alive() == before
            process.send_signal(signal.SIGCONT)
            systemd.await_words()
            process.send_signal(signal.SIGTERM)
            assert process.wait(unhurried.STOP_S) == 0
            assert "STOPPING=1" in systemd.hear()
        finally:
            process.kill()
            process.wait()


# As after a SIGCONT, when whichever thread is first takes what has been sent meanwhile.
BY_ANOTHER_THREAD = """
import signal, sys, threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
from kiosk_app.cli import main
main()
"""


@pytest.mark.parametrize("command", DAEMONS)
def test_a_daemon_stops_whichever_of_its_threads_the_signal_comes_to(
    clinic: Clinic, tmp_path: Path, command: str
) -> None:
    options = [word.replace("OUT", str(tmp_path / "out")) for word in DAEMONS[command]]
    argv = [sys.executable, "-c", BY_ANOTHER_THREAD, "clinic", command, *options]
    with listening_systemd(WATCHDOG_S) as systemd:
        process = subprocess.Popen(
            [*argv, "--state", str(clinic.state)], env=heard_by(systemd), stderr=subprocess.DEVNULL
        )
        try:
            systemd.await_words()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


class Hanging:
    """A step of a loop that can be made to hang, as one that waits for what never comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str) -> None:
        self._hangs, self._over, self._reached = (threading.Event() for _ in range(3))
        step = getattr(owner, name)

        def perhaps(*given: Any, **more: Any) -> Any:
            if self._hangs.is_set():
                self._reached.set()
                self._over.wait(HANGS_S)
            return step(*given, **more)

        monkeypatch.setattr(owner, name, perhaps)

    @contextmanager
    def hanging(self, begin: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Within, the step hangs; `begin` is what leads to it, where no loop does."""
        self._hangs.set()
        try:
            begin()
            assert self._reached.wait(HANGS_S)
            yield
        finally:
            self._hangs.clear()
            self._over.set()


def falls_silent(systemd: Systemd) -> None:
    time.sleep(WATCHDOG_S)
    before = systemd.alive()
    time.sleep(2 * WATCHDOG_S)
    assert systemd.alive() == before


def an_opener(clinic: Clinic) -> Opener:
    return Opener(clinic.database, [clinic.kiosk.opening])


def an_ingest_worker(clinic: Clinic) -> IngestWorker:
    folder = clinic.state / "ingest"
    return IngestWorker(clinic.database, folder, Address.read(folder))


def a_tap(clinic: Clinic) -> Tap:
    role = clinic.state / "auditor"
    return Tap(role, Address.read(role), clinic.state / "out")


def a_worker(clinic: Clinic) -> Worker:
    return Worker(clinic.database, {"kind": lambda *_: None}, poll_s=0.05)


LOOPS: dict[str, tuple[Callable[[Clinic], Any], type[Any], str]] = {
    "open": (an_opener, Opener, "open_next"),
    "ingest": (an_ingest_worker, IngestWorker, "_send_receipts"),
    "work": (a_worker, Worker, "look_at_the_clock"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_hangs_falls_silent_though_its_process_lives(
    clinic: Clinic, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, owner, step = LOOPS[name]
    hanging = Hanging(monkeypatch, owner, step)
    with running(make(clinic).run):
        systemd.await_words()
        with hanging.hanging():
            falls_silent(systemd)
        systemd.await_words()


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_waits_for_a_database_that_is_away_is_alive(
    clinic: Clinic, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, owner, step = LOOPS[name]
    failed = threading.Event()

    def away(*_: object) -> None:
        failed.set()
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(owner, step, away)
    monkeypatch.setattr(patience, "STEP_S", 0.02)
    monkeypatch.setattr(patience.Patience.__init__, "__defaults__", (HANGS_S, HANGS_S))
    with running(make(clinic).run):
        assert failed.wait(HANGS_S)
        systemd.await_words(more=5)


@pytest.mark.parametrize("make", [an_ingest_worker, a_tap])
def test_whoever_cannot_hear_the_broker_any_more_falls_silent(
    clinic: Clinic, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, make: Callable[[Clinic], Any]
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    daemon = make(clinic)
    client = daemon._client
    with running(daemon.run):
        wait_until(client.is_connected, "the client connected to the broker")
        systemd.await_words()

        def die(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(broker_module, "TURN_S", 3.0)
        client.on_subscribe = die
        client.subscribe("clinic/v1/nothing")
        wait_until(lambda: not client.carries(), "a thread that turns no more")
        assert client.is_connected(), "nobody else has noticed"
        falls_silent(systemd)


@pytest.mark.parametrize("make", [an_ingest_worker, a_tap])
def test_whoever_cannot_dial_the_broker_any_more_falls_silent(
    clinic: Clinic, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, make: Callable[[Clinic], Any]
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    daemon = make(clinic)
    client = daemon._client
    with running(daemon.run):
        wait_until(client.is_connected, "the client connected to the broker")
        systemd.await_words()

        def die() -> None:
            raise MemoryError

        client.reconnect = die
        client.socket().shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not client.is_connected(), "the client disconnected from the broker")
        wait_until(lambda: not client.carries(), "a thread that is gone")
        falls_silent(systemd)


def test_pages_are_served_as_long_as_none_of_them_hangs(
    sqlite: Database, tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LONGEST_PAGE_S", 0.2)
    hanging = Hanging(monkeypatch, Database, "reading")
    port = free_port()

    def serve(stop: threading.Event) -> None:
        server.serve_pages(sqlite, tmp_path, "127.0.0.1", port, behind_tls=False, stop=stop)

    def ask() -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=HANGS_S).close()

    with running(serve):
        systemd.await_words()
        ask()
        asking = threading.Thread(target=ask)
        with hanging.hanging(asking.start):
            falls_silent(systemd)
        asking.join(HANGS_S)
        systemd.await_words()


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a loop does, in its order: "alive" each time that it says so, and what a test adds."""
    steps: list[str] = []
    monkeypatch.setattr(Notifier, "alive", lambda _: steps.append("alive"))
    return steps


def test_each_message_of_a_backlog_is_opened_between_two_words(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, course: list[str]
) -> None:
    keys = [(clinic.kiosk.id, uuid4()) for _ in range(5)]
    monkeypatch.setattr(opener_module, "open_together", lambda *_: Taken(len(keys), keys))
    monkeypatch.setattr(Opener, "_open_alone", lambda *_: course.append("one"))
    an_opener(clinic).open_next(len(keys))
    assert course == ["alive", "one"] * len(keys) + ["alive"]


def test_a_message_that_the_database_does_not_take_and_what_tells_whether_it_takes_any_are_two_steps(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, course: list[str]
) -> None:
    def away(*_: object, **__: object) -> None:
        course.append("one")
        raise OperationalError("SELECT", {}, Exception("away"))

    opener = an_opener(clinic)
    monkeypatch.setattr(opener._alone, "open", away)
    monkeypatch.setattr(opener, "_takes_writing", lambda _: course.append("probe"))
    with pytest.raises(OperationalError):
        opener._open_alone((clinic.kiosk.id, uuid4()))
    assert course == ["one", "alive", "probe"]


def test_each_payload_that_is_stored_alone_is_stored_between_two_words(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, course: list[str]
) -> None:
    def take(_: object, session: object, checked: list[object]) -> list[str]:
        if len(checked) > 1:
            raise ValueError("one of them")
        course.append("one")
        return ["dropped"]

    monkeypatch.setattr(IngestWorker, "_take", take)
    worker, topic = an_ingest_worker(clinic), topics.parse(topics.up(clinic.kiosk.id, "result"))
    worker._store([Arrival(-1, mid, 1, topic, b"payload", False) for mid in range(5)])
    assert course == ["alive", "one"] * 5 + ["alive"]


def test_each_job_is_done_between_two_words(sqlite: Database, course: list[str]) -> None:
    for key in ("a", "b", "c"):
        added(sqlite, key)
    Worker(sqlite, {"kind": lambda *_: course.append("one")}).do_some()
    assert course == ["alive", "one"] * 3


def added(database: Database, key: str) -> None:
    with database.writing() as session:
        jobs.add(session, "kind", key)


def given(systemd: Systemd) -> float:
    """For how long systemd waits for a word just now, in seconds."""
    said = [word.partition("=")[2] for word in systemd.hear() if word.startswith("WATCHDOG_USEC=")]
    assert systemd.words[-1] == "WATCHDOG=1", "systemd begins to wait anew"
    return int(said[-1]) / 1e6 if said else WATCHDOG_S


def test_a_job_is_given_its_lease_and_then_the_watchdog_waits_as_before(
    sqlite: Database, systemd: Systemd
) -> None:
    allowed: list[float] = []
    added(sqlite, "a")
    worker = Worker(sqlite, {"kind": lambda *_: allowed.append(given(systemd))}, poll_s=0.05)
    with running(worker.run):
        wait_until(lambda: allowed, "the job given its time")
        systemd.await_words()
        assert (allowed, given(systemd)) == ([jobs.LEASE.total_seconds()], WATCHDOG_S)


def test_a_job_among_many_machines_is_given_its_lease_and_no_longer(
    postgresql: Database, systemd: Systemd
) -> None:
    begun, done = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        done.wait(HANGS_S)

    added(postgresql, "a")
    worker = MachinesWorker(postgresql, {"kind": hang}, lease=timedelta(seconds=3), sweep_s=0.1)
    with running(worker.run):
        try:
            assert begun.wait(HANGS_S)
            systemd.await_words()
            wait_until(
                lambda: machines_module._age(worker._doing_since) > 3, "the job at work for three seconds"
            )
            falls_silent(systemd)
        finally:
            done.set()
        systemd.await_words()


def test_many_machines_are_swept_as_long_as_the_sweeping_does_not_hang(
    postgresql: Database, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines_module, "LONGEST_SWEEP_S", 0.5)
    hanging = Hanging(monkeypatch, MachinesWorker, "sweep")
    worker = MachinesWorker(postgresql, {}, sweep_s=0.1)
    with running(worker.run):
        systemd.await_words()
        with hanging.hanging():
            wait_until(
                lambda: machines_module._age(worker._sweeping_since) > 0.5, "a sweep that takes too long"
            )
            falls_silent(systemd)
        systemd.await_words()


def test_a_daemon_that_nobody_watches_says_nothing_and_another_process_is_not_spoken_for() -> None:
    Notifier({}).alive()
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1"}).alive()
    with listening_systemd(WATCHDOG_S) as systemd:
        other = Notifier(systemd.environment | {"WATCHDOG_PID": "1"})
        unwatched = Notifier({"NOTIFY_SOCKET": systemd.environment["NOTIFY_SOCKET"]})
        for notifier in (other, unwatched):
            notifier.alive()
            with notifier.long_step(HANGS_S):
                notifier.alive()
            notifier.close()
            notifier.alive()
        assert systemd.hear() == []
        ours = Notifier(systemd.environment | {"WATCHDOG_PID": str(os.getpid())})
        for _ in range(100):
            ours.alive()
        assert systemd.hear() == ["WATCHDOG=1"]
        with ours.long_step(WATCHDOG_S / 2):
            assert systemd.hear() == ["WATCHDOG=1"], "no longer than the watchdog waits anyway"
        ours.close()


def test_the_times_are_longer_than_what_is_waited_for() -> None:
    gone = DEADLINES["connect_timeout"] + DEADLINES["tcp_user_timeout"] / 1000
    assert gone + BUSY_S + server.STATEMENT_S < server.LONGEST_PAGE_S
    assert 2 * gone < LONGEST_SWEEP_S
