"""Marked spots: a board with a close-up camera offers the step, and whatever goes wrong the visit goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from firmware.capture.client import CaptureFault
from hardware.board import BOARDS, load_board
from kiosk_app.kept import keyring
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultFull
from kiosk_app.patient import app
from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import PATIENCE_S, WARNING_S, State
from kiosk_app.scanning.analyst import CHECK_TURN_S, Analyst
from kiosk_app.scanning.close_ups import ABOUT_THE_PICTURE, NOT_KEPT, CloseUps
from kiosk_app.serve_cli import scan_size_mb
from sync.wire.findings.canonical_face import ZONES, inside
from sync.wire.messages import Result
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import LIGHTS, Bench, Clinic
from tests.support.visitor import PatientClock, Visitor, the_scan, the_session
from tests.support.waiting import wait_until
from tests.support.way import WAY_PAST_SPOTS


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return bench.with_close_up()


def _vaulted(bench: Bench) -> list[str]:
    items = bench.kiosk.vault.items(the_scan(bench).id)
    return [name for name in items if name.startswith("frame.closeup")]


def _sent(bench: Bench) -> Result:
    wait_until(lambda: bench.outbox.submitted)
    [(_, envelope)] = bench.outbox.submitted.values()
    message = bench.clinic.open(envelope)
    assert isinstance(message, Result)
    return message


def _mark(visitor: Visitor, **place: str) -> None:
    visitor.walk_to("spots")
    visitor.tap("/spots", answer="", **place)


def test_a_patient_without_a_spot_goes_on_with_one_tap(visitor: Visitor, bench: Bench) -> None:
    assert visitor.walk_to_done() == [name for name in WAY_PAST_SPOTS if name != "scan"]
    assert bench.camera.close_ups == 0
    assert _sent(bench).schema_version == 1


def test_a_board_without_the_camera_never_offers_it(tmp_path: Path, clinic: Clinic) -> None:
    plain = Bench(clinic.enrol(tmp_path / "plain"), clinic)
    clock = PatientClock()
    visitor = Visitor(create_app(plain.kiosk, clock).test_client(), clock)
    assert visitor.walk_to("result").name == "result"
    assert visitor.client.get("/close_up/preview").status_code == 409
    plain.end_scans()


def test_a_marked_spot_is_photographed_kept_and_sealed(visitor: Visitor, bench: Bench) -> None:
    _mark(visitor, zone="left_cheek")
    assert visitor.page.name == "close_up"
    assert visitor.client.get("/close_up/preview").mimetype == "image/jpeg"
    assert visitor.tap().name == "spots"
    assert "Thank you. Your clinician will look at it." in visitor.page.text
    visitor.tap()
    page = visitor.walk_to("result")
    assert 'data-spots="1"' in page.text
    assert _vaulted(bench) == ["frame.closeup0"]
    message = _sent(bench)
    [spot] = message.findings.spots
    assert (message.schema_version, spot.frame, spot.zone, spot.x) == (2, "closeup0", "left_cheek", None)
    assert spot.lesion is not None and spot.lesion.area_mm2 == 24.2


@pytest.mark.parametrize("zone", sorted(ZONES))
def test_a_tap_on_the_drawn_face_finds_its_zone(zone: str, visitor: Visitor, bench: Bench) -> None:
    x, y = inside(zone)
    _mark(visitor, x=f"{x:.4f}", y=f"{y:.4f}")
    spot = the_session(bench).progress.marking.spot
    assert spot.zone == zone
    assert (spot.x, spot.y) == pytest.approx((x, y), abs=1e-3)


@pytest.mark.parametrize(("x", "y"), [("1.9", "1.9"), ("nan", "0"), ("left", "0"), ("", "")])
def test_a_tap_beside_the_face_marks_nothing(x: str, y: str, visitor: Visitor) -> None:
    _mark(visitor, x=x, y=y)
    assert visitor.page.name == "spots"


def test_a_visit_takes_three_spots_at_most(visitor: Visitor, bench: Bench) -> None:
    for zone in ("nose", "chin", "forehead"):
        _mark(visitor, zone=zone)
        visitor.tap()
    assert "as many as one visit can take" in visitor.page.text
    answers = [form["fields"].get("answer") for form in visitor.page.forms if form["action"] == "/spots"]
    assert answers == ["none", "take_back"]
    again = visitor.page.form()["fields"] | {"zone": "nose", "answer": ""}
    visitor.clock.now += visitor.reads_s
    assert visitor.client.post("/spots", data=again).status_code == 303
    assert visitor.look("/spots").name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    assert _vaulted(bench) == [f"frame.closeup{n}" for n in range(3)]
    assert [spot.zone for spot in _sent(bench).findings.spots] == ["nose", "chin", "forehead"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [("not_skin", "see your skin well"), ("no_lesion", "see a spot"), ("too_small", "see your skin well")],
)
def test_a_picture_that_says_nothing_is_asked_for_again_kindly(
    reason: str, said: str, visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = [reason]
    _mark(visitor, zone="chin")
    assert visitor.tap().name == "close_up_again"
    assert said in visitor.page.text
    assert visitor.tap().name == "close_up"
    assert visitor.tap().name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    assert _vaulted(bench) == ["frame.closeup0"]


def _go_on_without(visitor: Visitor, answer: str) -> None:
    """Press what leads on without a picture, on the page that says why there is none."""
    [other] = [f for f in visitor.page.forms if f["fields"].get("answer") == answer]
    visitor.clock.now += visitor.reads_s
    visitor.page = type(visitor.page)(
        visitor.client.post(other["action"], data=other["fields"], follow_redirects=True)
    )


@pytest.mark.parametrize("reason", sorted(ABOUT_THE_PICTURE))
@pytest.mark.parametrize("tries_again", [False, True])
def test_a_spot_whose_picture_says_nothing_reaches_the_clinician_all_the_same(
    reason: str, tries_again: bool, visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = [reason, reason]
    _mark(visitor, zone="chin")
    assert visitor.tap().name == "close_up_again"
    assert "your clinician will look at this spot" in visitor.page.text
    if tries_again:
        assert visitor.tap().name == "close_up"
    assert "Go on without a picture" in visitor.page.text
    _go_on_without(visitor, "skip")
    assert visitor.page.name == "spots"
    assert "Your clinician will look at it." in visitor.page.text
    visitor.tap()
    assert 'data-spots="1"' in visitor.walk_to("result").text
    [spot] = _sent(bench).findings.spots
    assert (spot.zone, spot.refused, spot.lesion) == ("chin", reason, None)
    assert _vaulted(bench) == ["frame.closeup0"]


def _take_back(visitor: Visitor) -> None:
    [form] = [f for f in visitor.page.forms if f["fields"].get("answer") == "take_back"]
    visitor.clock.now += visitor.reads_s
    for _tap in range(2):  # the second one is of a page that is gone
        visitor.client.post("/spots", data=form["fields"])
    visitor.look("/spots")


def test_a_marked_spot_that_is_taken_back_is_neither_kept_nor_sent(visitor: Visitor, bench: Bench) -> None:
    for zone in ("nose", "chin", "forehead"):
        _mark(visitor, zone=zone)
        visitor.tap()
    _take_back(visitor)
    assert (visitor.page.body["data-taken"], visitor.page.body["data-say"]) == ("2", "mark_another")
    _mark(visitor, zone="left_cheek")
    visitor.tap()
    assert visitor.page.body["data-say"] == "spot_taken"
    visitor.tap()
    assert "You marked 3 spots." in visitor.walk_to("result").words
    assert [spot.zone for spot in _sent(bench).findings.spots] == ["nose", "chin", "left_cheek"]
    assert _vaulted(bench) == [f"frame.closeup{n}" for n in range(3)]


def test_who_takes_the_only_spot_back_is_asked_as_at_first(visitor: Visitor, bench: Bench) -> None:
    bench.analyst.refuse_close_ups = ["no_lesion"]
    _mark(visitor, zone="nose")
    visitor.tap()
    _go_on_without(visitor, "skip")
    _take_back(visitor)
    assert (visitor.page.body["data-taken"], visitor.page.body["data-say"]) == ("0", "mark_spot")
    assert "Is there a spot" in visitor.page.words and "back" not in visitor.page.words
    visitor.tap()
    assert "You marked" not in visitor.walk_to("result").words
    assert _sent(bench).findings.spots == ()


def test_nobody_hears_of_a_picture_that_was_not_taken(visitor: Visitor, bench: Bench) -> None:
    bench.camera.close_up_fault = CaptureFault("too_dark", "no")
    _mark(visitor, zone="chin")
    visitor.tap()
    _go_on_without(visitor, "skip")
    assert visitor.page.body["data-say"] == "mark_another"
    bench.camera.close_up_fault = None
    _mark(visitor, zone="nose")
    visitor.tap()
    assert visitor.page.body["data-say"] == "spot_taken"
    _mark(visitor, zone="forehead")
    _go_on_without(visitor, "skip")
    assert visitor.page.body["data-say"] == "mark_another"


def test_a_second_try_that_says_something_takes_the_place_of_the_first(
    visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = ["not_skin"]
    _mark(visitor, zone="chin")
    visitor.tap()
    visitor.tap()
    assert visitor.tap().name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    [spot] = _sent(bench).findings.spots
    assert (spot.refused, spot.lesion is None) == (None, False)


def _start_over(visitor: Visitor) -> None:
    """Leave in the middle of the marking, and have the scan kept."""
    assert visitor.tap("/start-over").name == "leave"
    visitor.tap()


def test_a_patient_who_leaves_at_a_refused_picture_has_the_spot_looked_at(
    visitor: Visitor, bench: Bench
) -> None:
    bench.analyst.refuse_close_ups = ["no_lesion"]
    _mark(visitor, zone="nose")
    assert visitor.tap().name == "close_up_again"
    _start_over(visitor)
    [spot] = _sent(bench).findings.spots
    assert (spot.zone, spot.refused) == ("nose", "no_lesion")


def test_a_spot_that_the_patient_leaves_out_before_any_picture_is_not_passed_on(
    visitor: Visitor, bench: Bench
) -> None:
    _mark(visitor, zone="nose")
    assert "Leave this spot out" in visitor.page.text
    _go_on_without(visitor, "skip")
    visitor.tap()
    visitor.walk_to("result")
    assert _sent(bench).findings.spots == ()


@pytest.mark.parametrize("code", ["too_dark", "too_blurred"])
def test_a_dark_or_blurred_picture_can_be_gone_on_without(code: str, visitor: Visitor, bench: Bench) -> None:
    bench.camera.close_up_fault = CaptureFault(code, "no")
    _mark(visitor, zone="chin")
    assert visitor.tap().name == "close_up_again"
    _go_on_without(visitor, "skip")
    assert visitor.page.name == "spots"
    visitor.tap()
    visitor.walk_to("result")
    assert _vaulted(bench) == []
    [spot] = _sent(bench).findings.spots
    assert (spot.zone, spot.refused, spot.lesion) == ("chin", code, None)


@pytest.mark.parametrize("code", ["close_up_lost", "unavailable", "deadline", "busy"])
def test_without_the_close_up_camera_the_visit_goes_on(code: str, visitor: Visitor, bench: Bench) -> None:
    _mark(visitor, zone="nose")
    visitor.tap()
    bench.camera.close_up_fault = CaptureFault(code, "gone")
    _mark(visitor, zone="chin")
    assert visitor.client.get("/close_up/preview").status_code == 503
    trouble = visitor.look("/trouble")
    assert "Go on without it" in trouble.text
    visitor.look("/close_up")
    page = visitor.tap()
    assert page.name == "close_up_again"
    assert 'data-lost="yes"' in page.text
    visitor.tap()
    visitor.walk_to("result")
    first, second = _sent(bench).findings.spots
    assert (first.zone, first.refused) == ("nose", None)
    assert (second.zone, second.refused, second.lesion) == ("chin", code, None)


def test_a_patient_who_leaves_at_the_question_has_been_scanned_with_the_spots_so_far(
    visitor: Visitor, bench: Bench
) -> None:
    _mark(visitor, zone="nose")
    visitor.tap()
    scan = the_scan(bench).id
    _start_over(visitor)
    assert [spot.zone for spot in _sent(bench).findings.spots] == ["nose"]
    wait_until(lambda: bench.kiosk.records.scan(scan).state == ScanState.HANDED_OVER)


def test_a_silent_patient_is_forgotten_and_the_face_is_still_measured(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("spots")
    session = the_session(bench)
    assert PATIENCE_S[State.SPOTS] > WARNING_S
    session.touched -= PATIENCE_S[State.SPOTS] + 1
    assert bench.kiosk.sessions.expire() == 1
    assert session.state is State.EXPIRED
    assert session.progress.marking.taken == []
    assert _sent(bench).findings.spots == ()


def no_room_for(bench: Bench, monkeypatch: pytest.MonkeyPatch, *items: str) -> None:
    """Later items of a scan whose names begin so find the disk full."""
    add = bench.kiosk.vault.add

    def full(scan: UUID, dek: bytes, item: str, data: bytes) -> int:
        if item.startswith(items):
            raise VaultFull("full")
        return add(scan, dek, item, data)

    monkeypatch.setattr(bench.kiosk.vault, "add", full)


def test_a_full_disk_costs_the_close_ups_and_the_clinician_looks_at_the_spots_as_the_patient_read(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for(bench, monkeypatch, "frame.closeup")
    _mark(visitor, zone="nose")
    assert "Your clinician will look at it." in visitor.tap().words
    visitor.tap()
    page = visitor.walk_to("result")
    assert "You marked 1 spot. Show it to your clinician." in page.words
    assert "could not keep" not in page.words
    [spot] = _sent(bench).findings.spots
    assert (spot.zone, spot.lesion, spot.refused) == ("nose", None, NOT_KEPT)


@pytest.mark.parametrize("misfit", range(3))
def test_a_close_up_that_cannot_be_kept_costs_no_other(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, misfit: int
) -> None:
    zones = ("nose", "chin", "forehead")
    no_room_for(bench, monkeypatch, f"frame.closeup{misfit}")
    for zone in zones:
        _mark(visitor, zone=zone)
        visitor.tap()
    visitor.tap()
    assert "You marked 3 spots." in visitor.walk_to("result").words
    assert _vaulted(bench) == [f"frame.closeup{n}" for n in range(3) if n != misfit]
    found = [(spot.zone, spot.refused) for spot in _sent(bench).findings.spots]
    assert found == [(zone, NOT_KEPT if n == misfit else None) for n, zone in enumerate(zones)]


def test_a_patient_whose_spots_could_not_be_kept_at_all_reads_that_nobody_knows_of_them(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for(bench, monkeypatch, "frame.closeup", "capture")
    _mark(visitor, zone="nose")
    visitor.tap()
    visitor.tap()
    page = visitor.walk_to("result")
    assert "You marked 1 spot. Show it to your clinician." in page.words
    assert "your clinician knows of it only from you" in page.words
    assert _sent(bench).findings.spots == ()


def test_deleting_the_scan_shreds_the_close_ups_too(visitor: Visitor, bench: Bench) -> None:
    _mark(visitor, zone="nose")
    visitor.tap()
    visitor.tap()
    visitor.walk_to("result")
    assert _vaulted(bench) == ["frame.closeup0"]
    visitor.look("/delete")
    visitor.tap("/delete")
    assert _vaulted(bench) == []
    assert the_scan(bench).state == ScanState.SHREDDED


def test_no_page_of_the_step_names_a_disease_or_a_chance(visitor: Visitor, bench: Bench) -> None:
    texts = []
    _mark(visitor, zone="nose")
    texts.append(visitor.page.words)
    texts.append(visitor.tap().words)
    visitor.tap()
    texts.append(visitor.walk_to("result").words)
    for word in ("melanoma", "naevus", "cancer", "benign", "mole", "bcc", "80 %"):
        assert not any(word in text.lower() for text in texts), word


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
    wait_until(lambda: session.progress.marking.busy)
    try:
        yield fields
    finally:
        bench.camera.hold.set()
        taking.join(60)


def test_a_spot_that_is_left_out_while_its_picture_is_taken_is_not_kept(
    visitor: Visitor, bench: Bench
) -> None:
    _mark(visitor, zone="nose")
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
    _mark(visitor, zone="nose")
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
    _mark(visitor, zone="nose")
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
    _mark(visitor, zone="nose")
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


def test_after_a_power_cut_at_the_question_the_face_is_measured(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("spots")
    again = bench.again()
    again.work.recover()
    assert again.work.go_on() == 1
    assert again.records.scan(the_scan(bench).id).state == ScanState.HANDED_OVER
    assert _sent(bench).findings.spots == ()


def test_a_marked_spot_is_kept_also_while_another_process_holds_the_keys(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOCKED_S", 0.05)
    _mark(visitor, zone="left_cheek")
    visitor.tap()
    with bench.kiosk.records.keyring.lock():
        visitor.tap()
        wait_until(lambda: not bench.kiosk.work._at_work)
        assert _vaulted(bench) == ["frame.closeup0"]
    assert bench.kiosk.work.go_on() == 1
    assert [spot.zone for spot in _sent(bench).findings.spots] == ["left_cheek"]


def test_there_is_room_for_a_scan_only_where_there_is_room_for_its_close_ups() -> None:
    board = load_board(BOARDS / "simulated.toml")
    assert board.close_up is not None
    board = board.model_copy(
        update={"close_up": board.close_up.model_copy(update={"width": 4096, "height": 4096})}
    )
    without = board.model_copy(update={"close_up": None})
    assert scan_size_mb(board, LIGHTS) - scan_size_mb(without, LIGHTS) == 3 * 48
