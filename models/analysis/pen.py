"""The pen of the overlays: thin lines that show on any skin, Noto Sans in the direction of its words."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from hardware.arrays import Float64Array, UInt8Array
from models.analysis.words import Words

PAPER, INK, SOFT_INK, TEAL = (250, 248, 244), (26, 35, 38), (76, 90, 94), (11, 93, 99)
ASCENT = 1.07  # of Noto Sans, in sizes
_FOLDERS = (Path("/usr/share/fonts/truetype/noto"), Path("/usr/share/fonts/noto"))
_FONTS = {"latin": "NotoSans", "arabic": "NotoSansArabic"}


def can_write(words: Words) -> bool:
    """Whether the words can be shaped and ordered here: Arabic needs Raqm, FriBidi and its own font."""
    return not words.right_to_left or (
        bool(features.check("raqm")) and _font_file(words.script, "Regular") is not None
    )


class Pen:
    """Writes on an image in the direction of its words."""

    def __init__(self, image: Image.Image, words: Words) -> None:
        self.draw = ImageDraw.Draw(image)
        self.words = words
        self._direction = "rtl" if words.right_to_left else None  # without Raqm Pillow takes only None

    def width(self, text: str, weight: str, size: int) -> float:
        font = noto(self.words.script, weight, size)
        return float(self.draw.textlength(text, font, direction=self._direction))

    def write(
        self,
        x: float,
        y: float,
        text: str,
        colour: tuple[int, int, int],
        weight: str,
        size: int,
        halo: int = 0,
    ) -> None:
        """One line that begins at `x`, reading away from it; `y` is the top of Noto Sans in any script.

        `halo` pixels of paper around its letters let it be read on a picture.
        """
        font = noto(self.words.script, weight, size)
        anchor = "rs" if self.words.right_to_left else "ls"
        place, way = (x, y + ASCENT * size), self._direction
        self.draw.text(place, text, colour, font, anchor, direction=way, stroke_width=halo, stroke_fill=PAPER)

    def lines(self, text: str, weight: str, size: int, width: float) -> list[str]:
        """The text in lines of at most `width`, where its words allow."""
        lines: list[str] = []
        for word in text.split():
            if lines and self.width(f"{lines[-1]} {word}", weight, size) <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines


def smooth_line(polygon: Float64Array, rounds: int = 3) -> Float64Array:
    """The polygon with its corners cut (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(polygon, -1, axis=0)
        polygon = np.stack([0.75 * polygon + 0.25 * after, 0.25 * polygon + 0.75 * after], 1).reshape(-1, 2)
    return polygon


def halo_line(canvas: UInt8Array, polygon: Float64Array, colour: tuple[int, int, int], width: int) -> None:
    """A closed line (N×2, x and y) on `canvas`, with paper beside it."""
    points = [np.round(polygon * 16).astype(np.int32)]
    cv2.polylines(canvas, points, True, PAPER, width + 2, cv2.LINE_AA, shift=4)
    cv2.polylines(canvas, points, True, colour, width, cv2.LINE_AA, shift=4)


def _font_file(script: str, weight: str) -> Path | None:
    places = (folder / f"{_FONTS[script]}-{weight}.ttf" for folder in _FOLDERS)
    return next((path for path in places if path.is_file()), None)


@lru_cache(maxsize=16)
def noto(script: str, weight: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Noto Sans where the system has it, else the face that Pillow carries."""
    path = _font_file(script, weight)
    return ImageFont.truetype(str(path), size) if path else ImageFont.load_default(size)
