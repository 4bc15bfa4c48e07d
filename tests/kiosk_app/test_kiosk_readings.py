"""What the result page says: ranges that add up, in plain words, and never a disease's name."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from flask import Flask
from flask_babel import Babel, force_locale
from hypothesis import given
from hypothesis import strategies as st

from kiosk_app.patient import sentences
from kiosk_app.patient.app import create_app
from kiosk_app.patient.readings import ZONES, Card, cards, numbers_on
from kiosk_app.web.languages import LANGUAGES
from models.analysis.words import Words
from sync.wire.findings import Finding
from tests.support.kiosk_bench import Bench, findings
from tests.support.visitor import Visitor

DISEASE = re.compile("acn[eé]|akne|حب الشباب", re.IGNORECASE)
APP = Flask(__name__)
Babel(APP)
TITLES = {"en": "Blemishes", "de": "Unreinheiten", "es": "Imperfecciones", "ar": "شوائب البشرة"}


def _cards(
    bench: Bench, language: str, changes: dict[tuple[str, str], tuple[float, float, float]] | None = None
) -> list[Card]:
    """The cards of the bench's findings, with `changes` of (value, low, high) by measure and zone."""
    rows = [
        _row(
            row.measure,
            row.zone,
            *(changes or {}).get((row.measure, row.zone), (row.value, row.low, row.high)),
        )
        for row in findings(uuid4()).findings
    ]
    with create_app(bench.kiosk).test_request_context(), force_locale(language):
        return cards(rows, ())


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_no_card_names_a_disease_or_its_severity(bench: Bench, language: str) -> None:
    made = _cards(bench, language)
    assert TITLES[language] in [card.name for card in made] and len(made) == 3
    for card in made:
        assert not DISEASE.search(" ".join([card.name, card.unit, card.reading]))


def test_no_card_shows_the_erythema_index(bench: Bench) -> None:
    assert [card.name for card in _cards(bench, "en")] == ["Skin colour", "Darker spots", "Blemishes"]


def test_a_count_is_the_range_that_its_interval_says(bench: Bench) -> None:
    few = _cards(bench, "en", {("acne_count", "face"): (4, 0, 8)})[-1]
    assert (few.value, few.unit) == ("0 to 8", "blemishes")
    assert few.reading == "4 seen on the whole face, as far as a picture can tell"
    sure = _cards(bench, "en", {("acne_count", "face"): (1, 1, 1)})[-1]
    assert (sure.value, sure.unit) == ("1", "blemish")
    none = _cards(bench, "en", {("acne_count", "face"): (0, 0, 3)})[-1]
    assert (none.value, none.reading) == ("0 to 3", "None seen on the whole face")


@pytest.mark.parametrize(("measure", "dual"), [("acne_count", "شائبتان"), ("spot_count", "بقعتان")])
def test_the_dual_of_arabic_is_for_two_and_not_for_a_range_that_ends_with_two(
    bench: Bench, measure: str, dual: str
) -> None:
    def unit(low: float, high: float) -> str:
        with create_app(bench.kiosk).test_request_context(), force_locale("ar"):
            [card] = cards([_row(measure, "face", high, low, high)], ())
        return card.unit

    assert unit(2, 2) == dual
    assert dual not in (unit(0, 2), unit(1, 2))


@given(counts=st.lists(st.integers(0, 30), min_size=7, max_size=7), between=st.integers(0, 9))
def test_what_the_areas_show_adds_up_to_what_was_seen(counts: list[int], between: int) -> None:
    rows = [_row("spot_count", zone, n, n, n + 2) for zone, n in zip(ZONES, counts, strict=True)]
    whole = sum(counts) + between
    rows += [_row("spot_area", "face", 1, 1, 3), _row("spot_count", "face", whole, whole, whole + 2)]
    with APP.test_request_context(), force_locale("en"):
        [card] = cards(rows, ())
    seen = 0 if card.reading.startswith("None") else int(card.reading.split()[0])
    assert seen == whole
    assert sum(int(strip.value) for strip in card.strips) == seen
    assert all(0 <= end <= 100 for strip in card.strips for end in (strip.low, strip.dot, strip.high))


def _row(measure: str, zone: str, value: float, low: float, high: float) -> Finding:
    said = {"measure": measure, "zone": zone, "value": value, "low": low, "high": high}
    return Finding.model_validate(said | {"unit": "1", "model": "m"})


def test_colour_is_no_number_without_calibration(bench: Bench) -> None:
    rows = findings(uuid4()).findings
    with create_app(bench.kiosk).test_request_context(), force_locale("en"):
        assert "Skin colour" not in [card.name for card in cards(rows, ("uncalibrated_colour",))]
        [said] = sentences.not_measured(["uncalibrated_scale", "uncalibrated_colour", "implausible_colour"])
        assert "not given as a number" in said


def test_one_that_was_seen_is_not_spoken_of_as_many(bench: Bench) -> None:
    for measure, place in (("spot_count", 1), ("acne_count", 2)):
        one = _cards(bench, "es", {(measure, zone): (1, 0, 3) for zone in ("face", *ZONES)})
        assert "1 vistas" not in one[place].reading and "toda la cara: " in one[place].reading


def test_without_a_count_there_is_no_card(bench: Bench) -> None:
    rows = [row for row in findings(uuid4()).findings if not row.measure.startswith("acne")]
    with create_app(bench.kiosk).test_request_context(), force_locale("en"):
        assert "Blemishes" not in [card.name for card in cards(rows, ())]


def test_neither_the_result_page_nor_an_overlay_says_acne(visitor: Visitor) -> None:
    assert not DISEASE.search(visitor.walk_to("result").words)
    assert not DISEASE.search(str(sentences.OVERLAYS["acne"]))
    assert not DISEASE.search(Words().model_dump_json().replace('"acne_', '"'))


@pytest.mark.parametrize(
    ("name", "measure", "written"),
    [
        ("zones", "ita", "Nose: colour 12°"),
        ("spots", "spot_count", "Nose: spots: 12"),
        ("redness", "redness", "Nose: 12 % red"),
        ("acne", "acne_count", "Nose: blemishes: 12"),
    ],
)
def test_who_does_not_see_a_picture_hears_the_numbers_that_are_written_on_it(
    bench: Bench, name: str, measure: str, written: str
) -> None:
    rows = [_row(measure, "nose", 12.3, 11, 14), _row(measure, "face", 5, 4, 6)]
    with create_app(bench.kiosk).test_request_context(), force_locale("en"):
        assert numbers_on(name, rows, ()) == [written]
        assert numbers_on(name, [], ()) == [] == numbers_on("another", rows, ())
        assert numbers_on("zones", [_row("ita", "nose", 12, 11, 14)], ("uncalibrated_colour",)) == []


def test_the_description_of_a_picture_says_its_numbers(visitor: Visitor) -> None:
    visitor.walk_to("result")
    said = visitor.look("/result?picture=zones").words
    assert re.search(r"the measured places outlined\. Forehead: colour \d+°\. Left cheek: ", said)
