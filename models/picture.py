"""Reading any picture file as an upright one in sRGB, within bounds checked before anything is decoded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from hardware.picture_file import read_picture_file

MIN_PIXELS_A_SIDE = 16


def read_picture(path: Path) -> np.ndarray:
    """The picture in `path` as H×W×3 uint8 sRGB, upright as its EXIF orientation says.

    A 16-bit picture is taken for linear light with 65,535 = reflectance 1.0, as everywhere in this software,
    and is given the sRGB curve. Raises PictureError as read_picture_file does.
    """
    picture = read_picture_file(path)
    if picture.dtype == np.uint16:
        return np.asarray(_srgb_curve()[picture])
    return picture


@lru_cache(maxsize=1)
def _srgb_curve() -> np.ndarray:
    linear = np.arange(65536) / 65535.0
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(coded * 255).astype(np.uint8)
