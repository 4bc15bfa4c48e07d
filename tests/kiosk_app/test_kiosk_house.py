"""The house-keeping behind the pages: one broken task stops no other, and patients are always forgotten."""

from __future__ import annotations

import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

import kiosk_app
import provisioning
from firmware.capture.client import CLOSE_UP_S, CaptureClient
from hardware.host.patience import waiting_at_most
from kiosk_app.kept import records
from kiosk_app.kept.records_file import LOCKED_S, RecordsHeld
from kiosk_app.patient import app
from kiosk_app.patient.app import PAGE_S
from kiosk_app.patient.journey import PATIENCE_S, State
from kiosk_app.serve_cli import LONGEST_PAGE_S
from sync.kiosk.client import ANSWER_S, OutboxClient
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.scanning import writing
from tests.support.visitor import Visitor, the_session
from tests.support.waiting import unless_held_up, wait_until


def bug(*_args: object, **_kwargs: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("broken", ["sessions.expire", "work.go_on", "courier.run_once"])
def test_one_broken_task_of_the_house_keeping_starves_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    kiosk, stop, done = bench.kiosk, threading.Event(), set()

    def task(name: str) -> Callable[[], None]:
        def work() -> None:
            done.add(name)
            if name == broken:
                bug()

        return work

    tasks = {"sessions.expire": kiosk.sessions, "work.go_on": kiosk.work, "courier.run_once": kiosk.courier}
    for name, part in tasks.items():
        monkeypatch.setattr(part, name.partition(".")[2], task(name))
    thread = threading.Thread(target=kiosk.keep_house, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: done == set(tasks), "each task of the house keeping done once")
        done.clear()
        wait_until(lambda: done == set(tasks), "each task of the house keeping done once")
    finally:
        stop.set()
        thread.join(60)


def test_a_patient_is_forgotten_even_if_the_leaving_goes_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, session = bench.kiosk.sessions.begin()
    session.scan = bench.kiosk.records.create({}, "demo-1")
    monkeypatch.setattr(bench.kiosk.work, "leave", bug)
    with pytest.raises(ZeroDivisionError):
        bench.kiosk.sessions.leave(session)
    assert session.scan is None


@pytest.mark.parametrize("address", ["/", "/here", "/position", "/healthz"])
def test_no_page_waits_for_what_is_done_about_a_session_whose_time_is_up(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    visitor.walk_to("position")
    session, leaving, answered = the_session(bench), threading.Event(), threading.Event()
    end = bench.camera.end

    def end_slowly(scan: str) -> None:
        leaving.set()
        assert answered.wait(60)
        end(scan)

    monkeypatch.setattr(bench.camera, "end", end_slowly)
    session.touched -= PATIENCE_S[State.POSITION] + 1
    house = threading.Thread(target=bench.kiosk.sessions.expire)
    house.start()
    assert leaving.wait(60)
    page = threading.Thread(target=lambda: (visitor.client.get(address), answered.set()))
    page.start()
    page.join(60)
    assert answered.is_set()
    house.join(60)
    assert session.state is State.EXPIRED


def test_who_leaves_waits_for_no_keys(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.walk_to("position")
    session = the_session(bench)
    session.touched -= PATIENCE_S[State.POSITION] + 1
    asked: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records.keyring, "_take", lambda *lock: asked.append(lock))
        assert bench.kiosk.sessions.expire() == 1
    assert (session.state, asked) == (State.EXPIRED, [])
    bench.kiosk.work.go_on()
    assert bench.kiosk.records.scans()[0].state == "abandoned"


def test_the_watchdog_waits_for_longer_than_any_page_may_take() -> None:
    # Beyond its own deadline a page waits for a scan whose pictures are being noted as kept.
    assert PAGE_S + LOCKED_S < LONGEST_PAGE_S
    assert CLOSE_UP_S < PAGE_S


@contextmanager
def silent(path: Path, kind: socket.SocketKind) -> Iterator[None]:
    """A daemon at `path` that takes every question and answers none."""
    path.parent.mkdir(exist_ok=True)
    with closing(socket.socket(socket.AF_UNIX, kind)) as listening:
        listening.bind(str(path))
        listening.listen()
        try:
            yield
        finally:
            path.unlink()


@contextmanager
def a_silent_outbox(bench: Bench) -> Iterator[None]:
    path = bench.state / "run" / "outbox.sock"
    with silent(path, socket.SOCK_STREAM), pytest.MonkeyPatch.context() as patch:
        for asks, outbox in ((bench.kiosk, "outbox"), (bench.kiosk.courier, "_outbox")):
            patch.setattr(asks, outbox, OutboxClient(path))
        yield


@contextmanager
def a_silent_camera(bench: Bench) -> Iterator[None]:
    path = bench.state / "run" / "capture.sock"
    with silent(path, socket.SOCK_SEQPACKET), pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.kiosk, "camera", CaptureClient(path))
        yield


@contextmanager
def a_page_at_work(bench: Bench) -> Iterator[None]:
    """Another page of the same session, which is not done."""
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        with the_session(bench).alone():
            begun.set()
            done.wait(240)

    page = threading.Thread(target=work)
    page.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        done.set()
        page.join(60)


@pytest.mark.parametrize(
    ("place", "held_up", "asks"),
    [
        ("result", lambda bench: bench.kiosk.records.keyring.lock(), "/delete"),
        ("result", writing, "/delete"),
        ("result", lambda bench: bench.kiosk.courier._turn, "/delete"),
        ("result", a_silent_outbox, "/delete"),
        ("result", a_page_at_work, "/delete"),
        ("position", a_silent_camera, "/preview"),
    ],
    ids=["keys", "records", "turn", "outbox", "session", "camera"],
)
def test_whatever_a_page_waits_for_ends_with_the_time_of_the_page(
    visitor: Visitor,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    held_up: Callable[[Bench], AbstractContextManager[object]],
    asks: str,
) -> None:
    # None of the waits ends before the page's time by itself.
    monkeypatch.setattr(records, "ALONE_S", ANSWER_S)

    def ends() -> None:
        visitor.look("/")  # also from the page of a deletion that the round before had done
        visitor.walk_to(place)
        if asks == "/delete":
            visitor.look(asks)
        with held_up(bench), pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "PAGE_S", 0.3)
            began = time.monotonic()
            visitor.client.get(asks) if place == "position" else visitor.tap(asks)
            assert time.monotonic() - began < ANSWER_S / 2

    unless_held_up(ends)


