"""Pigment indices of skin from its reflectance in the red, the green, the blue."""

from __future__ import annotations

import numpy as np

from hardware.arrays import FloatArray

# One part in a thousand: below this a camera counts noise.
_DARKEST = 1e-3


def optical_density(light: FloatArray) -> FloatArray:
    """−log10 of linear light (…, 3), so that pigments add."""
    return np.asarray(-np.log10(np.clip(light, _DARKEST, None)))


def melanin_index(light: FloatArray) -> FloatArray:
    """100·log10(1/R_red) of linear light (…, 3): more melanin, higher."""
    return 100.0 * optical_density(light)[..., 0]


def erythema_index(light: FloatArray) -> FloatArray:
    """100·log10(R_red/R_green) of linear light (…, 3): more blood, higher; it rises a little with melanin."""
    density = optical_density(light)
    return 100.0 * (density[..., 1] - density[..., 0])
