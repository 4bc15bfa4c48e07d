"""The journey in a real browser: what a patient sees on a tall screen, on a wide one, from right to left."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from firmware.capture.client import CaptureFault
from kiosk_app.patient.journey import PATIENCE_S, WARNING_S, Session, State
from kiosk_app.patient.speech import CLOSED_AT_MOST_S
from models.analysis import overlay
from tests.support.browser import TALL, WIDE, of_a_kiosk, pass_time, read_on, stop_clock, wait_for_answers
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import OUT_OF_SIGHT, Screen, on_screen
from tests.support.waiting import wait_until
from tests.support.way import WAY


@pytest.mark.parametrize("size", [TALL, WIDE])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_every_page_of_the_way_fits_and_can_be_touched(
    browser: Browser, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    with on_screen(browser, address, size) as screen:
        for place, step in enumerate(WAY):
            screen.arrives_at(step)
            if step == "position":
                screen.page.wait_for_selector("[data-preview][data-good]")
            name = "scan-uv" if WAY[place - 1] == "eyes" else step
            assert screen.keep(f"{language}-{name}") == {"wider": 0, "taller": 0, "small": []}, step
            if step == "language":
                screen.tap(f"button[value={language}]")
            elif step in ("position", "eyes"):
                bench.camera.hold.clear()
                screen.tap()
            elif step == "scan":
                bench.camera.hold.set()
                screen.page.wait_for_url(f"**/{WAY[place + 1]}")
            elif step != "done":
                screen.tap()
        assert screen.page.evaluate("document.documentElement.dir") == ("rtl" if language == "ar" else "ltr")
        assert screen.complaints == []


def test_the_browser_that_a_kiosk_ships_with_draws_the_first_page(browser: Browser, address: str) -> None:
    with of_a_kiosk(browser) as shipped, on_screen(shipped, address, TALL) as screen:
        screen.arrives_at("language")
        assert screen.keep("shipped-language") == {"wider": 0, "taller": 0, "small": []}
        screen.tap("button[value=de]")
        screen.arrives_at("about")
        assert screen.complaints == []


@pytest.mark.parametrize(("size", "least_px"), [(TALL, 20), (WIDE, 12)])
def test_the_words_in_a_picture_are_large_enough_to_read(
    browser: Browser, address: str, size: tuple[int, int], least_px: int
) -> None:
    with on_screen(browser, address, size) as screen:
        screen.tap("button[value=de]")
        screen.walk_to("eyes")
        screen.tap()
        screen.page.wait_for_url("**/result")
        assert screen.page.locator("main img").count() == 0  # the numbers have their page for themselves
        screen.page.click("nav.tabs a >> nth=1")
        screen.page.wait_for_url("**/result?picture=*")
        shown = screen.page.locator("main img").bounding_box()
        assert shown is not None
        assert shown["width"] / overlay.WIDTH * overlay.CAPTION_PX >= least_px
        assert screen.keep("de-result-picture") == {"wider": 0, "taller": 0, "small": []}
        assert screen.complaints == []


# Of the scan, where nobody can scroll with the head in the hood: heading and sentence below the edge.
UNREADABLE = """() => {
  const edge = document.querySelector("main").getBoundingClientRect().bottom;
  return [...document.querySelectorAll("main h1, main [data-said]")]
    .filter(e => e.getBoundingClientRect().bottom > edge).map(e => e.textContent.trim());
}"""


@pytest.mark.parametrize(
    ("size", "language", "larger"),
    [
        (TALL, "de", ["150"]),
        (TALL, "de", ["150", "200"]),
        (WIDE, "de", ["150", "200"]),
        (WIDE, "ar", ["150", "200"]),
    ],
)
def test_with_larger_text_what_can_be_done_stays_on_the_screen(
    browser: Browser, address: str, bench: Bench, size: tuple[int, int], language: str, larger: list[str]
) -> None:
    with on_screen(browser, address, size) as screen:
        screen.tap(f"button[value={language}]")
        for each in larger:
            screen.page.click("button[name=larger]")
            expect(screen.page.locator("html")).to_have_attribute("data-text", each)
        for place, step in enumerate(WAY[1:], 1):
            screen.arrives_at(step)
            if step == "position":
                screen.page.wait_for_selector("[data-preview][data-good]")
            found = screen.keep(f"{language}-{step}-{larger[-1]}")
            assert (found["wider"], found["taller"], screen.page.evaluate(OUT_OF_SIGHT)) == (0, 0, []), step
            if step == "scan":
                assert screen.page.evaluate(UNREADABLE) == []
                bench.camera.hold.set()
                screen.page.wait_for_url(f"**/{WAY[place + 1]}")
            elif step != "done":
                if WAY[place + 1] == "scan":
                    bench.camera.hold.clear()
                screen.tap()


# Every line that is said, by its name.
LISTEN = """addEventListener("say", e => heard(e.detail.name), true);"""


def test_what_closed_eyes_need_to_know_is_said_in_time(browser: Browser, address: str, bench: Bench) -> None:
    said: list[tuple[str, bool]] = []

    def heard(name: str) -> None:
        said.append((name, ("uv", True) in bench.camera.phases()))

    with on_screen(browser, address, TALL) as screen:
        screen.page.expose_function("heard", heard)
        screen.page.add_init_script(LISTEN)
        screen.tap("button[value=en]")
        bench.camera.hold.clear()
        screen.walk_to("scan")
        expect(screen.page.locator("[data-said]")).to_contain_text("look at the small light")
        bench.camera.hold.set()
        screen.arrives_at("eyes")
        expect(screen.page.locator("[data-said]")).to_contain_text("three rising notes")
        bench.camera.hold.clear()
        screen.tap()
        expect(screen.page.locator("[data-said]")).to_have_text(
            "Keep your eyes closed until you hear three rising notes."
        )
        bench.camera.hold.set()
        screen.page.wait_for_url("**/result")
    assert said == [("look", False), ("close_eyes", False), ("keep_closed", False), ("open_eyes", True)]


def test_eyes_that_were_seen_open_are_asked_again_kindly(
    browser: Browser, address: str, bench: Bench
) -> None:
    for size in (TALL, WIDE):
        bench.camera.uv_says = ["eyes_open"]
        with on_screen(browser, address, size) as screen:
            screen.tap("button[value=de]")
            screen.walk_to("eyes")
            screen.tap()
            expect(screen.page.locator(".notice")).to_be_visible()
            assert screen.keep("de-eyes-again") == {"wider": 0, "taller": 0, "small": []}
            screen.tap("form:not([data-primary]) >> text=UV-Licht")
            screen.page.wait_for_url("**/result")
            assert screen.complaints == []


def test_eyes_are_told_to_open_even_if_the_application_is_gone(
    browser: Browser, address: str, bench: Bench
) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        screen.walk_to("eyes")
        bench.camera.hold.clear()
        screen.tap()
        expect(screen.page.locator("[data-said]")).to_contain_text("Keep your eyes closed")
        screen.page.route("**/scan/progress", lambda route: route.abort())
        expect(screen.page.locator("[data-said]")).to_have_text("You can open your eyes.")
        screen.page.unroute("**/scan/progress")
        bench.camera.hold.set()
        screen.page.wait_for_url("**/result")


# From its first answer on the kiosk says the same at once, so that the page's own clock alone counts.
SAYS_THE_SAME = """
const ask = window.fetch;
window.fetch = async (what, how) => {
  if (what !== "/scan/progress") return ask(what, how);
  window.answer ??= await (await ask(what, how)).json();
  if (window.answer === "nothing") throw new DOMException("", "TimeoutError");
  return { json: async () => (window.answer === "a page" ? JSON.parse("<") : window.answer) };
};
"""


@pytest.mark.parametrize(
    "then", ["", *(f"window.answer = {says}" for says in ("{ reason: 'unread' }", "'a page'", "'nothing'"))]
)
def test_eyes_are_told_to_open_once_no_uv_can_come_any_more_and_not_before_whatever_the_kiosk_says(
    browser: Browser, address: str, bench: Bench, then: str
) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        screen.walk_to("eyes")
        bench.camera.hold.clear()
        wait_for_answers(screen.page)
        read_on(screen.page)
        screen.page.add_init_script(SAYS_THE_SAME)
        stop_clock(screen.page)
        screen.page.click("form[data-primary] button.primary")
        screen.arrives_at("scan")
        wait_until(lambda: screen.page.evaluate("window.answer?.say") == "keep_closed", "the kiosk's word")
        screen.page.evaluate(then)
        said = screen.page.locator("[data-said]")
        pass_time(screen.page, 1000 * CLOSED_AT_MOST_S - 500)
        expect(said).to_contain_text("Keep your eyes closed")
        pass_time(screen.page, 1000)  # the page asks more often than that
        expect(said).to_have_text("You can open your eyes.")
        bench.camera.hold.set()


def has_left(session: Session, seconds: float) -> None:
    """From now on the session's time stands, with so many seconds of it left."""
    now = session.clock()
    session.clock = lambda: now
    session.touched = now + seconds - PATIENCE_S[session.state]


