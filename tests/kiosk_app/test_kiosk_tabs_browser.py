"""The tabs of the result stay where they are, whichever is chosen; beside its numbers are the areas'."""

from __future__ import annotations

from contextlib import ExitStack
from uuid import UUID

import pytest
from playwright.sync_api import Route, expect

from hardware.capture import Spot
from kiosk_app.patient.pages import TEXT_SIZES
from kiosk_app.scanning.analyst import AnalysisOutcome
from kiosk_app.web.languages import LANGUAGES
from sync.wire.findings import Findings
from tests.support import kiosk_bench
from tests.support.browser import TALL, WIDE, take_picture, wait_for_answers
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_screen import LOOK, PatientAt
from tests.support.standing import with_a_kept_scan

# What a result holds as a rule, and at most: rows of areas in its three cards.
ZONES = ("forehead", "left_cheek", "right_cheek", "nose", "chin", "left_periorbital", "right_periorbital")
ROWS = {"a usual face": (5, [5, 5, 5]), "a face full of rows": (7, [5, 8, 8])}
# The axes by table, and what runs into one: a name, or a number.
AXES = """() => [...document.querySelectorAll(".strips")].map(table => [...table.rows].map(row => {
  const range = document.createRange();
  const [name, number] = [row.cells[0], row.cells[2]].map(e => {
    range.selectNodeContents(e);
    return range.getBoundingClientRect();
  });
  const axis = row.querySelector("svg").getBoundingClientRect();
  const apart = (one, other) => one.right <= other.left || other.right <= one.left;
  return [axis.width, apart(name, axis) && apart(number, axis) && row.scrollWidth <= row.clientWidth];
}))"""
# Intervals that their own dot hides.
HIDDEN = """() => [...document.querySelectorAll(".strips svg")].filter(svg => {
  const [span, dot] = [".span", ".dot"].map(name => svg.querySelector(name));
  return span.getBoundingClientRect().width <= parseFloat(getComputedStyle(dot).strokeWidth);
}).length"""
OVERLAYS = ["zones", "redness", "spots", "acne"]
TABS = """() => [...document.querySelectorAll(".tabs .button")].map(e => e.getBoundingClientRect())
  .map(r => [r.left, r.top, r.right, r.bottom].map(Math.round))"""
# Names and numbers of the areas that are not seen whole, or lie on each other.
LOST = """() => [...document.querySelectorAll(".strips :is(th, .number, svg)")].filter((e, n, all) => {
  const r = e.getBoundingClientRect(), before = n % 3 && all[n - 1];
  const range = document.createRange();
  range.selectNodeContents(e);
  const words = e.matches("svg") ? r : range.getBoundingClientRect();
  const last = before && (range.selectNodeContents(before),
    before.matches("svg") ? before.getBoundingClientRect() : range.getBoundingClientRect());
  return !r.width || !r.height
    || (last && words.left < last.right - 1 && last.left < words.right - 1);
}).map(e => e.textContent)"""


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_tabs_of_the_result_stay_where_they_are(
    patient_at: PatientAt, address: str, bench: Bench, size: tuple[int, int], language: str
) -> None:
    page, session = patient_at(size)
    for text_size in TEXT_SIZES:
        place, scan = with_a_kept_scan(bench, session, language, text_size)
        bench.kiosk.records.note(scan, overlays=OVERLAYS)
        page.goto(address + place)
        numbers, look, lost = page.evaluate(TABS), page.evaluate(LOOK), page.evaluate(LOST)
        assert len(numbers) == 1 + len(OVERLAYS)
        assert page.locator(".strips tr").count() > 5 and lost == []
        assert look["wider"] <= 0 and look["small"] == []
        if text_size == TEXT_SIZES[0]:
            assert look["taller"] <= 0
        for name in OVERLAYS:
            page.goto(f"{address}{place}?picture={name}")
            assert page.evaluate(TABS) == numbers, (text_size, name)


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("language", ["de", "ar"])
def test_where_a_picture_has_to_wait_for_the_keys_the_page_says_so_in_its_place(
    patient_at: PatientAt,
    address: str,
    bench: Bench,
    size: tuple[int, int],
    language: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, session = patient_at(size, scripts=True)
    with_a_kept_scan(bench, session, language)
    page.goto(address + "/result?picture=zones")
    word = page.locator(".overlay figcaption")
    expect(word).to_be_hidden()
    with ExitStack() as held:

        def when_the_page_is_there(route: Route) -> None:
            held.enter_context(bench.kiosk.records.keyring.lock())
            held.enter_context(pages_wait_briefly())
            route.continue_()

        page.route("**/result/zones.png", when_the_page_is_there)
        page.reload()
        expect(word).to_be_visible()
    expect(page.locator(".overlay img")).to_be_hidden()
    look = page.evaluate(LOOK)
    assert look["wider"] <= 0 and look["taller"] <= 0
    assert page.locator(".caption").evaluate("e => e.getBoundingClientRect().width") > 400


def with_rows(zones: int, scan: UUID) -> Findings:
    """Findings with something in each of so many zones; where there are more than five, elsewhere too."""
    found = kiosk_bench.findings(scan)
    counts = ("spot_count", "acne_count")
    rows = [row.model_dump() for row in found.findings if row.measure not in counts]
    face = [("face", 40.0)] if zones > 5 else []
    for measure in counts:
        for zone, value in [(zone, 3.0) for zone in ZONES[:zones]] + face:
            of = {"measure": measure, "zone": zone, "value": value, "low": value / 2, "high": value * 2}
            rows.append(of | {"unit": "1", "model": "m"})
    spots = [kiosk_bench.marked("closeup0", Spot(zone="nose"))]
    quality = ["implausible_colour"]
    return kiosk_bench.findings(scan, schema=2, findings=rows, quality=quality, spots=spots)


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("language", ["de", "es", "ar"])
@pytest.mark.parametrize("face", ROWS)
def test_every_area_has_an_axis_of_the_same_length_that_nothing_runs_into(
    patient_at: PatientAt,
    address: str,
    bench: Bench,
    size: tuple[int, int],
    language: str,
    face: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zones, expected = ROWS[face]
    page, session = patient_at(size, scripts=True)
    monkeypatch.setattr(
        bench.analyst, "measure", lambda _capture, scan, _words: AnalysisOutcome(with_rows(zones, scan))
    )
    for text_size in TEXT_SIZES:
        place, scan = with_a_kept_scan(bench, session, language, text_size)
        bench.kiosk.records.note(scan, overlays=OVERLAYS, missing={"uv365": "eyes_open"})
        page.goto(address + place)
        assert page.locator("[data-spots], [data-not-measured]").count() == 2
        axes = page.evaluate(AXES)
        assert [len(table) for table in axes] == expected
        widths = [width for table in axes for width, _free in table]
        assert min(widths) >= 90 and max(widths) - min(widths) < 1, (text_size, widths)
        assert all(free for table in axes for _width, free in table), text_size
        assert page.evaluate(HIDDEN) == sum(rows > zones for rows in expected)  # elsewhere is a difference
        look = page.evaluate(LOOK)
        assert look["wider"] <= 0 and look["small"] == []
        if text_size == TEXT_SIZES[0]:
            assert look["taller"] <= 0
        wait_for_answers(page)
        take_picture(page, f"kiosk-rows-{zones}-{language}-{text_size}-{size[0]}x{size[1]}")
