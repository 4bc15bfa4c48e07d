"""Leaving, in a real Chromium: "back" shows nothing of who was here before, and a late receipt is told."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import EACH_LANGUAGE_AND_SIZE, TALL, read_on, take_picture, visit, wait_for_answers
from tests.support.kiosk_bench import Bench

LOOK = """() => ({
  wider: document.documentElement.scrollWidth - innerWidth,
  taller: document.documentElement.scrollHeight - innerHeight,
})"""
FITS = {"wider": 0, "taller": 0}


def arrives_at(page: Page, name: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-page", name)


def tap(page: Page, button: str = "form[data-primary] button.primary") -> None:
    wait_for_answers(page)
    read_on(page)
    with page.expect_navigation(wait_until="domcontentloaded"):
        page.click(button)


def walk_to_result(page: Page, language: str = "en") -> None:
    tap(page, f"button[value={language}]")
    for step in ("about", "consent", "light_questions", "position", "eyes"):
        arrives_at(page, step)
        if step == "position":
            page.wait_for_selector("[data-preview][data-good]")
        tap(page)
    arrives_at(page, "result")


def test_back_after_a_session_shows_the_first_page_and_no_alarm(browser: Browser, address: str) -> None:
    with visit(browser, address, TALL) as (page, complaints):
        walk_to_result(page)
        tap(page)
        arrives_at(page, "done")
        tap(page)
        arrives_at(page, "language")
        went = 0
        while page.evaluate("navigation.canGoBack"):
            page.go_back()
            arrives_at(page, "language")
            went += 1
        assert went >= 5
        tap(page, "button[value=de]")
        arrives_at(page, "about")
        page.go_back()
        arrives_at(page, "about")  # their own
        # What a page of the session that is over still asks for on its way to the first one is gone.
        assert [said for said in complaints if "410 (GONE)" not in said] == []


def test_a_patient_is_told_of_a_restart_and_the_one_who_goes_back_is_not(
    browser: Browser, address: str, bench: Bench
) -> None:
    with visit(browser, address, TALL) as (page, _):
        walk_to_result(page)
        bench.kiosk.sessions._sessions.clear()
        tap(page, "form[action='/text-size'] button, header form button")
        arrives_at(page, "restarted")
        take_picture(page, "kiosk-en-restarted-1080x1920")
        page.go_back()
        arrives_at(page, "language")
        page.reload()
        arrives_at(page, "language")


def test_a_page_that_the_browser_keeps_for_back_holds_nothing_of_its_patient(
    browser: Browser, address: str
) -> None:
    with visit(browser, address, TALL) as (page, _):
        walk_to_result(page)
        page.wait_for_load_state()  # with its scripts
        page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        assert page.inner_text("body") == ""


@pytest.mark.parametrize(("language", "size"), EACH_LANGUAGE_AND_SIZE)
def test_the_pages_of_leaving_fit_and_tell_a_late_receipt(
    browser: Browser, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    with visit(browser, address, size) as (page, complaints):
        bench.camera.uv_says = ["eyes_open"] * 3
        bench.outbox.connected = False
        walk_to_the_third_question(page, language)
        line = page.locator("[data-delivery]")
        expect(line).to_have_attribute("data-delivery", "waiting")
        assert page.evaluate(LOOK) == FITS
        take_picture(page, f"kiosk-{language}-result-waiting-{size[0]}x{size[1]}")
        tap(page, "footer form button")
        arrives_at(page, "leave")
        assert page.evaluate(LOOK) == FITS
        take_picture(page, f"kiosk-{language}-leave-{size[0]}x{size[1]}")
        (message,) = bench.outbox.states
        bench.outbox.states[message] = "stored"
        bench.outbox.there = False
        tap(page, "button.danger")
        arrives_at(page, "deleted")
        expect(line).to_have_attribute("data-delivery", "untold")
        assert page.evaluate(LOOK) == FITS
        take_picture(page, f"kiosk-{language}-deleted-untold-{size[0]}x{size[1]}")
        before = line.inner_text()
        bench.outbox.there = bench.outbox.connected = True
        bench.kiosk.courier.run_once()
        expect(line).to_have_attribute("data-delivery", "telling")
        (word,) = (known for known in bench.outbox.submitted if known != message)
        bench.outbox.states[word] = "stored"
        expect(line).to_have_attribute("data-delivery", "told")
        assert line.inner_text() != before
        take_picture(page, f"kiosk-{language}-deleted-told-{size[0]}x{size[1]}")
        assert complaints == []


def walk_to_the_third_question(page: Page, language: str) -> None:
    """To the result, past eyes that were seen open three times."""
    tap(page, f"button[value={language}]")
    for step in ("about", "consent", "light_questions", "position"):
        arrives_at(page, step)
        if step == "position":
            page.wait_for_selector("[data-preview][data-good]")
        tap(page)
    for times in range(3):
        arrives_at(page, "eyes")
        expect(page.locator(".notice")).to_have_count(min(times, 1))
        tap(page)
    arrives_at(page, "result")


def test_the_last_page_tells_when_the_measurements_have_arrived(
    browser: Browser, address: str, bench: Bench
) -> None:
    with visit(browser, address, TALL) as (page, _):
        bench.outbox.connected = False
        walk_to_result(page)
        tap(page)
        line = page.locator("[data-delivery]")
        expect(line).to_contain_text("as soon as the connection is back")
        take_picture(page, "kiosk-en-done-waiting-1080x1920")
        (message,) = bench.outbox.states
        bench.outbox.states[message] = "stored"
        expect(line).to_have_text("Your measurements have reached Clinic at the Park.")
