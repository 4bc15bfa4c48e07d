"""Colour of a frame: its linear light, its sRGB, the individual typology angle of skin in it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray, PixelArray, UInt8Array
from hardware.colour import ita_of_lab, lab
from hardware.srgb import srgb_coded, srgb_linear
from models.analysis.pigment import erythema_index

# A polariser before the lens passes half of what skin has scattered, however it is turned (Jacques 2002).
_PASSED = {"cross": 0.5, "parallel": 0.5}


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


def ita_degrees(light: FloatArray) -> Float64Array:
    """Individual typology angle of linear sRGB (…, 3), in degrees."""
    return ita_of_lab(lab(light))


def plausible(light: FloatArray) -> bool:
    """Whether linear light (n, 3), a value and its replicates, has a colour that skin can have.

    Skin is yellower than grey (b* > 0) and reflects more red than green, whoever's it is (15,256 spectra of
    2,113 people, ISSA); else the picture's own colours are wrong.
    """
    yellow, red = lab(light)[:, 2], erythema_index(light)
    return bool(min(yellow[0], red[0], *np.percentile([yellow, red], 2.5, axis=1)) > 0)
