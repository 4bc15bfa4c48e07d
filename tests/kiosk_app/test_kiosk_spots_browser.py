"""Marking a spot in a real browser: by a tap on the drawn face, by the list, on tall and wide screens."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Browser, Route, expect

from firmware.capture.client import CaptureFault
from sync.wire.findings.canonical_face import inside
from tests.support.browser import EACH_LANGUAGE_AND_SIZE, TALL, WIDE, wait_for_answers
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import PLACE, on_screen, to_spots, touch

FITS = {"wider": 0, "taller": 0, "small": []}


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return bench.with_close_up()


@pytest.mark.parametrize(("language", "size"), EACH_LANGUAGE_AND_SIZE)
def test_a_spot_is_touched_photographed_and_thanked_for(
    browser: Browser, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    with on_screen(browser, address, size) as screen:
        to_spots(screen, language)
        assert screen.keep(f"{language}-spots") == FITS
        touch(screen, "left_cheek")
        screen.page.wait_for_selector("[data-preview][data-good]")
        assert screen.keep(f"{language}-close-up") == FITS
        bench.analyst.refuse_close_ups = ["no_lesion"]
        screen.tap()
        screen.arrives_at("close_up_again")
        assert screen.keep(f"{language}-close-up-again") == FITS
        screen.tap()
        screen.arrives_at("close_up")
        screen.tap()
        screen.arrives_at("spots")
        assert screen.keep(f"{language}-spots-thanks") == FITS
        (session,) = bench.kiosk.sessions._sessions.values()
        [(spot, _)] = session.progress.marking.taken
        assert spot.zone == "left_cheek"
        assert (spot.x, spot.y) == pytest.approx(inside("left_cheek"), abs=0.02)
        for zone in ("chin", "nose"):
            screen.tap(f"button[value={zone}]")
            screen.arrives_at("close_up")
            screen.tap()
            screen.arrives_at("spots")
        assert screen.page.locator("[data-face]").count() == 0
        assert screen.keep(f"{language}-spots-full") == FITS
        screen.tap()
        screen.arrives_at("result")
        assert screen.keep(f"{language}-spots-result") == FITS
        assert screen.complaints == []


@pytest.mark.parametrize("size", [TALL, WIDE])
def test_a_close_up_camera_that_is_gone_leads_on(
    browser: Browser, address: str, bench: Bench, size: tuple[int, int]
) -> None:
    with on_screen(browser, address, size) as screen:
        to_spots(screen, "de")
        bench.camera.close_up_fault = CaptureFault("close_up_lost", "gone")
        screen.tap("button[value=nose]")
        screen.page.wait_for_url("**/trouble")
        assert screen.keep("de-close-up-trouble") == FITS
        screen.tap()
        screen.arrives_at("result")


@pytest.mark.parametrize("size", [TALL, WIDE])
def test_the_step_at_twice_the_text_loses_nothing(
    browser: Browser, address: str, size: tuple[int, int]
) -> None:
    with on_screen(browser, address, size) as screen:
        to_spots(screen, "de")
        for larger in ("150", "200"):
            screen.page.click("button[name=larger]")
            expect(screen.page.locator("html")).to_have_attribute("data-text", larger)
        assert screen.keep("de-spots-200")["wider"] == 0
        screen.tap("button[value=left_periorbital]")
        screen.arrives_at("close_up")
        assert screen.keep("de-close-up-200")["wider"] == 0
        screen.page.click("footer .button >> nth=0", trial=True)


def test_what_to_do_is_said_aloud_on_each_page(browser: Browser, address: str) -> None:
    said: list[str] = []
    with on_screen(browser, address, TALL) as screen:
        screen.page.expose_function("heard", lambda name: said.append(name))
        screen.page.add_init_script('addEventListener("say", e => heard(e.detail.name), true);')
        to_spots(screen, "en")
        expect(screen.page.locator("[data-said]")).to_contain_text("Touch the place")
        wait_for_answers(screen.page)
        screen.page.focus("button[value=chin]")
        screen.page.keyboard.press("Enter")
        screen.arrives_at("close_up")
        expect(screen.page.locator("[data-said]")).to_contain_text("Hold the close-up camera flat")
        screen.tap()
        screen.arrives_at("spots")
        expect(screen.page.locator("[data-said]")).to_contain_text("The picture is taken")
    assert said[-3:] == ["mark_spot", "hold_close_up", "spot_taken"]


@pytest.mark.parametrize("late", ["answers.js", "spots.js", "kiosk.js", "speech.js", "kiosk.css", "look.css"])
def test_a_face_that_takes_answers_can_be_touched_however_late_the_rest_of_the_page_arrives(
    browser: Browser, address: str, late: str
) -> None:
    def is_late(route: Route) -> None:
        time.sleep(0.5)  # of the network: what this test is about
        route.continue_()

    with on_screen(browser, address, TALL) as screen:
        screen.tap("button[value=en]")
        screen.walk_to("eyes")
        screen.page.route(f"**/{late}", is_late)
        wait_for_answers(screen.page)
        screen.page.click("form[data-primary] button.primary", no_wait_after=True)
        screen.arrives_at("spots")
        wait_for_answers(screen.page)
        x, y = screen.page.evaluate(PLACE, list(inside("left_cheek")))
        screen.page.mouse.click(x, y)
        screen.arrives_at("close_up")
