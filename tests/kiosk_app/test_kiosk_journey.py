"""The patient's pages: silence never consents, nothing is left behind, every page has a way on."""

from __future__ import annotations

import html
import re
import sqlite3
from datetime import datetime, timezone

import pytest

from firmware.capture.client import CaptureFault
from firmware.line.stamps import ConsentStamp
from kiosk_app.kept.states import ScanState
from kiosk_app.patient import speech
from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import ENDS, PATIENCE_S, STEPS, TABLE, WARNING_S, NotNow, Session, State
from kiosk_app.patient.sessions import LOST_S
from kiosk_app.scanning.progress import LONG_S, Progress
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Page, PatientClock, Visitor, the_scan, the_session
from tests.support.waiting import wait_until
from tests.support.way import WAY

LOOK = "/static/shared/look.css"


def test_the_primary_forms_lead_from_language_to_done(visitor: Visitor, bench: Bench) -> None:
    assert visitor.walk_to_done() == [name for name in WAY if name != "scan"]
    latest = bench.kiosk.records.latest()
    assert latest is not None
    assert latest.state == ScanState.HANDED_OVER
    assert bench.camera.phases() == [("lit", False), ("uv", True)]
    assert bench.camera.captured[1]["uv"].screened is True


def every_page(visitor: Visitor) -> list[Page]:
    pages = [visitor.page]
    for name in ("about", "consent", "light_questions", "position", "eyes", "result"):
        pages.append(visitor.walk_to(name))
    for address in ("/help", "/languages", "/delete", "/trouble", "/nowhere"):
        pages.append(visitor.look(address))
    visitor.look("/")
    pages.append(visitor.tap())
    return pages


def test_every_page_of_a_simulated_kiosk_says_so(visitor: Visitor) -> None:
    for page in every_page(visitor):
        assert "SIMULATED" in page.text, page.name


def test_every_page_has_one_primary_form_and_the_same_ways_out(visitor: Visitor) -> None:
    for page in every_page(visitor):
        assert sum(form["primary"] for form in page.forms) == 1, page.name
        assert page.forms[-1]["action"] == "/start-over", page.name
        assert 'href="/help"' in page.text, page.name
        assert "Ask at the desk" in page.text, page.name
        assert page.inline == [], page.name


def test_every_answer_carries_the_strict_headers(visitor: Visitor) -> None:
    for address in ("/", "/nowhere", "/static/kiosk.js", LOOK, "/healthz"):
        headers = visitor.client.get(address).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert visitor.client.get("/").headers["Cache-Control"] == "no-store"
    assert visitor.client.get(LOOK).headers["Cache-Control"] != "no-store"


