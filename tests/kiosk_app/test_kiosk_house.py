"""The house-keeping behind the pages: one broken task stops no other, and patients are always forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.support.kiosk_bench import Bench
from tests.support.waiting import wait_until


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
        wait_until(lambda: done == set(tasks))
        done.clear()
        wait_until(lambda: done == set(tasks))
    finally:
        stop.set()
        thread.join(10)


def test_a_patient_is_forgotten_even_if_the_leaving_goes_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, session = bench.kiosk.sessions.begin()
    session.scan = bench.kiosk.records.create({}, "demo-1")
    monkeypatch.setattr(bench.kiosk.work, "leave", bug)
    with pytest.raises(ZeroDivisionError):
        bench.kiosk.sessions.leave(session)
    assert session.scan is None
