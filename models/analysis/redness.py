"""Redness: the places of a face that are redder than the rest of it, where its melanin lets that be told."""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array, FloatArray, UInt8Array
from models.analysis.colour import ita_degrees, plausible
from models.analysis.pigment import erythema_index

VERSION = "redness-1"
# On skin darker than this (ITA) the erythema index follows melanin, and misses what is red: on phantoms with
# redness in them at most one place in eight was found, on the darkest none.
LEAST_ITA = 10.0
# Erythema index above the median of the same face from which a place is called red.
ABOVE_MEDIAN = 6.0
SMOOTHING_MM = 0.8


def red_places(light: Float32Array, skin: UInt8Array, mm_per_px: float) -> BoolArray:
    """H×W bool: skin whose erythema index is well above the median of this face."""
    weight = (skin > 0).astype(np.float32)
    index = erythema_index(light).astype(np.float32)
    middle = float(np.median(index[skin > 0]))
    sigma = max(0.5, SMOOTHING_MM / mm_per_px)
    total = cv2.GaussianBlur((index - middle) * weight, (0, 0), sigma)
    smooth = total / (cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-3)
    return np.asarray((smooth > ABOVE_MEDIAN) & (skin > 0))


def shows_redness(light: FloatArray, skin: UInt8Array) -> bool:
    """Whether redness can be told from melanin on this face: skin of a plausible colour, and not dark."""
    if not skin.any():
        return False
    mean = light[skin > 0].mean(axis=0)[None]
    return bool(plausible(mean) and ita_degrees(mean)[0] >= LEAST_ITA)