def test_a_page_that_waits_too_long_for_another_of_its_session_says_that_nothing_was_done(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.walk_to("consent")
    with a_page_at_work(bench), pages_wait_briefly():
        page = visitor.tap(consent="agree")
    assert (page.status, page.name) == (503, "kiosk_busy")
    assert the_session(bench).state is State.CONSENT
    assert bench.kiosk.records.scans() == []
    assert visitor.look("/consent").name == "consent"


def test_a_page_waits_for_what_it_sent_until_the_watchdog_has_ended_a_kiosk_that_hangs() -> None:
    script = (Path(kiosk_app.__file__).parent / "patient/static/reach.js").read_text()
    [sends_ms] = re.findall(r"SEND_MS = (\d+);", script)
    unit = Path(provisioning.__file__).parent / "systemd/dermakiosk-app.service"
    [watchdog_s] = re.findall(r"^WatchdogSec=(\d+)s$", unit.read_text(), re.MULTILINE)
    assert int(sends_ms) / 1000 > LONGEST_PAGE_S + int(watchdog_s)


def test_a_page_waits_for_records_no_longer_than_for_keys(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.kiosk.records.path)) as holder:
        holder.execute("BEGIN IMMEDIATE")

        def waits_no_longer() -> None:
            began = time.monotonic()
            with pytest.raises(RecordsHeld), waiting_at_most(0.05):
                bench.kiosk.records.create({}, None)
            assert time.monotonic() - began < LOCKED_S / 2

        unless_held_up(waits_no_longer)
