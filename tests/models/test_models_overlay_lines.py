"""The lines of an overlay are seen where it is shown smallest, on skin of every tone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from hardware.srgb import srgb_linear
from models.analysis.face import Face, find_face
from models.analysis.overlay import WIDTH, Sheet, draw_overlays
from sync.wire.findings import Finding

SHOWN_HIGH = 550  # on a screen of 1280×800
SEEN = 3.0  # of contrast, as WCAG asks of what is no text
TONES = {"light": (236, 200, 180), "medium": (190, 140, 112), "dark": (92, 62, 48)}
FINDINGS = [
    Finding(measure="spot_count", zone=zone, value=3, unit="1", low=2, high=4, model="test@1")
    for zone in ("forehead", "left_cheek", "right_cheek", "nose", "chin")
]


@dataclass(frozen=True)
class At:
    x: float
    y: float
    radius_px: float = 3.0


@pytest.fixture(scope="module")
def face(large_portrait: np.ndarray) -> Face:
    return find_face(large_portrait)


def _luminance(picture: np.ndarray) -> np.ndarray:
    return np.asarray(srgb_linear(picture / 255.0) @ [0.2126, 0.7152, 0.0722])


def _shown(face: Face, tone: tuple[int, int, int], shape: tuple[int, ...], **drawn: list[At]) -> np.ndarray:
    """The contrast of each pixel, as it is shown, to the skin around it."""
    flat = np.broadcast_to(np.array(tone, np.uint8), shape).copy()
    sheet = Sheet(flat, face, 0.25, False, ("White light.",))
    sheets = draw_overlays(sheet, FINDINGS, drawn.get("spots"), None)
    picture = sheets["spots" if drawn else "zones"]
    scale = SHOWN_HIGH / picture.shape[0]
    size = (round(WIDTH * scale), SHOWN_HIGH)
    here, skin = (_luminance(cv2.resize(p, size, interpolation=cv2.INTER_AREA)) for p in (picture, flat))
    around = float(skin[0, 0])
    return np.maximum(here + 0.05, around + 0.05) / np.minimum(here + 0.05, around + 0.05)


@pytest.mark.parametrize("tone", sorted(TONES))
def test_a_ring_is_seen_on_the_smallest_screen(large_portrait: np.ndarray, face: Face, tone: str) -> None:
    cheek, nose = (At(*face.points[index][:2]) for index in (50, 4))
    shape = large_portrait.shape
    there, elsewhere = (_shown(face, TONES[tone], shape, spots=[place]) for place in (cheek, nose))
    rings = (there != elsewhere) & (there >= SEEN)
    assert rings.sum() >= 12  # at least half of the way around a ring of 9 pixels, of which 4 are shown


@pytest.mark.parametrize("tone", ["light", "dark"])
def test_the_areas_are_seen_beneath_the_rings(large_portrait: np.ndarray, face: Face, tone: str) -> None:
    """Each is outlined wherever it lies."""
    shown = _shown(face, TONES[tone], large_portrait.shape, spots=[At(*face.points[4][:2])])
    top, bottom, left, right = 130, 440, 170, 400  # the face; words are outside it
    assert (shown[top:bottom, left:right] >= SEEN).sum() > 1000
