"""The overlays of a patient speak the language of their session."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from uuid import uuid4

import cv2
import numpy as np
import pytest
from skimage import data

from firmware.line.stamps import ConsentStamp
from hardware.capture import Capture, Frame
from kiosk_app.patient.app import create_app
from kiosk_app.patient.overlay_words import overlay_words
from kiosk_app.scanning.analyst import AnalysisFailed
from kiosk_app.scanning.progress import Progress
from kiosk_app.web.languages import LANGUAGES
from models.analysis import overlay
from models.analysis.capture import analyse_capture
from models.analysis.pen import PAPER, noto
from models.analysis.words import ENGLISH, Words
from tests.support.kiosk_bench import Bench
from tests.support.visitor import Visitor
from tests.support.waiting import wait_until

MOMENT = datetime(2026, 9, 30, 22, 58, tzinfo=timezone.utc)  # of the longest
TRANSLATED = sorted(set(LANGUAGES) - {"en"})
VALUES = {"value": "7", "day": 1, "month": "7", "year": 2026, "time": "12:00"}


def words_in(bench: Bench, language: str) -> Words:
    with create_app(bench.kiosk).test_request_context(headers={"Accept-Language": language}):
        return overlay_words()


def texts(words: Words) -> list[str]:
    """Every text of the words, filled in as the drawing fills it."""
    plain = {name: text for name, text in words.model_dump().items() if name != "script"}
    lists = [list(plain.pop(name).values()) for name in ("zones", "lights")] + [list(plain.pop("months"))]
    filled = [text % VALUES if "%(" in text else text for text in plain.values()]
    return filled + [text for one in lists for text in one]


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_a_scan_is_drawn_in_the_language_of_its_session(
    bench: Bench, visitor: Visitor, language: str
) -> None:
    visitor.tap(language=language)
    visitor.walk_to("light_questions")
    visitor.tap(answer="some")
    visitor.tap()
    wait_until(lambda: bench.analyst.words, "the words that the overlays are drawn with")
    assert bench.analyst.words == [words_in(bench, language)]
    assert (bench.analyst.words[0] == ENGLISH) == (language == "en")


def test_a_scan_that_is_finished_after_a_restart_is_drawn_in_english(bench: Bench) -> None:
    stamp = ConsentStamp("1", "de", datetime.now(timezone.utc))
    scan = bench.kiosk.records.create(stamp.to_dict(), "demo-1")
    bench.analyst.fail = AnalysisFailed("the kiosk was switched off")
    bench.kiosk.work.do(scan, stamp, False, Progress(), words_in(bench, "de"))
    bench.analyst.fail = None
    bench.again().work.go_on()
    assert bench.analyst.words == [ENGLISH]


@pytest.mark.parametrize("language", TRANSLATED)
def test_nothing_in_an_overlay_is_left_in_english(bench: Bench, language: str) -> None:
    words = words_in(bench, language)
    assert words.zones.keys() == ENGLISH.zones.keys() and words.lights.keys() == ENGLISH.lights.keys()
    english, translated = ENGLISH.model_dump(), words.model_dump()
    same = {name for name in english if english[name] == translated[name]}
    assert same <= {"script", "length"}  # "mm" is "mm" in Latin scripts
    assert not any("%" in text.replace(" %", "") for text in texts(words))


def test_every_arabic_letter_has_a_shape_in_its_font(bench: Bench) -> None:
    words = words_in(bench, "ar")
    assert words.right_to_left
    font = noto("arabic", "Regular", 28)
    missing = bytes(font.getmask("\uffff"))
    letters = {letter for text in texts(words) for letter in text} | set("0123456789:-.")
    assert not [letter for letter in letters - {" "} if bytes(font.getmask(letter)) == missing]
    assert not [letter for letter in letters if re.match("[A-Za-z]", letter)]


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_no_word_runs_off_the_picture(bench: Bench, language: str) -> None:
    head = cv2.resize(data.astronaut()[0:256, 90:346], None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    light = (np.power(head / 255.0, 2.2) * 65535).astype(np.uint16)
    frames = tuple(
        Frame(name, pixels, 8000, 1.0, n)
        for n, (name, pixels) in enumerate([("parallel", light), ("cross", light // 2)])
    )
    capture = Capture("test", frames, "nominal-test", simulated=True, captured_at=MOMENT)
    analysis = analyse_capture(capture, uuid4(), words=words_in(bench, language))
    for picture in analysis.overlays.values():
        edges = np.concatenate([picture[:, : overlay.MARGIN - 8], picture[:, 8 - overlay.MARGIN :]], axis=1)
        assert (edges == PAPER).all()
