"""The lesion's sheet, for a clinician: its outline, with the places on which its class rests."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from hardware.arrays import FloatArray, UInt8Array
from models.analysis.lesion import NETWORK, FoundLesion
from models.analysis.outline import NETWORK as OUTLINE
from models.analysis.pen import INK, PAPER, SOFT_INK, Pen, halo_line, smooth_line
from models.analysis.saliency import GRID, Saliency
from models.analysis.words import ENGLISH
from models.networks.lesion_views import CLASSES
from models.networks.manifest import load_manifest

WIDTH, MARGIN, GAP = 1200, 32, 24
_TITLE, _BAR, _LINE, _HEADING_LINE = 92, 78, 36, 34
NAMES = {
    "akiec": "actinic keratosis or Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
FLAT = 0.5
"""With falls in log-odds below this (from a chance of .5 to .38) no place stands out; no scale ends lower."""


def draw_lesion(picture: UInt8Array, lesion: FoundLesion, found: Saliency) -> UInt8Array:
    """H×1200×3 uint8 sRGB: the close-up (H×W×3 uint8 sRGB) and a map of `found` for the likeliest class.

    A melanoma-like lesion has one for melanoma too.
    """
    likeliest = CLASSES[int(lesion.chances.argmax())]
    kinds = [likeliest] if likeliest == "mel" or not lesion.melanoma_like else [likeliest, "mel"]
    width = (WIDTH - 2 * MARGIN - len(kinds) * GAP) // (1 + len(kinds))
    lefts = [MARGIN + number * (width + GAP) for number in range(1 + len(kinds))]
    panels = [_panel(picture, lesion.mask, found, kind, width) for kind in (None, *kinds)]
    headings = ["Close-up with the outline"]
    headings += [f"For {NAMES[kind]}, chance {lesion.chances[CLASSES.index(kind)]:.2f}" for kind in kinds]
    rule = Pen(Image.new("RGB", (1, 1)), ENGLISH)
    wrapped = [rule.lines(text, "Bold", 26, width) for text in headings]
    verdict, caption = _verdict(lesion, likeliest), _caption()
    top = _TITLE + 40 * len(verdict) + _HEADING_LINE * max(map(len, wrapped)) + 32
    below = top + panels[0].shape[0]
    canvas = np.full((below + _BAR + _LINE * len(caption) + MARGIN, WIDTH, 3), PAPER, np.uint8)
    for left, panel in zip(lefts, panels, strict=True):
        canvas[top:below, left : left + panel.shape[1]] = panel
    ramp = _coloured(np.linspace(0, 1, width)[None])
    for left in lefts[1:]:
        canvas[below + 14 : below + 30, left : left + width] = ramp
    image = Image.fromarray(canvas)
    pen = Pen(image, ENGLISH)
    pen.write(MARGIN, 24, "What the class rests on", INK, "Bold", 48)
    for number, line in enumerate(verdict):
        pen.write(MARGIN, _TITLE + 40 * number, line, SOFT_INK, "Regular", 30)
    for left, lines in zip(lefts, wrapped, strict=True):
        for number, line in enumerate(reversed(lines), start=1):
            pen.write(left, top - 12 - _HEADING_LINE * number, line, INK, "Bold", 26)
    for left, kind in zip(lefts[1:], kinds, strict=True):
        _write_scale(pen, left, below + 32, width, found, kind)
    for number, line in enumerate(caption):
        pen.write(MARGIN, below + _BAR + _LINE * number, line, SOFT_INK, "Regular", 24)
    return np.asarray(image)


def _verdict(lesion: FoundLesion, likeliest: str) -> list[str]:
    lines = [f"Likeliest: {NAMES[likeliest]}."]
    if lesion.melanoma_like:
        lines.append(f"Melanoma-like, {lesion.melanoma:.2f}: never to be called benign.")
    return lines


def _caption() -> list[str]:
    manifest = load_manifest()
    models = " and ".join(manifest.entry(name).reference for name in (NETWORK, OUTLINE))
    return [
        "Bright: covering this place makes the class less likely. Darkest: no change, or more likely.",
        "It shows what the network used, not where disease is, and nothing finer than "
        f"1/{GRID} of the square.",
        "In tests it explained the class no better than the lesion's inside as a whole.",
        "Dermoscopic close-up, its scale not known. Support for a decision, not a diagnosis.",
        f"By {models}.",
    ]


def _panel(
    picture: UInt8Array, mask: UInt8Array, found: Saliency, kind: str | None, width: int
) -> UInt8Array:
    """H×width×3: the picture in the saliency's window, or its map for `kind`, with the outline."""
    x0, y0, x1, y1 = (round(edge) for edge in found.window)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(picture.shape[1], x1), min(picture.shape[0], y1)
    scale = width / (x1 - x0)
    size = (width, max(1, round((y1 - y0) * scale)))
    if kind is None:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        panel = np.asarray(cv2.resize(picture[y0:y1, x0:x1], size, interpolation=how), np.uint8)
    else:
        falls = found.over(kind, (picture.shape[0], picture.shape[1]))[y0:y1, x0:x1]
        levels = np.clip(
            cv2.resize(falls, size, interpolation=cv2.INTER_LINEAR) / _highest(found, kind), 0, 1
        )
        panel = _coloured(levels)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        # Every pixel of an outline would only make it rough.
        line = contour[:: max(1, len(contour) // 60), 0].astype(float)
        halo_line(panel, smooth_line((line + 0.5 - [x0, y0]) * scale - 0.5), INK, 2)
    return panel


def _coloured(levels: FloatArray) -> UInt8Array:
    """Cividis, which is perceptually uniform for every kind of colour vision, of levels 0…1 (h, w)."""
    mapped = cv2.applyColorMap(np.round(levels * 255).astype(np.uint8), cv2.COLORMAP_CIVIDIS)
    return np.ascontiguousarray(mapped[..., ::-1])


def _highest(found: Saliency, kind: str) -> float:
    return max(FLAT, float(found.falls[CLASSES.index(kind)].max()))


def _write_scale(pen: Pen, left: int, top: int, width: int, found: Saliency, kind: str) -> None:
    end = f"{_highest(found, kind):.1f}"
    pen.write(left, top, "0", INK, "Regular", 22)
    pen.write(left + width - pen.width(end, "Regular", 22), top, end, INK, "Regular", 22)
    flat = found.falls[CLASSES.index(kind)].max() < FLAT
    words = "no place stands out" if flat else "fall in log-odds"
    pen.write(left + (width - pen.width(words, "Regular", 22)) / 2, top, words, SOFT_INK, "Regular", 22)
