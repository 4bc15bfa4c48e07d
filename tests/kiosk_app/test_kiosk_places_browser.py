"""Answers that decide never lie where the last button was, on any screen, at any size of the letters."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from kiosk_app.patient.pages import TEXT_SIZES
from tests.support.browser import TALL, WIDE
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import LOOK, OUT_OF_SIGHT, PatientAt
from tests.support.standing import DECIDES, stand, with_a_kept_scan
from tests.support.standing import PLACES as STANDS

# Where pictures may be kept, so that "Start over" leads to the question what becomes of them.
MAY_START_OVER = ("scan", "spots", "result", "delete", "help", "languages")
ANSWERS, START_OVER = ".act .button", "footer form .button"
# A page whose answers decide -> which buttons lead to it, and of which pages.
LEAD_TO = {
    "consent": (ANSWERS, ("about", "help", "languages")),
    "light_questions": (ANSWERS, ("consent", "help", "languages")),
    "eyes": (ANSWERS, ("position", "help", "languages")),
    "delete": (ANSWERS, ("result",)),
    "leave": (START_OVER, MAY_START_OVER),
    "leave, unreadable": (START_OVER, MAY_START_OVER),
}
PLACES = sorted({*LEAD_TO, *(before for _which, befores in LEAD_TO.values() for before in befores)})
# Where keys may be waited for: what is shown meanwhile lies beside all that comes before and after it.
MAY_WAIT = (*DECIDES, "position", "result")
BOXES = """which => [...document.querySelectorAll(which)].map(e => e.getBoundingClientRect())
  .map(r => [r.left, r.top, r.right, r.bottom])"""
BAND = """() => {
  const [band, footer] = [".act", "footer"].map(name => document.querySelector(name));
  const paper = getComputedStyle(document.body).backgroundColor;
  const buttons = [...band.querySelectorAll(".button")].map(e => e.getBoundingClientRect());
  const box = band.getBoundingClientRect();
  return {
    seen: getComputedStyle(band).backgroundColor !== paper,
    below: footer.getBoundingClientRect().top - box.bottom,
    beside: innerWidth - box.width,
    out: buttons.filter(r => r.top < box.top || r.bottom > box.bottom).length,
  };
}"""
HIDDEN_TEXT = "(m => m.scrollHeight - m.clientHeight)(document.querySelector('main'))"

Box = tuple[float, float, float, float]


def boxes(page: Page, which: str = ANSWERS) -> list[Box]:
    return [tuple(box) for box in page.evaluate(BOXES, which)]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_an_answer_that_decides_is_not_where_the_button_was_that_led_to_it(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    page, session = patient_at(size)
    for text_size in TEXT_SIZES:
        seen_first, touched_last = {}, {}
        for place in PLACES:
            page.goto(address + stand(bench, session, place, language, text_size))
            seen_first[place] = {which: boxes(page, which) for which in (ANSWERS, START_OVER)}
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")  # read to its end
            touched_last[place] = {which: boxes(page, which) for which in (ANSWERS, START_OVER)}
            if text_size == TEXT_SIZES[0]:
                assert page.evaluate(HIDDEN_TEXT) <= 0, place
        for place, (which, befores) in LEAD_TO.items():
            for before in befores:
                for last in touched_last[before][which] + seen_first[before][which]:
                    for answer in seen_first[place][ANSWERS]:
                        assert not overlap(last, answer), (text_size, before, place, last, answer)


@pytest.mark.parametrize("language", ["de", "es", "ar"])
@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
def test_whatever_page_it_is_what_can_be_done_stays_on_the_screen_at_twice_the_text(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    page, session = patient_at(size)
    for place in STANDS:
        page.goto(address + stand(bench, session, place, language, 200))
        look = page.evaluate(LOOK)
        assert (look["wider"], look["small"], page.evaluate(OUT_OF_SIGHT)) == (0, [], []), place


@pytest.mark.parametrize(("language", "size"), [("de", TALL), ("ar", WIDE)], ids=["de-tall", "ar-wide"])
def test_the_way_on_from_a_wait_for_the_keys_lies_where_no_button_was_or_will_be(
    patient_at: PatientAt,
    address: str,
    bench: Bench,
    size: tuple[int, int],
    language: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, session = patient_at(size)
    for text_size in TEXT_SIZES:
        places = {}
        for place in MAY_WAIT:
            page.goto(address + stand(bench, session, place, language, text_size))
            assert page.locator(f"body[data-page={place.split(',')[0]}]").count() == 1
            places[place] = boxes(page)
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            places[place] += boxes(page)
        for address_of_it in ("/result", "/delete"):
            with_a_kept_scan(bench, session, language, text_size)
            page.goto(address + "/delete")
            with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
                if address_of_it == "/delete":
                    with page.expect_navigation():  # it is not done, and leads back here
                        page.click("form[action='/delete'] button")
                else:
                    page.goto(address + address_of_it)
            assert page.locator("body[data-page=kiosk_busy]").count() == 1
            look, [way_on] = page.evaluate(LOOK), boxes(page)
            assert look["wider"] <= 0 and look["small"] == []
            assert way_on[3] <= size[1] and (text_size != TEXT_SIZES[0] or look["taller"] <= 0)
            for place, met in places.items():
                assert not any(overlap(way_on, other) for other in met), (text_size, place, way_on, met)
            with page.expect_navigation():
                page.click("a.primary")
            assert page.url == address + address_of_it


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
def test_answers_that_decide_stand_in_a_band_that_reaches_from_edge_to_edge(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int]
) -> None:
    page, session = patient_at(size)
    for place in ("consent", "eyes", "delete", "leave", "leave, unreadable"):
        for text_size in TEXT_SIZES:
            page.goto(address + stand(bench, session, place, "de", text_size))
            band = page.evaluate(BAND)
            assert (band["seen"], band["below"], band["out"]) == (True, 0, 0), (place, text_size)
            assert size == WIDE or band["beside"] == 0
