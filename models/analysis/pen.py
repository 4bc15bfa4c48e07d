"""The pen that writes on overlays: Noto Sans in the direction of its words."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from models.analysis.words import Words

PAPER, INK, SOFT_INK, TEAL = (250, 248, 244), (26, 35, 38), (76, 90, 94), (11, 93, 99)
ASCENT = 1.07  # of Noto Sans, in sizes
_FOLDERS = (Path("/usr/share/fonts/truetype/noto"), Path("/usr/share/fonts/noto"))
_FONTS = {"latin": "NotoSans", "arabic": "NotoSansArabic"}


def can_write(words: Words) -> bool:
    """Whether the words can be shaped and ordered here: Arabic needs Raqm, FriBidi and its own font."""
    return not words.right_to_left or (
        features.check("raqm") and _font_file(words.script, "Regular") is not None
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
        self, x: float, y: float, text: str, colour: tuple[int, int, int], weight: str, size: int
    ) -> None:
        """One line that begins at `x`, reading away from it; `y` is the top of Noto Sans in any script."""
        font = noto(self.words.script, weight, size)
        anchor = "rs" if self.words.right_to_left else "ls"
        baseline = y + ASCENT * size
        self.draw.text((x, baseline), text, colour, font, anchor, direction=self._direction)

    def lines(self, text: str, weight: str, size: int, width: float) -> list[str]:
        """The text in lines of at most `width`, where its words allow."""
        lines: list[str] = []
        for word in text.split():
            if lines and self.width(f"{lines[-1]} {word}", weight, size) <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines


def _font_file(script: str, weight: str) -> Path | None:
    places = (folder / f"{_FONTS[script]}-{weight}.ttf" for folder in _FOLDERS)
    return next((path for path in places if path.is_file()), None)


@lru_cache(maxsize=16)
def noto(script: str, weight: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Noto Sans where the system has it, else the face that Pillow carries."""
    path = _font_file(script, weight)
    return ImageFont.truetype(str(path), size) if path else ImageFont.load_default(size)
