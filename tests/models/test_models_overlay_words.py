"""The words of an overlay are the ones handed in, and run in the direction of their script."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from hardware.capture import Capture
from models.analysis import overlay
from models.analysis.capture import _caption
from models.analysis.face import find_face
from models.analysis.overlay import MARGIN, TOP, WIDTH, Sheet, draw_overlays
from models.analysis.pen import INK, PAPER, Pen, can_write
from models.analysis.words import ENGLISH, Words
from sync.wire.findings import Finding

ARABIC = Words(
    script="arabic",
    zones=dict.fromkeys(ENGLISH.zones, "الجبهة"),
    areas_title="مواضع القياس",
    areas_line="كلما ارتفع كانت البشرة أفتح.",
    areas_label="اللون %(value)s درجة",
    spots_title="البقع الداكنة",
    spots_line="كل حلقة تحيط بموضع واحد.",
    spots_label="البقع: %(value)s",
    redness_title="الاحمرار",
    redness_line="داخل الخطوط الداكنة.",
    redness_label="الاحمرار %(value)s٪",
    acne_title="شوائب البشرة",
    acne_line="كل حلقة تحيط بموضع يشبه بثرة.",
    acne_label="الشوائب: %(value)s",
    sides="كما في المرآة: يساركم على اليسار.",
    length="%(value)s مم",
    about_length="نحو %(value)s مم",
)
Draw = Callable[[Words], dict[str, np.ndarray]]
FINDINGS = [
    Finding(measure=measure, zone=zone, value=value, unit=unit, low=value - 1, high=value + 1, model="test@1")
    for zone in ("forehead", "left_cheek", "right_cheek", "nose", "chin")
    for measure, value, unit in (
        ("ita", -12.4, "deg"),
        ("spot_count", 3, "1"),
        ("redness", 8, "%"),
        ("acne_count", 3, "1"),
    )
]


@pytest.fixture(scope="module")
def draw(large_portrait: np.ndarray) -> Draw:
    face = find_face(large_portrait)
    red = np.zeros(large_portrait.shape[:2], bool)

    def drawn(words: Words) -> dict[str, np.ndarray]:
        caption = ("ضوء أبيض.",) if words.right_to_left else ("White light.",)
        return draw_overlays(Sheet(large_portrait, face, 0.25, False, caption, words), FINDINGS, (), red, [])

    return drawn


def _ink(rows: np.ndarray) -> np.ndarray:
    """The columns that hold any ink."""
    return np.flatnonzero((np.abs(rows.astype(int) - PAPER).sum(axis=2) > 90).any(axis=0))


def _written(draw: Draw, words: Words, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    write = Pen.write

    def noted(pen: Pen, x: float, y: float, text: str, *how: object) -> None:
        lines.append(text)
        write(pen, x, y, text, *how)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Pen, "write", noted)
        draw(words)
    return lines


def test_an_overlay_in_arabic_holds_no_english_word(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    english, arabic = (_written(draw, words, monkeypatch) for words in (ENGLISH, ARABIC))
    assert ENGLISH.areas_title in english and ENGLISH.sides in english
    assert [line for line in arabic if re.search("[A-Za-z]", line)] == []
    assert {ARABIC.areas_title, ARABIC.sides, "البقع: 3"} <= set(arabic)


def test_an_overlay_in_arabic_looks_different_and_shows_the_same_face(draw: Draw) -> None:
    english, arabic = draw(ENGLISH), draw(ARABIC)
    for name in english:
        assert (english[name] != arabic[name]).any()
        face = slice(TOP, -overlay.BOTTOM), slice(WIDTH // 2 - 30, WIDTH // 2 + 30)
        assert (english[name][face] == arabic[name][face]).all()


def test_lines_begin_where_their_readers_begin(draw: Draw) -> None:
    english, arabic = (_ink(draw(words)["zones"][20:TOP]) for words in (ENGLISH, ARABIC))
    assert abs(int(english.min()) - MARGIN) < 8 and english.max() < WIDTH * 0.8
    assert abs(WIDTH - MARGIN - int(arabic.max())) < 8 and arabic.min() > WIDTH * 0.2


def test_arabic_letters_are_joined() -> None:
    assert can_write(ARABIC)
    pen = Pen(Image.new("RGB", (8, 8)), ARABIC)
    word = "نعم"
    assert pen.width(word, "Regular", 40) < 0.9 * sum(pen.width(letter, "Regular", 40) for letter in word)


def test_a_minus_stays_before_its_number_from_right_to_left() -> None:
    def ink(text: str) -> np.ndarray:
        image = Image.new("RGB", (200, 80), PAPER)
        Pen(image, ARABIC).write(180, 10, text, INK, "Regular", 40)
        return np.asarray(image)

    minus, number = "\N{LEFT-TO-RIGHT MARK}-", overlay._number(-11.0, ARABIC)
    alone = ink(minus)
    height = np.flatnonzero((alone != PAPER).any(axis=(1, 2)))
    low = ink(number)[height.max() + 3 :]
    columns, digits = _ink(ink(number)), _ink(low)
    assert columns.min() < digits.min() - 4 and columns.max() - digits.max() <= 4


def test_without_shaping_arabic_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.analysis.pen.features.check", lambda _name: False)
    assert not can_write(ARABIC) and can_write(ENGLISH)


def test_long_names_are_broken_between_words() -> None:
    pen = Pen(Image.fromarray(np.zeros((8, 8, 3), np.uint8)), ENGLISH)
    lines = pen.lines("Alrededor del ojo izquierdo", "Bold", 28, 236)
    assert " ".join(lines) == "Alrededor del ojo izquierdo" and len(lines) == 2
    assert all(pen.width(line, "Bold", 28) <= 236 for line in lines)


def test_words_survive_the_way_into_another_process() -> None:
    assert Words.model_validate_json(ARABIC.model_dump_json()) == ARABIC
    with pytest.raises(ValueError, match="extra"):
        Words.model_validate_json('{"patient": "somebody"}')


@pytest.mark.parametrize("simulated", [True, False])
def test_a_caption_gives_the_time_of_the_pictures_or_none(simulated: bool) -> None:
    at = datetime(2026, 3, 28, 7, 5, tzinfo=timezone.utc)
    taken = Capture("test", (), simulated=simulated, captured_at=at)
    mark = ["SIMULATED."] if simulated else []
    said = _caption(taken, "white", "cross", ENGLISH)
    assert said[1] == " ".join(["28 March 2026, 07:05 UTC.", *mark])
    assert _caption(replace(taken, captured_at=None), "white", "cross", ENGLISH) == (said[0], *mark)
