"""Left is one side through the whole journey, in every language: where the picture beside the word has it."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator
from skimage import data

from firmware.capture.client import Preview
from hardware.capture import Capture
from kiosk_app.scanning.analyst import AnalysisOutcome
from kiosk_app.web.languages import LANGUAGES
from models.analysis.face import Face, find_face
from models.analysis.overlay import WIDTH, Sheet, draw_overlays
from models.analysis.pen import Pen
from models.analysis.words import ENGLISH, Words
from models.analysis.zones import zone_polygons
from sync.wire.findings import Finding
from sync.wire.findings.canonical_face import inside
from tests.support.browser import EACH_LANGUAGE_AND_SIZE, TALL
from tests.support.kiosk_bench import Bench, findings
from tests.support.kiosk_screen import PLACE, Screen, on_screen, to_spots
from tests.support.waiting import wait_until

SIDED = ("cheek", "periorbital")
MARKER = (255, 0, 255)  # on the patient's left cheek, and nowhere else in a face


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return bench.with_close_up()


@pytest.fixture(scope="module")
def marked() -> tuple[np.ndarray, Face]:
    """A portrait as a camera takes it, with a marker on the patient's left cheek; and its face."""
    portrait = data.astronaut()[0:256, 90:346]
    picture = cv2.resize(portrait, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    face = find_face(picture)
    place = zone_polygons(face.points)["left_cheek"].mean(axis=0)
    assert place[0] > face.points[:, 0].mean(), "a camera has the patient's left on its right"
    cv2.circle(picture, tuple(place.round().astype(int).tolist()), round(face.width / 16), MARKER, -1)
    return picture, face


def marker_in(picture: Locator) -> float:
    """Where the marker is on the screen, from 0 on the left of the picture to 1 on its right."""
    seen: list[float] = []

    def shown() -> bool:
        # A browser draws a page before the pictures in it.
        pixels = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB")).astype(int)
        columns = np.nonzero((pixels[:, :, 0] > 170) & (pixels[:, :, 1] < 90) & (pixels[:, :, 2] > 170))[1]
        seen[:] = columns / pixels.shape[1]
        return len(columns) > 50

    wait_until(shown, "the marker on the screen")
    return float(np.mean(seen))


def middle(screen: Screen, zone: str) -> float:
    """The x on the screen of the middle of the button that names `zone`."""
    box = screen.page.locator(f"button[value={zone}]").bounding_box()
    assert box is not None
    return float(box["x"] + box["width"] / 2)


@pytest.mark.parametrize(("language", "size"), EACH_LANGUAGE_AND_SIZE)
def test_areas_stand_on_the_side_on_which_they_are_drawn(
    browser: Browser, address: str, language: str, size: tuple[int, int]
) -> None:
    with on_screen(browser, address, size) as screen:
        to_spots(screen, language)
        for area in SIDED:
            left, right = f"left_{area}", f"right_{area}"
            assert middle(screen, left) < middle(screen, right)
            drawn = [screen.page.evaluate(PLACE, list(inside(zone)))[0] for zone in (left, right)]
            assert drawn[0] < drawn[1]


@pytest.mark.parametrize("language", ["en", "ar"])
def test_the_preview_is_a_mirror_as_the_drawn_face_is(
    browser: Browser, address: str, bench: Bench, marked: tuple[np.ndarray, Face], language: str
) -> None:
    picture, _ = marked
    small = cv2.resize(picture, (480, round(480 * picture.shape[0] / picture.shape[1])))
    bench.camera.preview = lambda *_of: Preview(small, "hold_still", (0.2, 0.2, 0.8, 0.8))  # type: ignore[method-assign]
    with on_screen(browser, address, TALL) as screen:
        screen.tap(f"button[value={language}]")
        screen.walk_to("position")
        screen.page.wait_for_selector("[data-preview][data-good]")
        assert marker_in(screen.page.locator("[data-preview] canvas")) < 0.5


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_a_picture_of_the_result_is_a_mirror_and_its_words_stand_where_it_shows_them(
    browser: Browser,
    address: str,
    bench: Bench,
    marked: tuple[np.ndarray, Face],
    language: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: dict[str, float] = {}
    write = Pen.write

    def noted(pen: Pen, x: float, y: float, text: str, *how: Any) -> None:
        written[text] = x
        write(pen, x, y, text, *how)

    monkeypatch.setattr(Pen, "write", noted)
    spoken: list[Words] = []

    def measure(_capture: Capture, scan: UUID, words: Words = ENGLISH) -> AnalysisOutcome:
        spoken.append(words)
        return AnalysisOutcome(findings(scan), {"zones": _overlay(marked, words)})

    bench.analyst.measure = measure  # type: ignore[method-assign]
    with on_screen(browser, address, TALL) as screen:
        to_spots(screen, language)
        screen.tap()
        screen.arrives_at("result")
        screen.page.click(".tabs a >> nth=1")
        shown = screen.page.locator(".overlay img")
        assert marker_in(shown) < 0.5
        screen.keep(f"{language}-sides-overlay")
    (words,) = spoken
    # Names are broken between words: the first one is enough to see where a label begins.
    for area in SIDED:
        left, right = (_start_of(words.zones[f"{side}_{area}"], written) for side in ("left", "right"))
        assert left < WIDTH / 2 < right
    assert words.sides in written


def _start_of(name: str, written: dict[str, float]) -> float:
    return next(x for text, x in written.items() if text in name and name.startswith(text))


def _overlay(marked: tuple[np.ndarray, Face], words: Words) -> bytes:
    picture, face = marked
    seen = [
        Finding(measure="ita", zone=zone, value=31, unit="deg", low=30, high=32, model="m")  # type: ignore[arg-type]
        for zone in ENGLISH.zones
    ]
    sheet = Sheet(picture, face, 0.25, False, (), words)
    drawn = draw_overlays(sheet, seen, (), np.zeros(picture.shape[:2], bool))["zones"]
    return cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes()
