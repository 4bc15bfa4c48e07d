"""Answers that decide never lie where the last button was, on any screen, at any size of the letters."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page

from kiosk_app.pages import COOKIE, TEXT_SIZES
from tests.support.browser import TALL, WIDE
from tests.support.kiosk_bench import Bench
from tests.support.standing import stand

# A page whose answers decide -> the pages whose buttons lead to it.
LEAD_TO = {
    "consent": ("about", "help", "languages"),
    "light_questions": ("consent", "help", "languages"),
    "eyes": ("position", "help", "languages"),
    "delete": ("result",),
}
PLACES = (*LEAD_TO, "about", "help", "languages", "position", "result")
BUTTONS = """() => [...document.querySelectorAll(".act .button")].map(e => e.getBoundingClientRect())
  .map(r => [r.left, r.top, r.right, r.bottom])"""
HIDDEN_TEXT = "(m => m.scrollHeight - m.clientHeight)(document.querySelector('main'))"

Box = tuple[float, float, float, float]


def boxes(page: Page) -> list[Box]:
    return [tuple(box) for box in page.evaluate(BUTTONS)]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_an_answer_that_decides_is_not_where_the_button_was_that_led_to_it(
    browser: Browser, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    token, session = bench.kiosk.sessions.begin()
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, java_script_enabled=False)  # type: ignore[arg-type]
    context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
    page = context.new_page()
    for text_size in TEXT_SIZES:
        seen_first, touched_last = {}, {}
        for place in PLACES:
            page.goto(address + stand(bench, session, place, language, text_size))
            seen_first[place] = boxes(page)
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")  # read to its end
            touched_last[place] = boxes(page)
            if text_size == TEXT_SIZES[0]:
                assert page.evaluate(HIDDEN_TEXT) <= 0, place
        for place, befores in LEAD_TO.items():
            for before in befores:
                for last in touched_last[before] + seen_first[before]:
                    for answer in seen_first[place]:
                        assert not overlap(last, answer), (text_size, before, place, last, answer)
    context.close()
