"""Colour of skin: linear sRGB, CIE L*a*b*, individual typology angle."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray, PixelArray, UInt8Array
from hardware.srgb import srgb_coded, srgb_linear

# A polariser before the lens passes half of what skin has scattered, however it is turned (Jacques 2002).
_PASSED = {"cross": 0.5, "parallel": 0.5}
# IEC 61966-2-1, linear sRGB to XYZ under D65.
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _XYZ.sum(axis=1)


def linear(pixels: PixelArray, colour: str) -> Float32Array:
    """H×W×3 float32 linear light, 1.0 = reflectance 1.0, from a Frame's pixels (uint8 or uint16).

    `colour` is a Frame's: "srgb" is decoded; "linear-srgb" is only scaled, and so is "raw".
    """
    levels = np.iinfo(pixels.dtype).max + 1
    return _curve(levels, colour == "srgb")[pixels]


def reflected(pixels: PixelArray, colour: str, light: str) -> Float32Array:
    """Linear light of a Frame's pixels as `linear`, as if no polariser had been there; `light` is its lamp.

    Cross-polarised it is the diffuse reflectance; parallel-polarised it holds the shine twice.
    """
    values = linear(pixels, colour)
    passed = _PASSED.get(light)
    return values if passed is None else values / np.float32(passed)


@lru_cache(maxsize=4)
def _curve(levels: int, decode: bool) -> Float32Array:
    value = np.arange(levels) / (levels - 1)
    return (srgb_linear(value) if decode else value).astype(np.float32)


def to_srgb8(light: Float32Array) -> UInt8Array:
    """uint8 sRGB of linear light in 0…1, any shape."""
    coded = srgb_coded(np.arange(4096) / 4095.0)
    index = np.clip(light * 4095.0 + 0.5, 0, 4095).astype(np.uint16)
    return np.asarray(np.round(coded * 255).astype(np.uint8)[index])


def lab(light: FloatArray) -> Float64Array:
    """CIE L*a*b* (D65) of linear sRGB, shape (…, 3)."""
    t = np.asarray(light, np.float64) @ _XYZ.T / _WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(np.maximum(t, 0)), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


def ita_degrees(light: FloatArray) -> Float64Array:
    """Individual typology angle, atan2(L* − 50, b*) in degrees (Chardon 1991), of linear sRGB (…, 3)."""
    values = lab(light)
    return np.asarray(np.degrees(np.arctan2(values[..., 0] - 50.0, values[..., 2])))
