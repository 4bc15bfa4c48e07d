"""sRGB's transfer curve (IEC 61966-2-1): from coded numbers to linear light, and back."""

from __future__ import annotations

import numpy as np

from hardware.arrays import FloatArray


def srgb_linear(coded: FloatArray) -> FloatArray:
    """Linear light of coded numbers, both 0…1, any shape; below 0 it goes on straight."""
    return np.where(coded <= 0.04045, coded / 12.92, ((np.maximum(coded, 0) + 0.055) / 1.055) ** 2.4)


def srgb_coded(light: FloatArray) -> FloatArray:
    """The inverse of `srgb_linear`."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)
