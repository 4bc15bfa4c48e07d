"""The picture of a marked spot: asked for again, gone on without, taken too late or not at all."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from firmware.capture.client import CaptureFault
from kiosk_app.patient import app
from kiosk_app.patient.journey import State
from kiosk_app.scanning.analyst import CHECK_TURN_S, Analyst
from kiosk_app.scanning.close_ups import ABOUT_THE_PICTURE, CloseUps
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.spots import go_on_without, mark, sent, start_over, vaulted
from tests.support.visitor import Visitor, the_session
from tests.support.waiting import wait_until


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return bench.with_close_up()


@pytest.mark.parametrize(
    ("reason", "said"),
    [("not_skin", "see your skin well"), ("no_lesion", "see a spot"), ("too_small", "see your skin well")],
)
def test_a_picture_that_says_nothing_is_asked_for_again_kindly(
    reason: str, said: str, visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = [reason]
    mark(visitor, zone="chin")
    assert visitor.tap().name == "close_up_again"
    assert said in visitor.page.text
    assert visitor.tap().name == "close_up"
    assert visitor.tap().name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    assert vaulted(bench) == ["frame.closeup0"]


@pytest.mark.parametrize("reason", sorted(ABOUT_THE_PICTURE))
@pytest.mark.parametrize("tries_again", [False, True])
def test_a_spot_whose_picture_says_nothing_reaches_the_clinician_all_the_same(
    reason: str, tries_again: bool, visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = [reason, reason]
    mark(visitor, zone="chin")
    assert visitor.tap().name == "close_up_again"
    assert "your clinician will look at this spot" in visitor.page.text
    if tries_again:
        assert visitor.tap().name == "close_up"
    assert "Go on without a picture" in visitor.page.text
    go_on_without(visitor, "skip")
    assert visitor.page.name == "spots"
    assert "Your clinician will look at it." in visitor.page.text
    visitor.tap()
    assert 'data-spots="1"' in visitor.walk_to("result").text
    [spot] = sent(bench).findings.spots
    assert (spot.zone, spot.refused, spot.lesion) == ("chin", reason, None)
    assert vaulted(bench) == ["frame.closeup0"]


def test_nobody_hears_of_a_picture_that_was_not_taken(visitor: Visitor, bench: Bench) -> None:
    bench.camera.close_up_fault = CaptureFault("too_dark", "no")
    mark(visitor, zone="chin")
    visitor.tap()
    go_on_without(visitor, "skip")
    assert visitor.page.body["data-say"] == "mark_another"
    bench.camera.close_up_fault = None
    mark(visitor, zone="nose")
    visitor.tap()
    assert visitor.page.body["data-say"] == "spot_taken"
    mark(visitor, zone="forehead")
    go_on_without(visitor, "skip")
    assert visitor.page.body["data-say"] == "mark_another"


def test_a_second_try_that_says_something_takes_the_place_of_the_first(
    visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = ["not_skin"]
    mark(visitor, zone="chin")
    visitor.tap()
    visitor.tap()
    assert visitor.tap().name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    [spot] = sent(bench).findings.spots
    assert (spot.refused, spot.lesion is None) == (None, False)


def test_a_patient_who_leaves_at_a_refused_picture_has_the_spot_looked_at(
    visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = ["no_lesion"]
    mark(visitor, zone="nose")
    assert visitor.tap().name == "close_up_again"
    start_over(visitor)
    [spot] = sent(bench).findings.spots
    assert (spot.zone, spot.refused) == ("nose", "no_lesion")


def test_a_spot_that_the_patient_leaves_out_before_any_picture_is_not_passed_on(
    visitor: Visitor, bench: Bench
) -> None:
    mark(visitor, zone="nose")
    assert "Leave this spot out" in visitor.page.text
    go_on_without(visitor, "skip")
    visitor.tap()
    visitor.walk_to("result")
    assert sent(bench).findings.spots == ()


@pytest.mark.parametrize("code", ["too_dark", "too_blurred"])
def test_a_dark_or_blurred_picture_can_be_gone_on_without(code: str, visitor: Visitor, bench: Bench) -> None:
    bench.camera.close_up_fault = CaptureFault(code, "no")
    mark(visitor, zone="chin")
    assert visitor.tap().name == "close_up_again"
    go_on_without(visitor, "skip")
    assert visitor.page.name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    assert vaulted(bench) == []
    [spot] = sent(bench).findings.spots
    assert (spot.zone, spot.refused, spot.lesion) == ("chin", code, None)


@pytest.mark.parametrize("code", ["close_up_lost", "unavailable", "deadline", "busy"])
def test_without_the_close_up_camera_the_visit_goes_on(code: str, visitor: Visitor, bench: Bench) -> None:
    mark(visitor, zone="nose")
    visitor.tap()
    bench.camera.close_up_fault = CaptureFault(code, "gone")
    mark(visitor, zone="chin")
    assert visitor.client.get("/close_up/preview").status_code == 503
    trouble = visitor.look("/trouble")
    assert "Go on without it" in trouble.text
    visitor.look("/close_up")
    page = visitor.tap()
    assert page.name == "close_up_again"
    assert 'data-lost="yes"' in page.text
    visitor.tap()
    visitor.walk_to("result")
    first, second = sent(bench).findings.spots
    assert (first.zone, first.refused) == ("nose", None)
    assert (second.zone, second.refused, second.lesion) == ("chin", code, None)


@contextmanager
def a_picture_under_way(visitor: Visitor, bench: Bench) -> Iterator[dict[str, str]]:
    """The picture of the marked spot is being taken, by a tap of before; what its page sends."""
    fields = visitor.page.form()["fields"]
    visitor.clock.now += visitor.reads_s
    bench.camera.hold.clear()
    other = visitor.client.application.test_client()
    for cookie in ("dk_session", "dk_form"):
        found = visitor.client.get_cookie(cookie)
        assert found is not None
        other.set_cookie(cookie, found.value)
    taking = threading.Thread(target=lambda: other.post("/close_up", data=fields))
    taking.start()
    session = the_session(bench)
    wait_until(lambda: session.progress.marking.busy, "a close-up being taken")
    try:
        yield fields
    finally:
        bench.camera.hold.set()
        taking.join(60)


def test_a_spot_that_is_left_out_while_its_picture_is_taken_is_not_kept(
    visitor: Visitor, bench: Bench
) -> None:
    mark(visitor, zone="nose")
    with a_picture_under_way(visitor, bench) as fields:
        visitor.client.post("/close_up", data=fields | {"answer": "skip"})
    session = the_session(bench)
    assert session.state is State.SPOTS
    assert session.progress.marking.taken == []


@pytest.mark.parametrize("refused", [None, "too_blurred"])
def test_a_picture_of_a_spot_that_was_left_out_is_not_taken_for_one_of_the_next_spot(
    visitor: Visitor, bench: Bench, refused: str | None
) -> None:
    bench.analyst.refuse_close_ups = [refused] if refused else []
    mark(visitor, zone="nose")
    with a_picture_under_way(visitor, bench) as fields:
        visitor.client.post("/close_up", data=fields | {"answer": "skip"})
        visitor.look("/spots")
        visitor.tap("/spots", answer="", zone="chin")
    session = the_session(bench)
    marking = session.progress.marking
    assert (session.state, marking.spot.zone) == (State.CLOSE_UP, "chin")
    assert (marking.taken, marking.marked, marking.busy) == ([], (), False)


@contextmanager
def a_hanging_check(bench: Bench, folder: Path) -> Iterator[None]:
    """The child that looks at a close-up hangs."""
    program = folder / "child"
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    program.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        yield


@contextmanager
def a_long_measurement(bench: Bench, folder: Path) -> Iterator[None]:
    """Other pictures are measured."""
    with bench.kiosk.close_ups._analyst._turn:  # type: ignore[union-attr]
        yield


@pytest.mark.parametrize("held_up", [a_hanging_check, a_long_measurement])
def test_after_a_slow_camera_a_close_up_is_checked_within_the_time_of_the_page_or_kept_unchecked(
    visitor: Visitor,
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held_up: Callable[[Bench, Path], AbstractContextManager[None]],
) -> None:
    bench.kiosk.close_ups = CloseUps(bench.camera, Analyst("ai-edge-litert"))  # type: ignore[arg-type]
    mark(visitor, zone="nose")
    monkeypatch.setattr(app, "PAGE_S", 2.0)
    bench.camera.hold.clear()
    slow = threading.Timer(0.3, bench.camera.hold.set)
    slow.start()
    with held_up(bench, tmp_path):
        began = time.monotonic()
        visitor.tap()
        assert time.monotonic() - began < CHECK_TURN_S / 2
    slow.join(60)
    [(spot, frame)] = the_session(bench).progress.marking.taken
    assert spot.zone == "nose"
    assert frame is not None


def test_a_close_up_whose_session_is_held_too_long_is_not_kept_and_can_be_taken_again(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark(visitor, zone="nose")
    session, taken = the_session(bench), CloseUps.take
    done = threading.Event()

    def take_beside_another_page(*given: Any) -> Any:
        def work() -> None:
            with session.alone():
                begun.set()
                done.wait(240)

        begun = threading.Event()
        threading.Thread(target=work).start()
        assert begun.wait(60)
        return taken(*given)

    with monkeypatch.context() as patch, pages_wait_briefly():
        patch.setattr(CloseUps, "take", take_beside_another_page)
        try:
            page = visitor.tap()
        finally:
            done.set()
    assert (page.status, page.name) == (503, "kiosk_busy")
    assert (session.state, session.progress.marking.taken) == (State.CLOSE_UP, [])
    visitor.look("/close_up")
    visitor.tap()
    assert len(session.progress.marking.taken) == 1
