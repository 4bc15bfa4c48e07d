"""Colour: how far two colours are apart, and the matrix that makes a camera's colours right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardware.colour import ita_of_lab, lab
from hardware.skin_spectra import skin_spectra
from hardware.spectra import camera_rgb, linear_srgb

Array = npt.NDArray[np.float64]

# Dark skin is a small part of any set of skins, and its errors show most: it counts this much more.
_DARK_ITA, _DARK_WEIGHT = -30.0, 2.0


def delta_e00(first: Array, second: Array) -> Array:
    """Colour difference CIEDE2000 between L*a*b* values (…, 3); formulas of Sharma, Wu and Dalal (2005)."""
    l1, a1, b1 = np.moveaxis(np.asarray(first, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, np.float64), -1, 0)
    mean_c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(mean_c7 / (mean_c7 + 25.0**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1 = np.degrees(np.arctan2(b1, stretch * a1)) % 360
    h2 = np.degrees(np.arctan2(b2, stretch * a2)) % 360
    turn = np.where(c1 * c2 == 0, 0.0, (h2 - h1 + 180) % 360 - 180)
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    # The mean of two angles lies on the shorter way between them.
    mean_h = np.where(c1 * c2 == 0, h1 + h2, h1 + turn / 2) % 360

    def cosine(times: float, minus: float) -> Array:
        return np.asarray(np.cos(np.radians(times * mean_h - minus)))

    t = 1 - 0.17 * cosine(1, 30) + 0.24 * cosine(2, 0) + 0.32 * cosine(3, -6) - 0.20 * cosine(4, 63)
    around_l = (mean_l - 50) ** 2
    s_l = 1 + 0.015 * around_l / np.sqrt(20 + around_l)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    c7 = mean_c**7
    swing = np.radians(60 * np.exp(-(((mean_h - 275) / 25) ** 2)))
    rotation = -2 * np.sqrt(c7 / (c7 + 25.0**7)) * np.sin(swing)
    dl, dc, dh = (l2 - l1) / s_l, (c2 - c1) / s_c, d_hue / s_h
    return np.asarray(np.sqrt(np.maximum(dl**2 + dc**2 + dh**2 + rotation * dc * dh, 0)))


def skin_matrix(led: str, sensor: str) -> Array:
    """The 3×3 that takes `sensor`'s colours under `led` (white = 1, rows of pixels @ matrix) to linear sRGB.

    It minimises Σ ΔE00² over modelled skins. None of them was measured on anybody.
    """
    spectra = skin_spectra()
    wanted = lab(linear_srgb(spectra))
    weights = np.where(ita_of_lab(wanted) < _DARK_ITA, _DARK_WEIGHT, 1.0)
    return fit_matrix(camera_rgb(spectra, led, sensor), linear_srgb(spectra), weights)


def fit_matrix(seen: Array, wanted: Array, weights: Array) -> Array:
    """The 3×3 with the least Σ w·ΔE00²(seen @ matrix, wanted) for colours N×3 in linear light.

    Levenberg and Marquardt's method from the least-squares solution in linear light.
    """
    target, root = lab(wanted), np.sqrt(weights)

    def errors(flat: Array) -> Array:
        return np.asarray(root * delta_e00(lab(seen @ flat.reshape(3, 3)), target))

    flat: Array = np.asarray(np.linalg.lstsq(seen, wanted, rcond=None)[0].ravel(), np.float64)
    now, damping, step = errors(flat), 1e-3, 1e-6
    for _ in range(60):
        slope = np.stack([(errors(flat + step * unit) - now) / step for unit in np.eye(9)], axis=1)
        square = slope.T @ slope
        change = np.linalg.solve(
            square + damping * np.diag(np.diag(square)) + 1e-12 * np.eye(9), -slope.T @ now
        )
        tried = errors(flat + change)
        if tried @ tried < now @ now:
            gained = now @ now - tried @ tried
            flat, now, damping = flat + change, tried, damping / 5
            if gained < 1e-9 * (now @ now + 1e-9):
                break
        elif damping > 1e6:
            break
        else:
            damping *= 5
    return np.asarray(flat.reshape(3, 3))