def to_the_warning(screen: Screen, address: str) -> None:
    """Show the page with a clock that stands, and let it pass until the page warns."""
    stop_clock(screen.page)
    screen.page.goto(address)

    def warns() -> bool:
        pass_time(screen.page, 1000)
        return screen.page.locator("dialog[open]").count() > 0

    wait_until(warns, "the warning")


def seconds_said(screen: Screen) -> int:
    """What the warning says, of how many seconds."""
    return int(re.sub(r"\D", "", screen.page.inner_text("[data-seconds]")))


@pytest.mark.parametrize(
    ("language", "one", "five"),
    [("en", "1 second", "5 seconds"), ("de", "1 Sekunde", "5 Sekunden"), ("es", "1 segundo", "5 segundos")],
)
def test_the_warning_counts_as_the_language_does(
    browser: Browser, address: str, bench: Bench, language: str, one: str, five: str
) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap(f"button[value={language}]")
        (session,) = bench.kiosk.sessions._sessions.values()
        has_left(session, WARNING_S)
        to_the_warning(screen, address)
        said = set()
        while one not in said and len(said) < WARNING_S:
            pass_time(screen.page, 1000)
            said.add(screen.page.inner_text("[data-seconds]"))
        assert {one, five} <= said


def test_a_silent_patient_is_warned_and_a_tap_goes_on(browser: Browser, address: str, bench: Bench) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        (session,) = bench.kiosk.sessions._sessions.values()
        has_left(session, WARNING_S - 3)
        to_the_warning(screen, address)
        assert seconds_said(screen) == WARNING_S - 4
        screen.page.clock.resume()
        assert screen.keep("en-warning")["small"] == []
        screen.page.click("[data-still-here]")
        screen.page.wait_for_selector("dialog:not([open])", state="attached")
        wait_until(
            lambda: screen.page.evaluate("true") and session.left() > WARNING_S, "the touch to be told"
        )
        screen.arrives_at("about")


