"""What the result page says of acne: a number with its interval in plain words, never the disease's name."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from flask_babel import force_locale

from kiosk_app import sentences
from kiosk_app.app import create_app
from kiosk_app.languages import LANGUAGES
from kiosk_app.readings import Card, cards
from models.analysis.words import Words
from tests.support.kiosk_bench import Bench, findings
from tests.support.visitor import Visitor

DISEASE = re.compile("acn[eé]|akne|حب الشباب", re.IGNORECASE)
TITLES = {"en": "Blemishes", "de": "Unreinheiten", "es": "Imperfecciones", "ar": "شوائب البشرة"}


def _cards(
    bench: Bench, language: str, low: float = 0.0, value: float = 4.0, high: float = 8.0
) -> list[Card]:
    rows = findings(uuid4())["findings"]
    for row in rows:
        if (row["measure"], row["zone"]) == ("acne_count", "face"):
            row.update(low=low, value=value, high=high)
    with create_app(bench.kiosk).test_request_context(), force_locale(language):
        return cards(rows)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_no_card_names_a_disease_or_its_severity(bench: Bench, language: str) -> None:
    made = _cards(bench, language)
    assert TITLES[language] in [card.name for card in made] and len(made) == 4
    for card in made:
        assert not DISEASE.search(" ".join([card.name, card.unit, card.reading]))


def test_few_blemishes_may_be_none_and_many_have_both_ends(bench: Bench) -> None:
    few = _cards(bench, "en")[-1]
    assert (few.value, few.unit) == ("4", "blemishes")
    assert few.reading == "None to 8 on the whole face, as far as a picture can tell"
    many = _cards(bench, "en", 10, 20, 31)[-1]
    assert many.reading == "Between 10 and 31 on the whole face"
    assert _cards(bench, "en", 0, 1, 6)[-1].unit == "blemish"


def test_without_a_count_there_is_no_card(bench: Bench) -> None:
    rows = [row for row in findings(uuid4())["findings"] if not row["measure"].startswith("acne")]
    with create_app(bench.kiosk).test_request_context(), force_locale("en"):
        assert "Blemishes" not in [card.name for card in cards(rows)]


def test_neither_the_result_page_nor_an_overlay_says_acne(visitor: Visitor) -> None:
    assert not DISEASE.search(visitor.walk_to("result").text)
    assert not DISEASE.search(str(sentences.OVERLAYS["acne"]))
    assert not DISEASE.search(Words().model_dump_json().replace('"acne_', '"'))