def test_a_form_without_its_token_is_refused(visitor: Visitor) -> None:
    answer = visitor.client.post("/language", data={"language": "en"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert visitor.look("/about").name == "language"


def test_a_form_with_an_old_token_leads_a_patient_back_to_their_page_and_decides_nothing(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("consent")
    fields = visitor.page.form()["fields"] | {"csrf_token": "old"}
    visitor.clock.now += visitor.reads_s
    answer = visitor.client.post("/consent", data=fields)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/consent")
    assert bench.kiosk.records.scans() == []


def test_another_host_name_is_refused(visitor: Visitor) -> None:
    assert visitor.client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_there_is_no_picture_and_no_record_before_consent(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("consent")
    assert visitor.client.get("/preview").status_code == 409
    assert bench.camera.previewed == []
    assert bench.kiosk.records.scans() == []


def test_silence_never_consents(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("consent")
    the_session(bench).touched -= PATIENCE_S[State.CONSENT] + 1
    assert visitor.look("/").name == "expired"
    assert bench.kiosk.records.scans() == []
    assert the_session(bench).consent is None


def test_the_page_after_a_refusal_keeps_language_and_size_of_the_letters(visitor: Visitor) -> None:
    visitor.tap(language="de")
    visitor.tap("/text-size", larger="1")
    visitor.walk_to("consent")
    page = visitor.tap("/consent", consent="decline")
    assert page.name == "declined"
    assert '<html lang="de" dir="ltr" data-text="150"' in page.text


@pytest.mark.parametrize("answer", ["decline", "", "yes"])
def test_only_the_agree_button_consents(visitor: Visitor, bench: Bench, answer: str) -> None:
    visitor.walk_to("consent")
    assert visitor.tap("/consent", consent=answer).name == "declined"
    assert bench.kiosk.records.scans() == []


def test_the_consent_record_is_written_before_the_first_preview(visitor: Visitor, bench: Bench) -> None:
    visitor.tap(language="de")
    visitor.walk_to("position")
    (row,) = bench.kiosk.records.scans(ScanState.CONSENTED)
    assert row.consent["language"] == "de"
    assert row.consent["text_version"]
    preview = visitor.client.get("/preview")
    assert preview.mimetype == "image/jpeg"
    assert preview.headers["X-Guidance"] == "hold_still"
    assert bench.camera.previewed == [str(row.id)]


def test_any_answer_but_a_clear_no_is_a_scan_without_uv(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("light_questions")
    visitor.tap("/light_questions", answer="some")
    visitor.walk_to("result")
    assert bench.camera.phases() == [("all", False)]


def test_a_walk_in_is_not_asked_about_uv(visitor: Visitor, bench: Bench) -> None:
    bench.kiosk.reference = lambda: None
    visitor.walk_to("consent")
    assert visitor.tap().name == "position"
    visitor.walk_to("result")
    assert bench.camera.phases() == [("all", False)]


def test_a_page_out_of_turn_leads_back_to_ones_own(visitor: Visitor) -> None:
    visitor.walk_to("about")
    for address in ("/result", "/scan", "/position", "/done"):
        assert visitor.look(address).name == "about"
    token = visitor.page.form()["fields"]["csrf_token"]
    answer = visitor.client.post(
        "/eyes", data={"csrf_token": token, "eyes": "protected"}, follow_redirects=True
    )
    assert Page(answer).name == "about"


def test_the_consent_that_is_written_down_is_that_of_the_tap_that_counted(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.tap(language="de")
    visitor.walk_to("consent")
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        assert visitor.tap("/consent", consent="agree").status == 503
    session = the_session(bench)
    assert (session.consent, session.scan, bench.kiosk.records.scans()) == (None, None, [])
    visitor.look("/languages")
    visitor.tap("/languages", language="es")
    agreed = datetime.now(timezone.utc)
    visitor.tap("/consent", consent="agree")
    consent = the_scan(bench).consent
    assert (consent["language"], session.consent) == ("es", ConsentStamp.from_dict(consent))
    assert session.consent.at >= agreed


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


def test_the_language_can_be_changed_anywhere_and_leaves_with_the_patient(visitor: Visitor) -> None:
    visitor.walk_to("light_questions")
    visitor.look("/languages")
    page = visitor.tap(language="ar")
    assert (page.name, page.html["lang"], page.html["dir"]) == ("light_questions", "ar", "rtl")
    assert visitor.tap("/start-over").html["lang"] == "en"


def test_text_can_be_made_larger_on_the_spot(visitor: Visitor) -> None:
    visitor.walk_to("about")
    sizes = []
    for _ in range(3):
        sizes.append(visitor.tap("/text-size", larger="1").html["data-text"])
    assert sizes == ["150", "200", "100"]
    assert visitor.page.name == "about"


@pytest.mark.parametrize("address", ["/help", "/delete", "/leave", "/trouble", "/result?picture=zones"])
def test_who_asks_for_larger_text_or_another_language_comes_back_to_the_page_that_was_there(
    visitor: Visitor, address: str
) -> None:
    visitor.walk_to("result")
    shown = visitor.look(address).name
    assert visitor.tap("/text-size", larger="1").name == shown
    link = re.search(r'href="(/languages\?[^"]*)"', visitor.page.text)
    assert link is not None
    visitor.look(html.unescape(link[1]))
    page = visitor.tap(language="es")
    assert (page.name, page.html["lang"], page.html["data-text"]) == (shown, "es", "150")
    assert page.form("/text-size")["fields"]["back_to"] == address


@pytest.mark.parametrize(
    "elsewhere", ["//example.com", "https://example.com/help", "/healthz", "/result?a=b"]
)
def test_nobody_is_led_to_what_is_no_page_of_the_patient(visitor: Visitor, elsewhere: str) -> None:
    visitor.walk_to("result")
    assert visitor.tap("/text-size", larger="1", back_to=elsewhere).name == "result"


@pytest.mark.parametrize(
    ("reason", "again"), [("no_face", "Try again"), ("too_dark", "Try again"), ("two_faces", "Try again")]
)
def test_a_refusal_is_a_page_that_says_what_to_do(
    visitor: Visitor, bench: Bench, reason: str, again: str
) -> None:
    bench.analyst.refuse = reason
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(lambda: visitor.progress()["state"] == "failed")
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
    wait_until(lambda: visitor.progress()["stage"] == "measuring")
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
    wait_until(lambda: visitor.progress()["state"] == "failed")
    assert hood in visitor.progress()["sentence"]
    bench.camera.fault = None
    visitor.look(visitor.progress()["next"])
    assert visitor.tap().name == "position"
    assert hood not in visitor.walk_to("result").text


def test_a_result_of_a_board_without_lamps_says_so(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    (scan,) = bench.kiosk.records.scans()
    said = "taken in white light only, that of this room"
    assert said not in visitor.page.text
    bench.kiosk.records.note(scan.id, missing={"dark": "room_lit"})
    assert said in visitor.look("/result").text


def test_a_result_says_why_the_uv_light_went_off(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    (scan,) = bench.kiosk.records.scans()
    said = "The hood was open at the UV picture"
    assert said not in visitor.page.text
    bench.kiosk.records.note(scan.id, missing={"uv365": "shroud_open"})
    assert said in visitor.look("/result").text


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


def test_a_patient_can_have_the_scan_destroyed(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    latest = bench.kiosk.records.latest()
    assert latest is not None
    assert visitor.look("/delete").name == "delete"
    assert visitor.tap("/delete").name == "deleted"
    assert bench.kiosk.records.scan(latest.id).state == ScanState.SHREDDED
    assert bench.kiosk.vault.items(latest.id) == []
    assert bench.outbox.submitted == {}


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


@pytest.mark.parametrize("language", ["de", "es", "ar"])
def test_every_sentence_of_the_way_is_translated(
    visitor: Visitor, language: str, request: pytest.FixtureRequest
) -> None:
    """English words that remain would be texts that the catalogue does not know."""
    visitor.tap(language=language)
    english = re.compile(r"\b(the|your|please|camera|pictures|kiosk|with|you)\b", re.IGNORECASE)
    for name in ("about", "consent", "light_questions", "position", "eyes", "result", "done"):
        page = visitor.walk_to(name)
        words = page.words.replace("Clinic at the Park", "")
        assert not english.findall(words), (name, english.findall(words))


def test_the_table_has_no_dead_end() -> None:
    leads = {state for state, _event in TABLE}
    assert set(State) - leads == set(ENDS)
    assert set(STEPS) <= leads
    assert all(PATIENCE_S[state] >= WARNING_S for state in State)
    assert WARNING_S >= 20
    with pytest.raises(NotNow):
        Session().move("agree")
