"""Numbers whose encoding is known, made a Picture: untouched where they are sRGB already, as most are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hardware.arrays import FloatArray, PixelArray, UInt8Array
from hardware.picture_file.decode import Numbers
from hardware.picture_file.encoding import LINEAR_SRGB, SRGB, Encoding, as_grey
from hardware.picture_file.picture import Picture
from hardware.picture_file.unreadable import Unreadable

_PIXELS_AT_ONCE = 500_000
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_OUTSIDE = "The floating-point numbers of this picture lie outside 0…1, where 1 is white: scale them."


def converted(numbers: Numbers, encoding: Encoding) -> Picture:
    """H×W×(1, 3 or 4) `numbers` as they are where they are (linear) sRGB, else in 16 bits of linear sRGB.

    Raises Unreadable where floating-point numbers leave 0…1.
    """
    plain = _plain(encoding)
    if numbers.dtype.kind == "f":
        if not (np.isfinite(numbers).all() and numbers.min() >= -0.001 and numbers.max() <= 1.001):
            raise Unreadable(_OUTSIDE, "colour_unknown")
        numbers = np.clip(numbers, 0, 1)
        if plain is not None:
            numbers = np.round(numbers * 65535).astype(np.uint16)
    if plain is not None:
        rgb = numbers if numbers.shape[2] == 3 else np.repeat(numbers, 3, axis=2)
        return Picture(np.ascontiguousarray(rgb), plain)
    height, width, channels = numbers.shape
    light = np.empty((height, width, 3), np.uint16)
    rows = max(1, _PIXELS_AT_ONCE // width)
    read = _reader(encoding, numbers.dtype)
    for top in range(0, height, rows):
        part = numbers[top : top + rows]
        linear = _within_srgb(read(part.reshape(-1, channels)))
        # Half a step more, then cut: what is cut off is what np.round would look for in twice the time.
        light[top : top + rows] = (linear * 65535 + 0.5).astype(np.uint16).reshape(*part.shape[:2], 3)
    return Picture(light, "linear-srgb")


def _reader(encoding: Encoding, dtype: np.dtype[Any]) -> Callable[[npt.NDArray[Any]], FloatArray]:
    """`encoding` for numbers of `dtype`, each curve as a table where they are whole."""
    if dtype.kind == "f":
        return encoding.linear
    levels = np.linspace(0, 1, np.iinfo(dtype).max + 1)
    curves = {curve: np.asarray(curve(levels), np.float32) for curve in set(encoding.curves)}
    tables = [curves[curve] for curve in encoding.curves]

    def read(numbers: PixelArray) -> FloatArray:
        shaped = np.empty(numbers.shape, np.float32)
        for n, table in enumerate(tables):
            shaped[:, n] = table[numbers[:, n]]
        return encoding.mix(shaped)

    if encoding.is_matrix or dtype != np.uint8:
        return read

    def read_each_once(numbers: UInt8Array) -> FloatArray:
        """Few of the colours of a picture of 8 bits are different, and a table takes long for each."""
        packed = np.zeros((len(numbers), 4), np.uint8)
        packed[:, : numbers.shape[1]] = numbers
        different, places = np.unique(packed.view(np.uint32).ravel(), return_inverse=True)
        once = different.view(np.uint8).reshape(-1, 4)[:, : numbers.shape[1]]
        return read(once)[places]

    return read_each_once


@lru_cache(maxsize=16)
def _plain(encoding: Encoding) -> str | None:
    """The name of what `encoding` is to the eye, where no conversion is needed; None for all others."""
    if encoding.channels == 4:
        return None
    for name, known in (("srgb", SRGB), ("linear-srgb", LINEAR_SRGB)):
        if encoding.is_close_to(known if encoding.channels == 3 else as_grey(known)):
            return name
    return None


def _within_srgb(linear: FloatArray) -> FloatArray:
    """Linear sRGB (n, 3) in 0…1: what lies below 0 is drawn to the grey of its luminance, what lies above 1
    is cut off as in a camera, so that it still counts as overexposed.
    """
    least = np.minimum(np.minimum(linear[:, 0], linear[:, 1]), linear[:, 2])
    outside = np.flatnonzero(least < 0)
    if len(outside):
        colours = linear[outside]
        grey = np.maximum(colours @ _LUMINANCE, 0)[:, None]
        low = least[outside][:, None]
        linear[outside] = grey + (colours - grey) * (grey / (grey - low))
    return np.asarray(np.clip(linear, 0, 1))
