"""What is sent from a page that nobody can have read yet is no answer: the server's side of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from kiosk_app import patient
from kiosk_app.kept.states import ScanState
from kiosk_app.patient.journey import Session, State
from kiosk_app.patient.page import COOKIE
from kiosk_app.web.showings import HARMLESS, READ_S, SAFE_METHODS
from tests.support.kiosk_bench import Bench
from tests.support.standing import DECIDES, PLACES, stand
from tests.support.visitor import Page, Visitor, the_session

# Where a tap lands that does not count: the page's name.
NAMES = {place: re.split(", | ", place)[0] for place in PLACES}
# Answers that put the same page again: the work on the scan goes on, or the question stands.
LEAD_BACK = {("scan", "/scan"), ("leave", "/start-over"), ("leave, unreadable", "/start-over")}
# Templates that others are made of, and pages of faults, which lead to the start.
NO_PLACES = {"base", "forms", "closed", "failed", "restarted"}
PLACES_WITH_A_PATIENT = sorted(set(PLACES) - {"language"})


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return bench.with_close_up()


@pytest.fixture
def session(visitor: Visitor, bench: Bench) -> Session:
    visitor.tap()
    return the_session(bench)


def test_there_is_a_place_before_every_page_that_asks() -> None:
    pages = {page.stem: page.read_text() for page in Path(patient.__file__).parent.glob("templates/*.html")}
    asks = {name for name, page in pages.items() if re.search(r"{{ (primary|second)\(|<form", page)}
    assert asks - set(NAMES.values()) == NO_PLACES
    assert {name for name, page in pages.items() if "data-apart" in page} <= set(DECIDES)


def what_is_known(session: Session, bench: Bench) -> tuple[object, ...]:
    kept = [(row.id, row.state) for row in bench.kiosk.records.scans()]
    return (session.turn, session.state, session.language, session.scan, session.consent, kept)


def asking(page: Page) -> list[dict[str, object]]:
    return [form for form in page.forms if form["action"] not in HARMLESS]


def test_every_address_that_changes_something_waits_or_says_why_it_need_not(
    client: FlaskClient, visitor: Visitor, bench: Bench, session: Session
) -> None:
    changing = {
        rule.rule
        for rule in client.application.url_map.iter_rules()
        if set(rule.methods or ()) - SAFE_METHODS
    }
    assert set(HARMLESS) <= changing
    assert all(reason.endswith(".") for reason in HARMLESS.values())
    token = visitor.page.form()["fields"]["csrf_token"]
    for place in PLACES_WITH_A_PATIENT:
        stand(bench, session, place)
        before = what_is_known(session, bench)
        for address in changing - set(HARMLESS):
            assert "<" not in address
            assert client.post(address, data={"csrf_token": token}).status_code == 303
            assert what_is_known(session, bench) == before, (place, address)


@pytest.mark.parametrize("place", PLACES_WITH_A_PATIENT)
def test_an_answer_counts_from_when_its_page_can_be_read(
    place: str, visitor: Visitor, bench: Bench, session: Session
) -> None:
    address = stand(bench, session, place)
    [cookie] = bench.kiosk.sessions._sessions
    for nth in range(len(asking(visitor.look(address)))):
        stand(bench, session, place)
        visitor.client.set_cookie(COOKIE, cookie)  # starting over takes it away
        page, known = visitor.look(address), what_is_known(session, bench)
        form = asking(page)[nth]
        sent = visitor.clock.now
        for after in (0.0, 0.1, 0.25, 0.4, 0.7, READ_S - 0.01):
            visitor.clock.now = sent + after
            again = Page(visitor.client.post(form["action"], data=form["fields"], follow_redirects=True))
            assert (again.status, again.name) == (200, NAMES[place]), (form["action"], after)
            assert what_is_known(session, bench) == known, (form["action"], after)
        visitor.clock.now = sent + READ_S + 0.001
        fields = form["fields"] | {"zone": "chin"}  # of the spots, a button's
        assert visitor.client.post(form["action"], data=fields).status_code == 303
        leads_back = (place, form["action"]) in LEAD_BACK and "scan" not in fields  # that one keeps the scan
        assert (session.turn == known[0]) == leads_back, form["action"]


def test_an_answer_that_does_not_count_leaves_the_picture_that_was_looked_at(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("spots")
    visitor.tap()
    visitor.walk_to("result")
    visitor.look("/result?picture=zones")
    visitor.reads_s = 0.2
    visitor.tap()
    assert (visitor.page.name, "/result/zones.png" in visitor.page.text) == ("result", True)


def old_form(visitor: Visitor, bench: Bench, session: Session, place: str) -> dict[str, str]:
    fields: dict[str, str] = visitor.look(stand(bench, session, place)).form()["fields"]
    visitor.clock.now += 60
    return fields


def test_a_form_of_an_earlier_question_is_no_answer_to_a_later_one(
    visitor: Visitor, bench: Bench, session: Session
) -> None:
    fields = old_form(visitor, bench, session, "eyes")
    stand(bench, session, "eyes again")
    visitor.client.post("/eyes", data=fields)
    assert (session.state, session.progress.answers.empty()) == (State.EYES, True)


def test_a_form_in_another_language_is_no_answer(visitor: Visitor, bench: Bench, session: Session) -> None:
    fields = old_form(visitor, bench, session, "consent")
    session.language = "de"
    visitor.client.post("/consent", data=fields)
    assert (session.state, session.consent) == (State.CONSENT, None)


def test_a_form_of_another_page_is_no_answer_even_after_a_long_time(
    visitor: Visitor, bench: Bench, session: Session
) -> None:
    fields = old_form(visitor, bench, session, "result")
    visitor.client.post("/delete", data=fields)
    assert bench.kiosk.records.scan(session.scan).state != ScanState.SHREDDED  # type: ignore[arg-type]


def test_a_form_of_another_patient_is_no_answer(visitor: Visitor, bench: Bench, session: Session) -> None:
    fields = old_form(visitor, bench, session, "consent")
    bench.kiosk.sessions.leave(session)
    session.state = State.CONSENT
    visitor.client.post("/consent", data=fields)
    assert (session.state, session.consent) == (State.CONSENT, None)


@pytest.mark.parametrize("stamp", ["", "x", "WyIvZGVsZXRlIl0.x", "é" * 500])
def test_a_stamp_that_is_not_ours_leads_to_the_patients_own_page(
    stamp: str, visitor: Visitor, bench: Bench, session: Session
) -> None:
    fields = old_form(visitor, bench, session, "consent")
    answer = visitor.client.post("/consent", data=fields | {"showing": stamp})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert Page(visitor.client.get("/", follow_redirects=True)).name == "consent"


def test_a_page_that_is_loaded_anew_is_read_anew(visitor: Visitor, bench: Bench, session: Session) -> None:
    address = stand(bench, session, "consent")
    visitor.look(address)
    visitor.clock.now += 30
    visitor.look(address)
    visitor.reads_s = 0.3
    assert visitor.tap().name == "consent"
    visitor.reads_s = READ_S + 0.001
    assert visitor.tap().name == "light_questions"
