"""Whatever goes wrong is a page that says what to do."""

from __future__ import annotations

import re
import sqlite3

import pytest

from firmware.capture.client import CaptureFault
from kiosk_app.kept.states import ScanState
from kiosk_app.patient import speech
from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import PATIENCE_S, State
from kiosk_app.scanning.progress import LONG_S, Progress
from tests.support.kiosk_bench import Bench
from tests.support.visitor import PatientClock, Visitor, the_scan, the_session
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    ("reason", "again"), [("no_face", "Try again"), ("too_dark", "Try again"), ("two_faces", "Try again")]
)
def test_a_refusal_is_a_page_that_says_what_to_do(
    visitor: Visitor, bench: Bench, reason: str, again: str
) -> None:
    bench.analyst.refuse = reason
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(lambda: visitor.progress()["state"] == "failed", "the scan failed")
    assert visitor.progress()["reason"] == reason
    page = visitor.look(visitor.progress()["next"])
    assert page.body["data-state"] == "failed"
    assert again in page.text
    bench.analyst.refuse = None
    assert visitor.tap().name == "position"
    visitor.walk_to("result")
    kept = [row.state for row in bench.kiosk.records.scans()]
    assert kept == [ScanState.REFUSED, ScanState.HANDED_OVER]


def test_a_scan_page_drawn_while_the_scan_fails_still_asks_how_far_it_is(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.walk_to("position")
    bench.camera.hold.clear()
    visitor.tap()
    said_at = speech.said_at

    def fails_meanwhile(progress: Progress) -> str:
        said = said_at(progress)
        progress.fail("moved")
        return said

    monkeypatch.setattr(speech, "said_at", fails_meanwhile)
    page = visitor.look("/scan")
    assert (page.body["data-state"], page.body["data-say"]) == ("working", "look")
    assert "data-reason" not in page.body
    page = visitor.look(visitor.progress()["next"])
    assert (page.body["data-state"], page.body["data-reason"]) == ("failed", "moved")
    bench.camera.hold.set()


def test_a_patient_is_told_when_the_measuring_takes_long_and_may_go_and_keep_the_scan(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("eyes")
    bench.analyst.go.clear()
    visitor.tap()
    wait_until(lambda: visitor.progress()["stage"] == "measuring", "the measurement begun")
    assert visitor.progress()["sentence"] == "Measuring"
    the_session(bench).progress.measured_since -= LONG_S
    told = visitor.progress()
    assert told["sentence"].startswith("This takes longer than usual.")
    said = visitor.look("/scan").text
    assert (
        "This takes longer than usual." in said and "kept" not in said.split("<main>")[1].split("</main>")[0]
    )
    assert visitor.tap("/start-over").name == "leave"
    assert visitor.tap("/start-over", scan="keep").name == "done"
    bench.analyst.go.set()


def test_a_camera_that_fails_is_a_page_with_a_way_on(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("position")
    bench.camera.fault = CaptureFault("unavailable", "internal words")
    answer = visitor.client.get("/preview")
    assert answer.status_code == 503
    assert "internal words" not in answer.get_data(as_text=True)
    assert visitor.look("/trouble").name == "trouble"
    bench.camera.fault = None
    assert visitor.tap().name == "position"


@pytest.mark.parametrize(("language", "hood"), [("en", "hood"), ("de", "Haube"), ("es", "campana")])
def test_a_hood_opened_in_the_scan_is_said_in_the_patients_language(
    visitor: Visitor, bench: Bench, language: str, hood: str
) -> None:
    visitor.tap(language=language)
    visitor.walk_to("position")
    bench.camera.fault = CaptureFault("shroud_open", "internal words")
    visitor.tap()
    wait_until(lambda: visitor.progress()["state"] == "failed", "the scan failed")
    assert hood in visitor.progress()["sentence"]
    bench.camera.fault = None
    visitor.look(visitor.progress()["next"])
    assert visitor.tap().name == "position"
    assert hood not in visitor.walk_to("result").text


def test_after_a_restart_the_patient_reads_a_sentence_and_has_a_way_on(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("position")
    bench.kiosk.sessions._sessions.clear()
    page = visitor.look("/position")
    assert (page.status, page.name) == (410, "restarted")
    assert visitor.client.get("/scan/progress").get_json() == {"next": "/"}
    assert visitor.tap().name == "language"
    assert visitor.tap().name == "about"


def test_a_bug_of_ours_is_a_page_with_a_number_for_the_log(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug() -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(bench.kiosk, "closed_because", bug)
    page = visitor.look("/")
    assert (page.status, page.name) == (500, "failed")
    ticket = re.search(r"If someone asks: (\w+)", page.text)
    assert ticket is not None
    assert ticket[1] in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database or disk is full"), RuntimeError("can't start new thread")]
)
def test_a_scan_that_cannot_begin_leaves_a_page_and_a_session_that_expires(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    visitor.walk_to("position")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.work, "start", refuse)
        page = visitor.tap()
    assert (page.status, page.name) == (500, "failed")
    assert page.form()["action"] == "/start-over"
    assert visitor.look("/").name == "position"
    the_session(bench).touched -= PATIENCE_S[State.POSITION] + 1
    assert visitor.look("/").name == "expired"
    assert the_session(bench).scan is None
    bench.kiosk.work.go_on()
    assert the_scan(bench).state == ScanState.ABANDONED


def test_a_full_outbox_closes_the_kiosk_and_says_so(visitor: Visitor, bench: Bench) -> None:
    bench.outbox.accepting = False
    page = visitor.look("/")
    assert (page.name, page.body["data-reason"]) == ("closed", "outbox_full")
    bench.outbox.there = False  # unknown is not full
    assert visitor.look("/").name == "language"


def test_the_first_page_knows_whether_it_would_be_another_now(
    visitor: Visitor, bench: Bench, clock: PatientClock
) -> None:
    def would_be() -> str:
        said: str = visitor.client.get("/first").get_json()["first"]
        return said

    of_open = visitor.look("/").body["data-first"]
    assert would_be() == of_open
    bench.outbox.accepting = False
    of_closed = visitor.look("/").body["data-first"]
    assert would_be() == of_closed != of_open
    bench.outbox.accepting = True
    other = Visitor(visitor.client.application.test_client(), clock)
    other.walk_to("about")
    assert would_be() not in (of_open, of_closed)
    other.tap("/start-over")
    assert would_be() == of_open
    assert create_app(bench.kiosk).test_client().get("/first").get_json()["first"] != of_open  # a new start


def test_a_page_of_a_patient_does_not_lead_to_the_first_one_by_itself(visitor: Visitor) -> None:
    visitor.walk_to("about")
    assert "data-first" not in visitor.page.body
    assert "data-first" not in visitor.look("/help").body


def test_a_kiosk_without_room_closes_before_anyone_sits_down(visitor: Visitor, bench: Bench) -> None:
    bench.kiosk.room_for_a_scan_mb = 1 << 40
    assert visitor.look("/").body["data-reason"] == "no_room"
