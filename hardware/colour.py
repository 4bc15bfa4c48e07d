"""Colour: CIE L*a*b* of linear sRGB, and back; the individual typology angle of skin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardware.arrays import Float64Array

# IEC 61966-2-1, linear sRGB to XYZ under D65.
SRGB_TO_XYZ: Float64Array = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
D65_XYZ: Float64Array = SRGB_TO_XYZ.sum(axis=1)


def lab(light: npt.ArrayLike) -> Float64Array:
    """CIE L*a*b* (D65, 2°) of linear sRGB, shape (…, 3)."""
    t = np.asarray(light, np.float64) @ SRGB_TO_XYZ.T / D65_XYZ
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


def xyz_of_lab(values: npt.ArrayLike) -> Float64Array:
    """XYZ over that of the white, whichever it is, of CIE L*a*b*, shape (…, 3)."""
    lab_values = np.asarray(values, np.float64)
    y = (lab_values[..., 0] + 16) / 116
    f = np.stack([y + lab_values[..., 1] / 500, y, y - lab_values[..., 2] / 200], axis=-1)
    return np.asarray(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))


def from_lab(values: npt.ArrayLike) -> Float64Array:
    """Linear sRGB of CIE L*a*b* (D65, 2°), shape (…, 3)."""
    return np.asarray(xyz_of_lab(values) * D65_XYZ @ np.linalg.inv(SRGB_TO_XYZ).T)


def ita_of_lab(values: Float64Array) -> Float64Array:
    """Individual typology angle, atan2(L* − 50, b*) in degrees (Chardon 1991), of L*a*b* (…, 3)."""
    return np.asarray(np.degrees(np.arctan2(values[..., 0] - 50.0, values[..., 2])))
