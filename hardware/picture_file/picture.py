"""A picture that was read: upright RGB of a known meaning, and where there is nothing of it to see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hardware.arrays import BoolArray, FloatArray, PixelArray, UInt8Array
from hardware.picture_file.unreadable import Unreadable
from hardware.srgb import srgb_coded, srgb_linear

Number = TypeVar("Number", bound=np.generic)

# A pixel that lets more than this of white through shows white rather than itself.
_LEAST_ALPHA = 0.98
_CLEAR = "This picture is transparent everywhere: there is nothing in it to measure."


@dataclass(frozen=True)
class Picture:
    """A picture, upright.

    `pixels` is H×W×3 RGB, uint8 or uint16, of which `colour` says what they mean: "srgb", or "linear-srgb"
    with the highest number = reflectance 1.0. `shown` is H×W bool: false where the file is transparent, and
    white is all that can be seen; None where it is opaque everywhere.
    """

    pixels: PixelArray
    colour: str
    shown: BoolArray | None = None

    def srgb8(self) -> UInt8Array:
        """H×W×3 uint8 sRGB."""
        if self.pixels.dtype == np.uint8 and self.colour == "srgb":
            return np.asarray(self.pixels, np.uint8)
        return np.asarray(_to_srgb8(np.iinfo(self.pixels.dtype).max, self.colour)[self.pixels])


def on_white(picture: Picture, alpha: PixelArray | None) -> Picture:
    """The picture laid on white by its `alpha` (H×W, uint8 or uint16), as a browser does: in coded sRGB.

    Raises Unreadable where all of it is clear.
    """
    if alpha is None or alpha.min() == np.iinfo(alpha.dtype).max:
        return picture
    share = alpha.astype(np.float32) / np.iinfo(alpha.dtype).max
    shown = share >= _LEAST_ALPHA
    if not shown.any():
        raise Unreadable(_CLEAR)
    pixels, most = picture.pixels.copy(), np.iinfo(picture.pixels.dtype).max
    pixels[share == 0] = most
    partly = (share > 0) & (share < 1)
    values, over = pixels[partly] / most, share[partly][:, None]
    laid: FloatArray
    if picture.colour == "srgb":
        laid = values * over + 1 - over
    else:
        laid = srgb_linear(srgb_coded(values) * over + 1 - over)
    pixels[partly] = np.round(laid * most)
    return replace(picture, pixels=pixels, shown=None if shown.all() else shown)


def upright(picture: Picture, orientation: int) -> Picture:
    """The picture as seen when its EXIF orientation (1 to 8) is followed."""
    if orientation == 1:
        return picture
    shown = None if picture.shown is None else turned(picture.shown, orientation)
    return replace(picture, pixels=turned(picture.pixels, orientation), shown=shown)


def turned(pixels: npt.NDArray[Number], orientation: int) -> npt.NDArray[Number]:
    """H×W(×n) pixels as seen when an EXIF orientation (1 to 8) is followed."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


@lru_cache(maxsize=4)
def _to_srgb8(most: int, colour: str) -> UInt8Array:
    values = np.arange(most + 1) / most
    coded = values if colour == "srgb" else srgb_coded(values)
    return np.asarray(np.round(255 * coded), np.uint8)
