"""What a patient sees of a kiosk whose clinic has signed no waiver, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from kiosk_app.patient import sentences
from tests.support.browser import EACH_LANGUAGE_AND_SIZE, still, take_picture, wait_for_answers
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import LOOK


@pytest.mark.parametrize(("language", "size"), EACH_LANGUAGE_AND_SIZE)
def test_the_closed_page_fits_and_has_one_way_on(
    browser: Browser, address: str, bench: Bench, language: str, size: tuple[int, int]
) -> None:
    bench.unlicensed = "No waiver is known."
    with still(browser, locale=language, viewport={"width": size[0], "height": size[1]}) as context:
        page = context.new_page()
        page.goto(address)
        wait_for_answers(page)
        take_picture(page, f"kiosk-{language}-research_only-{size[0]}x{size[1]}")
        assert page.locator("body").get_attribute("data-reason") == "research_only"
        assert page.locator("html").get_attribute("lang") == language
        assert page.evaluate(LOOK) == {"wider": 0, "taller": 0, "small": []}
        assert page.locator("form[data-primary] button").count() == 1
        said = page.locator("[data-sentence]").inner_text()
        assert (said == str(sentences.trouble("research_only").happened)) is (language == "en")
