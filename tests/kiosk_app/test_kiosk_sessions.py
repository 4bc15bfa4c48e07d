"""One patient at a time: when a session ends, who gives way, and that nothing is left behind."""

from __future__ import annotations

import pytest

from kiosk_app.kept.states import ScanState
from kiosk_app.patient.journey import PATIENCE_S, WARNING_S, State
from kiosk_app.patient.sessions import LOST_S
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Page, Visitor, the_scan, the_session


def test_nobody_is_warned_that_a_page_without_a_patient_ends(visitor: Visitor, bench: Bench) -> None:
    """It would chime all night at an empty kiosk."""
    visitor.walk_to("about")
    assert visitor.page.body["data-warning"] == str(round(WARNING_S))
    visitor.walk_to("done")
    assert visitor.page.body["data-warning"] == "0"
    the_session(bench).touched -= PATIENCE_S[State.DONE] + 1
    assert (visitor.look("/").name, visitor.page.body["data-warning"]) == ("language", "0")


def test_start_over_forgets_the_patient(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("position")
    scan = bench.kiosk.records.scans()[0].id
    assert visitor.tap("/start-over").name == "language"
    bench.kiosk.work.go_on()
    assert bench.kiosk.records.scan(scan).state == ScanState.ABANDONED
    assert bench.camera.ended == [str(scan)]  # the preview's light goes off now
    assert the_session(bench).consent is None


def test_a_late_session_is_wiped_and_its_result_stays_private(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    assert visitor.client.get("/result/zones.png").status_code == 200
    the_session(bench).touched -= PATIENCE_S[State.RESULT] + 1
    assert visitor.look("/result").name == "expired"
    assert visitor.client.get("/result/zones.png").status_code == 404
    assert the_session(bench).scan is None


def test_a_tap_extends_the_time_and_polling_does_not(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("position")
    session = the_session(bench)
    for _ in range(12):
        session.touched -= PATIENCE_S[State.POSITION] - 5
        visitor.client.get("/preview")
        assert session.left() < WARNING_S
        token = visitor.page.form()["fields"]["csrf_token"]
        left = visitor.client.post("/touch", headers={"X-CSRFToken": token}).get_json()["left"]
        assert left == PATIENCE_S[State.POSITION]


def test_a_second_session_cannot_see_the_first_ones_result(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    assert visitor.client.application is not None
    the_session(bench).heard -= LOST_S + 1  # its browser is gone, so another may begin
    other = Visitor(visitor.client.application.test_client(), visitor.clock)
    other.walk_to("about")
    assert other.client.get("/result/zones.png").status_code == 404
    assert other.look("/result").name == "about"


@pytest.mark.parametrize("where", ["consent", "position", "result"])
def test_nobody_who_begins_throws_a_patient_out(visitor: Visitor, bench: Bench, where: str) -> None:
    visitor.walk_to(where)
    assert visitor.client.application is not None
    for _ in range(5):
        other = visitor.client.application.test_client()
        assert Page(other.get("/")).name == "another_patient"
        assert other.post("/language", data={"language": "en"}).status_code in (303, 409)
    assert visitor.look("/").name == where


def test_a_browser_that_is_gone_gives_way_and_its_patient_is_forgotten(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("consent")
    visitor.tap()
    gone = the_session(bench)
    gone.heard -= LOST_S + 1
    assert visitor.client.application is not None
    Visitor(visitor.client.application.test_client(), visitor.clock).walk_to("about")
    assert (gone.consent, gone.scan) == (None, None)
    assert len(bench.kiosk.sessions._sessions) == 1
    bench.kiosk.work.go_on()
    assert the_scan(bench).state == ScanState.ABANDONED


def test_a_page_that_is_only_shown_keeps_the_kiosk_but_not_the_session(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("about")
    session = the_session(bench)
    session.heard = session.touched = session.clock() - 5
    touched = session.touched
    assert visitor.client.get("/here").get_json() == {"state": "about"}
    assert (session.heard > touched, session.touched) == (True, touched)


def test_the_kiosk_tells_for_how_long_no_page_was_shown_of_a_session_or_of_none(
    visitor: Visitor, bench: Bench
) -> None:
    assert visitor.client.application is not None
    for client, state in ((visitor.client.application.test_client(), None), (visitor.client, "about")):
        if state:
            visitor.walk_to(state)
        bench.kiosk.shown_at -= 100
        assert client.get("/healthz").get_json()["silent_s"] >= 100
        client.get("/about")
        assert client.get("/healthz").get_json()["silent_s"] >= 100
        assert client.get("/here").get_json() == {"state": state}
        assert client.get("/healthz").get_json()["silent_s"] < 100
