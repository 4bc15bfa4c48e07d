"""The patient's pages lead from the language to the end, and nowhere else."""

from __future__ import annotations

import html
import re

import pytest

from kiosk_app.kept.states import ScanState
from kiosk_app.patient.journey import ENDS, PATIENCE_S, STEPS, TABLE, WARNING_S, NotNow, Session, State
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Page, Visitor
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


def test_a_page_out_of_turn_leads_back_to_ones_own(visitor: Visitor) -> None:
    visitor.walk_to("about")
    for address in ("/result", "/scan", "/position", "/done"):
        assert visitor.look(address).name == "about"
    token = visitor.page.form()["fields"]["csrf_token"]
    answer = visitor.client.post(
        "/eyes", data={"csrf_token": token, "eyes": "protected"}, follow_redirects=True
    )
    assert Page(answer).name == "about"


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


def test_a_patient_can_have_the_scan_destroyed(visitor: Visitor, bench: Bench) -> None:
    visitor.walk_to("result")
    latest = bench.kiosk.records.latest()
    assert latest is not None
    assert visitor.look("/delete").name == "delete"
    assert visitor.tap("/delete").name == "deleted"
    assert bench.kiosk.records.scan(latest.id).state == ScanState.SHREDDED
    assert bench.kiosk.vault.items(latest.id) == []
    assert bench.outbox.submitted == {}


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
