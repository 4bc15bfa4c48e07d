"""Reflectance spectra of skin from its optics, for fitting colour without anybody's measured skin.

An epidermis with melanin over a half-space of dermis with blood (Jacques 2013, with the diffuse reflectance
of Farrell 1992 for pencil beams added up). Blood runs in vessels, so its inner part sees less light: van
Veen's correction (2002), without which the Soret band comes out far too deep. The surface adds its own few
per cent, as a spectrophotometer with specular component included sees it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardware.arrays import Float64Array
from hardware.spectra import WAVELENGTHS_NM

# Molar extinction in 1/(cm M), Prahl's compilation, at WAVELENGTHS_NM.
_HBO2 = np.array(
    [266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209.2, 26629.2, 23684.4, 20932.8, 20035.2,
     24202.4, 39956.8, 53236, 43016, 32613.2, 44496, 50104, 14400.8, 3200, 1506, 942, 610, 442, 368,
     319.6, 294, 277.6, 276, 290]
)  # fmt: skip
_HB = np.array(
    [223296, 303956, 407560, 528600, 413280, 103292, 23388.8, 16156.4, 14550, 16684, 20862, 25773.6,
     31589.6, 39036.4, 46592, 53412, 53788, 45072, 37020, 28324.4, 14677.2, 9443.6, 6509.6, 5148.8,
     4345.2, 3750.12, 3226.56, 2795.12, 2407.92, 2051.96, 1794.28]
)  # fmt: skip
_EPIDERMIS_CM = 0.006
_REFRACTIVE_INDEX = 1.4
# Ranges of what differs between skins: melanin and blood as volume fractions, vessel radius in cm.
_MELANIN, _BLOOD, _OXYGEN = (0.04, 0.45), (0.006, 0.02), (0.3, 0.9)
_BASE, _SCATTER = (0.6, 1.5), (0.6, 1.6)
_VESSEL_CM, _SURFACE = (0.0010, 0.0040), (0.04, 0.06)


def reflectance(
    melanin: npt.ArrayLike,
    blood: npt.ArrayLike,
    oxygen: npt.ArrayLike = 0.6,
    base: npt.ArrayLike = 1.0,
    scatter: npt.ArrayLike = 1.0,
    vessel_cm: npt.ArrayLike = 0.002,
    surface: npt.ArrayLike = 0.05,
) -> Float64Array:
    """Reflectance (…, 31) of skin; every argument broadcasts.

    `melanin` is the volume fraction of melanosomes in the epidermis, `blood` of blood in the dermis, `oxygen`
    its saturation; `base` and `scatter` scale bloodless absorption and reduced scattering; `surface` is what
    the surface alone reflects.
    """
    m, b, o, k0, s, radius, rho = (
        np.asarray(value, np.float64)[..., None]
        for value in (melanin, blood, oxygen, base, scatter, vessel_cm, surface)
    )
    nm = WAVELENGTHS_NM
    bloodless = 0.244 + 85.3 * np.exp(-(nm - 154) / 66.2)
    in_blood = 2.303 * (o * _HBO2 + (1 - o) * _HB) * 150 / 64_500
    across = 2 * in_blood * radius
    in_vessels = in_blood * (1 - np.exp(-across)) / across
    absorption = k0 * bloodless + b * in_vessels
    scattering = s * (2e5 * nm**-1.5 + 2e12 * nm**-4.0)
    n = _REFRACTIVE_INDEX
    inner = -1.44 * n**-2 + 0.71 / n + 0.668 + 0.0636 * n
    k = (1 + inner) / (1 - inner)
    albedo = scattering / (absorption + scattering)
    dermis = albedo / (1 + 2 * k * (1 - albedo) + (1 + 2 * k / 3) * np.sqrt(3 * (1 - albedo)))
    epidermis = m * 6.6e11 * nm**-3.33 + (1 - m) * bloodless
    return np.asarray(rho + (1 - rho) * dermis * np.exp(-2 * epidermis * _EPIDERMIS_CM))


def skin_spectra(count: int = 2000) -> Float64Array:
    """`count` spectra (count×31) spread evenly over the skins of people; the same ones every time."""
    shares = _even(count, 7)

    def evenly(column: int, span: tuple[float, float]) -> Float64Array:
        return span[0] + (span[1] - span[0]) * shares[:, column]

    def by_ratio(column: int, span: tuple[float, float]) -> Float64Array:
        return np.asarray(span[0] * (span[1] / span[0]) ** shares[:, column])

    return reflectance(
        melanin=by_ratio(0, _MELANIN),
        blood=by_ratio(1, _BLOOD),
        oxygen=evenly(2, _OXYGEN),
        base=by_ratio(3, _BASE),
        scatter=by_ratio(4, _SCATTER),
        vessel_cm=by_ratio(5, _VESSEL_CM),
        surface=evenly(6, _SURFACE),
    )


def _even(count: int, columns: int) -> Float64Array:
    """Points spread evenly in a cube (Roberts' R sequence)."""
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (columns + 1))
    steps = root ** -np.arange(1.0, columns + 1)
    return np.asarray((0.5 + np.outer(np.arange(1, count + 1), steps)) % 1.0)
