"""What a patient wants to read or to do is in reach, in a small window too, and each page is up to date."""

from __future__ import annotations

from contextlib import closing

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Route, expect

from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import PATIENCE_S, State
from kiosk_app.patient.pages import COOKIE, TEXT_SIZES
from kiosk_app.scanning.close_ups import CloseUps
from sync.wire.findings.canonical_face import inside
from tests.support.browser import (
    DRAWN,
    TALL,
    WIDE,
    pass_time,
    patient,
    read_on,
    still,
    stop_clock,
    wait_for_answers,
    wait_for_each_answer,
)
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import PLACE, PatientAt
from tests.support.serving import running_server
from tests.support.standing import DECIDES, stand, with_a_kept_scan
from tests.support.waiting import wait_until

PRIMARY = "form[data-primary] button.primary"
PLACED = """() => (({ x, y }) => [x.value, y.value])(document.querySelector("[data-place]").elements)"""
# A screen of ours at a zoom of 133, 150 and 200 per cent.
ZOOMED = [(960, 600), (864, 540), (640, 400), (810, 1440), (540, 960)]
ASKS = """() => {
  const [text, more] = [document.querySelector("main"), document.querySelector("[data-more]")];
  const [question, answer] = [text.querySelector("h1"), document.querySelector(".act .button")]
    .map(element => element.getBoundingClientRect());
  const hides = getComputedStyle(text).overflowY !== "visible" && text.scrollHeight > text.clientHeight + 8;
  const bottom = hides ? text.getBoundingClientRect().bottom : innerHeight;
  const asked = question.top >= 0 && question.bottom <= bottom;
  return { asked: asked || answer.top >= innerHeight, told: more.hidden !== hides };
}"""


@pytest.mark.parametrize("size", [TALL, WIDE, *ZOOMED], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_page_that_decides_shows_its_question_and_says_that_there_is_more_to_read(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int]
) -> None:
    """In German, whose words are the longest."""
    page, session = patient_at(size, scripts=True)
    for name in DECIDES:
        for text_size in TEXT_SIZES if size in (TALL, WIDE) else (100,):
            page.goto(address + stand(bench, session, name, "de", text_size))
            wait_for_answers(page)
            wait_until(
                lambda: page.evaluate(ASKS) == {"asked": True, "told": True}, f"{name} at {text_size} %"
            )


