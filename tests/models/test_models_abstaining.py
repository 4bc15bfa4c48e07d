"""What a picture cannot show is not measured, with a flag: it is never a zero, and never an absurd number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import cv2
import numpy as np
import pytest

from hardware.capture import Capture, Frame
from hardware.colour import ita_of_lab, lab
from hardware.spectra import linear_srgb
from models.analysis.capture import Analysis, analyse_capture
from models.analysis.colour import linear
from models.analysis.face import find_face
from models.analysis.findings import Field, measure
from models.analysis.overlay import Sheet, draw_overlays
from models.analysis.pen import Pen
from models.analysis.pigment import erythema_index
from models.analysis.redness import shows_redness
from models.analysis.refusal import Refused
from models.analysis.spots import find_spots
from sync.wire.findings import Finding
from tests.support.skin import SKIN
from tests.support.skin_archive import measured_skin

pytestmark = pytest.mark.usefixtures("one_look")

SCAN = UUID("11111111-2222-4333-8444-555555555555")
COLOUR = {"ita", "melanin_index", "erythema_index"}
TEST_DATA = Path(__file__).parents[2] / "build" / "test-data"


def _capture(light: np.ndarray, lights: tuple[str, ...] = ("white",)) -> Capture:
    """`light` (linear, 1.0 = all of it) as seen under these lamps, half of it through a polariser."""
    frames = [
        Frame(lamp, np.round(light * (65535 if lamp == "white" else 32767)).astype(np.uint16), 8000, 1.0, n)
        for n, lamp in enumerate(lights)
    ]
    return Capture("test", tuple(frames), "nominal-test")


def _of(analysis: Analysis, zone: str = "face") -> dict[str, Finding]:
    return {f.measure: f for f in analysis.findings.findings if f.zone == zone}


@pytest.fixture(scope="module")
def light(large_portrait: np.ndarray) -> np.ndarray:
    return linear(large_portrait, "srgb")


@pytest.fixture(scope="module")
def plain(light: np.ndarray) -> Analysis:
    return analyse_capture(_capture(light), SCAN)


@pytest.mark.parametrize("lamp", ["cross", "parallel"])
def test_one_polarised_picture_alone_is_as_bright_as_the_skin_is(
    light: np.ndarray, plain: Analysis, lamp: str
) -> None:
    alone = _of(analyse_capture(_capture(light, (lamp,)), SCAN))
    for name in COLOUR:
        assert alone[name].value == pytest.approx(_of(plain)[name].value, abs=0.3), name


def test_shine_is_not_counted_as_spots(light: np.ndarray) -> None:
    alone = analyse_capture(_capture(light, ("parallel",)), SCAN)
    assert "spot_count" not in _of(alone)
    assert "spots_not_counted" in alone.findings.quality
    assert "spots" not in alone.overlays


def test_a_face_in_blue_light_has_no_skin_colour(light: np.ndarray) -> None:
    blue = analyse_capture(_capture(np.clip(light * [0.35, 0.6, 1.3], 0, 1)), SCAN)
    assert "implausible_colour" in blue.findings.quality
    assert not COLOUR & set(_of(blue))


def test_a_face_in_green_light_has_no_skin_colour(light: np.ndarray) -> None:
    green = analyse_capture(_capture(np.clip(light * [0.4, 1.2, 0.5], 0, 1)), SCAN)
    assert "implausible_colour" in green.findings.quality
    assert not COLOUR & set(_of(green))


def test_no_angle_of_skin_colour_ever_goes_over_the_wrap() -> None:
    rng = np.random.default_rng(7)
    for cast in rng.uniform(0.2, 1.6, (60, 3)):
        blocks = np.kron(rng.normal(1.0, 0.2, (12, 12, 3)), np.ones((10, 10, 1)))
        light = np.clip(SKIN * cast * blocks, 1e-3, 1).astype(np.float32)
        findings, flags = measure(Field(light, {"face": np.ones((120, 120), bool)}, 0.5, "n"), None, None)
        made = {finding.measure: finding for finding in findings}
        assert (not COLOUR & set(made)) == ("implausible_colour" in flags)
        if "ita" in made:
            assert -90 < made["ita"].low <= made["ita"].high < 90
            assert made["erythema_index"].low > 0


def test_every_skin_measured_on_people_has_a_plausible_colour() -> None:
    spectra, _ = measured_skin(TEST_DATA)
    light = linear_srgb(spectra)
    assert (lab(light)[:, 2] > 0).all()
    assert (erythema_index(light) > 0).all()


def test_redness_is_measured_on_light_skin_and_not_on_dark() -> None:
    spectra, _ = measured_skin(TEST_DATA)
    light = np.clip(linear_srgb(spectra), 0, 1)
    angles = ita_of_lab(lab(light))
    skin = np.full((20, 20), 255, np.uint8)
    for angle in (-40, 0, 25, 50):
        nearest = light[int(np.argmin(np.abs(angles - angle)))]
        assert shows_redness(np.tile(nearest, (20, 20, 1)), skin) == (angle > 10)


@pytest.mark.parametrize(
    ("blotches", "mm_per_px", "seen"), [(0.02, 0.16, True), (0.15, 0.16, False), (0.02, 0.7, False)]
)
def test_spots_are_counted_only_where_they_would_be_seen(
    blotches: float, mm_per_px: float, seen: bool
) -> None:
    grain = cv2.GaussianBlur(np.random.default_rng(3).normal(0.0, 1.0, (400, 400)), (0, 0), 5)
    light = SKIN * np.clip(1 + blotches * grain / grain.std(), 0.1, 2)[..., None].astype(np.float32)
    found = find_spots(light, np.full((400, 400), 255, np.uint8), mm_per_px)
    assert found == [] if seen else found is None


def test_a_small_face_has_no_count_of_spots(portrait: np.ndarray) -> None:
    small = analyse_capture(_capture(linear(portrait, "srgb")), SCAN)
    assert "spot_count" not in _of(small)
    assert "spots_not_counted" in small.findings.quality


@pytest.mark.parametrize("share", [0.012, 0.018, 0.022, 0.026, 0.035])
def test_a_blurred_bare_face_is_never_told_to_take_off_what_covers_it(
    large_portrait: np.ndarray, share: float
) -> None:
    sigma = share * find_face(large_portrait).width
    blurred = cv2.GaussianBlur(large_portrait, (0, 0), sigma)
    try:
        analysis = analyse_capture(_capture(linear(blurred, "srgb")), SCAN)
    except Refused as refused:
        assert refused.code == "too_blurred"
    else:
        assert "spot_count" not in _of(analysis) or "soft_focus" not in analysis.findings.quality


def test_a_picture_of_the_zones_says_that_its_colours_are_not_calibrated(
    large_portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(self: Pen, x: float, y: float, text: str, *style: object) -> None:
        written.append(text)

    monkeypatch.setattr(Pen, "write", write)
    face = find_face(large_portrait)
    sheet = Sheet(large_portrait, face, 0.2, True, ("White light.", "today"))
    ita = Finding(measure="ita", zone="nose", value=51.2, unit="deg", low=50, high=52, model="m")
    assert set(draw_overlays(sheet, [ita], None, None)) == {"zones"}
    assert "colour 51°" in written
    written.clear()
    draw_overlays(replace(sheet, true_colour=False), [ita], None, None)
    assert "Nose" in written
    assert sheet.words.areas_uncalibrated in written
    assert not any("51" in text for text in written)


def test_areas_without_a_plausible_colour_are_still_shown(
    large_portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(Pen, "write", lambda self, x, y, text, *style: written.append(text))
    sheet = Sheet(large_portrait, find_face(large_portrait), 0.2, True, ("White light.", "today"))
    spots = Finding(measure="spot_count", zone="nose", value=1, unit="1", low=0, high=3, model="m")
    draw_overlays(sheet, [spots], (), None)
    assert written.count("Nose") == 2 and "Chin" not in written
    assert sheet.words.areas_uncalibrated in written and sheet.words.areas_line not in written