# A kiosk that takes its time over a touch, and how often the warning is opened from now on.
SLOW_TOUCH = """() => {
  const real = window.fetch;
  window.fetch = async (...asked) => {
    if (asked[0] === "/touch") await new Promise(over => setTimeout(over, 2500));
    return real(...asked);
  };
  window.opened = 0;
  const dialog = document.querySelector("dialog");
  new MutationObserver(() => dialog.open && (window.opened += 1)).observe(dialog, { attributes: true });
}"""


def test_a_warning_that_was_answered_does_not_come_back_while_the_kiosk_is_slow(
    browser: Browser, address: str, bench: Bench
) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        (session,) = bench.kiosk.sessions._sessions.values()
        has_left(session, WARNING_S - 3)
        to_the_warning(screen, address)
        screen.page.evaluate(SLOW_TOUCH)
        screen.page.click("[data-still-here]")
        pass_time(screen.page, 2400)  # a look at the clock a second
        with screen.page.expect_response("**/touch"):
            pass_time(screen.page, 100)
        pass_time(screen.page, 1500)
        assert screen.page.evaluate("window.opened") == 0
        assert session.left() > WARNING_S


def test_a_warning_closes_by_itself_once_the_kiosk_gives_more_time(
    browser: Browser, address: str, bench: Bench
) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        (session,) = bench.kiosk.sessions._sessions.values()
        has_left(session, WARNING_S - 3)
        to_the_warning(screen, address)
        # A tap before the warning was there, answered after it.
        screen.page.evaluate("document.querySelector('dialog').dispatchEvent(new Event('cancel'))")

        def is_closed() -> bool:
            pass_time(screen.page, 1000)
            return screen.page.locator("dialog[open]").count() == 0

        wait_until(is_closed, "the warning to close")


def test_a_patient_who_left_is_forgotten_on_the_screen_too(
    browser: Browser, address: str, bench: Bench
) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        (session,) = bench.kiosk.sessions._sessions.values()
        session.touched -= PATIENCE_S[State.ABOUT] - 2
        screen.page.goto(address)
        wait_until(
            lambda: session.state is State.EXPIRED or bench.kiosk.sessions.expire() > 0, "the session expired"
        )
        screen.page.wait_for_url("**/expired")
        screen.arrives_at("expired")


def test_a_refusal_and_a_fault_are_pages_with_a_way_on(browser: Browser, address: str, bench: Bench) -> None:
    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        for _ in range(3):
            screen.tap()
        bench.camera.fault = CaptureFault("unavailable", "away")
        screen.page.wait_for_url("**/trouble")
        screen.keep("en-trouble")
        bench.camera.fault = None
        bench.analyst.refuse = "too_dark"
        screen.tap()
        screen.page.wait_for_selector("[data-preview][data-good]")
        screen.tap()
        screen.arrives_at("eyes")
        screen.tap()
        screen.page.wait_for_selector("body[data-state=failed]")
        assert screen.keep("en-refused")["small"] == []
        screen.tap()
        screen.arrives_at("position")