def test_the_arrow_leads_to_the_end_of_what_is_to_be_read(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    page, session = patient_at(WIDE, scripts=True)
    page.goto(address + stand(bench, session, "consent", "de", 200))
    wait_for_answers(page)
    arrow = page.locator("[data-more]")
    expect(arrow).to_be_visible()
    for _ in range(20):
        if arrow.is_hidden():
            break
        before = page.evaluate("document.querySelector('main').scrollTop")
        arrow.click()
        page.wait_for_function("before => document.querySelector('main').scrollTop > before", arg=before)
        page.evaluate(DRAWN)
    expect(arrow).to_be_hidden()
    expect(page.locator("main li").last).to_be_in_viewport()


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize(("place", "no"), [("consent", "declined"), ("light_questions", "position")])
def test_what_has_to_be_read_to_its_end_is_agreed_to_only_from_there(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int], place: str, no: str
) -> None:
    """A tap before leads on in the text; a no counts at once."""
    page, session = patient_at(size, scripts=True)
    page.goto(address + stand(bench, session, place, "de", 200))
    wait_for_answers(page)
    text, taps = page.locator("main"), 0
    while page.locator("html").get_attribute("data-read") != "yes":
        before = text.evaluate("main => main.scrollTop")
        page.click(PRIMARY)
        page.wait_for_function("before => document.querySelector('main').scrollTop > before", arg=before)
        page.evaluate(DRAWN)
        taps += 1
    assert (session.state, taps > 0) == (State(place), True)
    read_on(page)
    text.evaluate("main => main.scrollTo(0, 0)")  # what was read may be looked at again
    page.click(PRIMARY)
    expect(page.locator("body")).not_to_have_attribute("data-page", place)
    assert session.state is not State(place)

    page.goto("about:blank")
    page.goto(address + stand(bench, session, place, "de", 200))
    wait_for_answers(page)
    page.click(".act form:not([data-primary]) button")
    expect(page.locator("body")).to_have_attribute("data-page", no)


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_the_arrow_lies_on_no_letter(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    """Wherever the text stands that scrolls beneath."""
    page, session = patient_at(size, scripts=True)
    for name in DECIDES[:2]:
        page.goto(address + stand(bench, session, name, language, 200))
        wait_for_answers(page)
        arrow = page.locator("[data-more] button")
        expect(arrow).to_be_visible()
        arrow.evaluate("arrow => { arrow.style.visibility = 'hidden'; }")  # then what it lies on is seen
        for down in range(0, 90, 15):
            page.evaluate("down => document.querySelector('main').scrollTo(0, down)", down)
            page.evaluate(DRAWN)
            if (box := arrow.bounding_box()) is None:  # the end
                break
            picture = np.frombuffer(page.screenshot(clip=box), np.uint8)
            colours = np.unique(cv2.imdecode(picture, cv2.IMREAD_COLOR).reshape(-1, 3), axis=0)
            assert len(colours) == 1, (name, down)


# Of a page with a picture: what of it is cut off, by the edge of the text or by the strip below that.
CUT = """() => {
  const [text, more] = [document.querySelector("main"), document.querySelector("[data-more]")];
  const edge = (more.hidden ? text : more).getBoundingClientRect()[more.hidden ? "bottom" : "top"];
  return [...document.querySelectorAll(".drawing.large, .preview")]
    .map(picture => [picture.className.baseVal ?? picture.className, picture.getBoundingClientRect()])
    .filter(([, at]) => at.height && (at.top < text.getBoundingClientRect().top || at.bottom > edge + 1))
    .map(([name, at]) => `${name} ${at.top}..${at.bottom} of ${edge}`);
}"""
WITH_A_PICTURE = (
    "position",
    "close_up",
    "close_up_again",
    "scan that failed",
    "scan that cannot be read",
    "trouble",
    "done",
)


@pytest.mark.parametrize("size", [TALL, WIDE, (1440, 900)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("language", ["de", "es", "ar"])
def test_beside_larger_letters_no_picture_is_cut_off(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    """And what a camera sees stays in sight to the end of the text."""
    bench.kiosk.close_ups = CloseUps(bench.camera, bench.analyst)  # type: ignore[arg-type]
    page, session = patient_at(size, scripts=True)
    for name in WITH_A_PICTURE:
        for text_size in TEXT_SIZES[1:]:
            page.goto("about:blank")  # or the page before would ask for its camera still
            page.goto(address + stand(bench, session, name, language, text_size))
            wait_for_answers(page)
            page.evaluate(DRAWN)
            assert page.evaluate(CUT) == [], (name, text_size)
            if page.locator(".preview").count():
                page.evaluate("document.querySelector('main').scrollTo(0, 9999)")
                page.evaluate(DRAWN)
                assert page.evaluate(CUT) == [], (name, text_size, "the end")


@pytest.mark.parametrize(
    "tapped", [PRIMARY, ".act form:not([data-primary]) button", "footer button", "footer a"]
)
def test_a_camera_is_to_be_held_still_only_while_the_kiosk_takes_the_picture(
    browser: Browser, bench: Bench, tapped: str
) -> None:
    app = create_app(bench.with_close_up().kiosk)
    token, session = bench.kiosk.sessions.begin()
    with running_server(app) as server, closing(patient(browser)) as context:
        address = f"http://127.0.0.1:{server.effective_port}"
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
        page = context.new_page()
        page.goto(address + stand(bench, session, "close_up"))
        wait_for_answers(page)
        page.route("**/healthz", lambda route: route.abort())
        page.click(tapped)
        expect(page.locator("#one-moment h2")).to_be_visible()
        expect(page.locator("#one-moment").get_by_text("Ask at the desk")).to_be_visible()
        expect(page.locator("#one-moment").get_by_text("Hold it still")).to_be_hidden()
        expect(page.locator("body")).to_have_attribute("data-page", "close_up")


def test_a_first_page_that_nobody_touches_looks_again_whether_scans_are_taken(
    browser: Browser, address: str, bench: Bench
) -> None:
    with closing(still(browser)) as context:
        page = context.new_page()
        stop_clock(page)
        page.goto(address)
        for unlicensed, name in (("for research only", "closed"), (None, "language")):
            bench.unlicensed = unlicensed
            pass_time(page, 50_000)
            page.keyboard.press("Shift")
            pass_time(page, 50_000)
            assert page.evaluate("document.body.dataset.page") != name
            pass_time(page, 15_000)
            expect(page.locator("body")).to_have_attribute("data-page", name)


@pytest.mark.parametrize("broken", [False, True])
def test_a_first_page_that_would_be_the_same_is_left_to_who_reads_it(
    browser: Browser, address: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    def bug() -> None:
        raise RuntimeError("bug")

    with closing(still(browser)) as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        stop_clock(page)
        page.goto(address)
        if broken:  # a page of a fault would lead nowhere by itself
            monkeypatch.setattr(bench.kiosk, "closed_because", bug)

        def is_asked_again() -> bool:
            pass_time(page, 5000)
            return asked.count(f"{address}/first") > 2

        wait_until(is_asked_again, "the kiosk to be asked more than once")
        assert page.evaluate("document.body.dataset.page") == "language"
        assert asked.count(f"{address}/") == 1


@pytest.mark.parametrize("parked", ["/nowhere", "/help", "/trouble"])
def test_a_page_before_which_nobody_is_any_more_leads_to_the_first_one_but_not_who_reads_it(
    browser: Browser, address: str, parked: str
) -> None:
    with closing(still(browser)) as context:
        page = context.new_page()
        stop_clock(page)
        page.goto(address + parked)
        assert page.evaluate("document.body.dataset.page") != "language"
        pass_time(page, 280_000)
        page.keyboard.press("Shift")
        pass_time(page, 280_000)
        assert page.evaluate("document.body.dataset.page") != "language"
        pass_time(page, 25_000)
        expect(page.locator("body")).to_have_attribute("data-page", "language")


def test_the_end_of_the_time_asks_the_kiosk_once_not_at_each_second(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    page, session = patient_at(TALL, scripts=True)
    asked: list[Route] = []
    page.route("**/healthz", lambda route: asked.append(route))
    stand(bench, session, "about")
    session.touched -= PATIENCE_S[State.ABOUT] - 1
    stop_clock(page)
    wait_for_each_answer(page)
    page.goto(f"{address}/about")

    def is_asked() -> bool:
        pass_time(page, 500)
        return bool(asked)

    wait_until(is_asked, "the kiosk to be asked")
    pass_time(page, 5000)  # five more would be asked, one for each second
    assert page.evaluate("1") and len(asked) == 1


def test_the_first_touch_of_the_drawn_face_is_the_place(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    page, session = patient_at(TALL, scripts=True)
    page.route("**/healthz", lambda route: None)
    page.goto(address + stand(bench, session, "spots"))
    wait_for_answers(page)
    places = []
    for zone in ("nose", "left_cheek"):
        page.mouse.click(*page.evaluate(PLACE, list(inside(zone))))
        places.append(page.evaluate(PLACED))
    assert places[0] == places[1] and all(places[0])


def test_who_wants_to_start_over_after_the_pictures_may_go_back(
    patient_at: PatientAt, address: str, bench: Bench
) -> None:
    page, session = patient_at(TALL, scripts=True)
    page.goto(address + with_a_kept_scan(bench, session)[0])
    wait_for_answers(page)
    page.click("footer button")
    expect(page.locator("body")).to_have_attribute("data-page", "leave")
    wait_for_answers(page)
    page.click("form[action='/help'] button")
    expect(page.locator("body")).to_have_attribute("data-page", "result")
