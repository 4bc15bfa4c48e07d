"""Spectra of what a kiosk is built of: the light of its LEDs, the colours its sensor sees.

Everything is sampled at WAVELENGTHS_NM. The colour matching functions (CIE 1931, 2°) and daylight D65 are
the CIE's (CIE 015:2018). LEDs and sensors are modelled as sums of bell curves after the shapes in their
makers' data sheets: a kiosk whose parts were measured names its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hardware.arrays import Float64Array
from hardware.colour import D65_XYZ, SRGB_TO_XYZ

WAVELENGTHS_NM: Float64Array = np.arange(400.0, 701.0, 10.0, dtype=np.float64)

_CMF = np.array(
    [
        [0.01431, 0.04351, 0.1344, 0.2839, 0.3483, 0.3362, 0.2908, 0.1954, 0.09564, 0.03201, 0.0049, 0.0093,
         0.06327, 0.1655, 0.2904, 0.4334, 0.5945, 0.7621, 0.9163, 1.026, 1.062, 1.003, 0.8544, 0.6424,
         0.4479, 0.2835, 0.1649, 0.0874, 0.04677, 0.0227, 0.01136],
        [0.000396, 0.00121, 0.004, 0.0116, 0.023, 0.038, 0.06, 0.09098, 0.139, 0.208, 0.323, 0.503, 0.71,
         0.862, 0.954, 0.995, 0.995, 0.952, 0.87, 0.757, 0.631, 0.503, 0.381, 0.265, 0.175, 0.107, 0.061,
         0.032, 0.017, 0.00821, 0.004102],
        [0.06785, 0.2074, 0.6456, 1.386, 1.747, 1.772, 1.669, 1.288, 0.813, 0.4652, 0.272, 0.1582, 0.07825,
         0.04216, 0.0203, 0.00875, 0.0039, 0.0021, 0.00165, 0.0011, 0.0008, 0.00034, 0.00019, 0.00005,
         0.00002, 0, 0, 0, 0, 0, 0],
    ]
).T  # fmt: skip
_D65 = np.array(
    [82.7549, 91.486, 93.4318, 86.6823, 104.865, 117.008, 117.812, 114.861, 115.923, 108.811, 109.354,
     107.802, 104.79, 107.689, 104.405, 104.046, 100, 96.3342, 95.788, 88.6856, 90.0062, 89.5991,
     87.6987, 83.2886, 83.6992, 80.0268, 80.2146, 82.2778, 78.2842, 69.7213, 71.6091]
)  # fmt: skip
_XYZ_TO_SRGB = np.linalg.inv(SRGB_TO_XYZ)


def _bell(centre_nm: float, below_nm: float, above_nm: float | None = None) -> Float64Array:
    """A bell curve of height 1 with its full width at half maximum, which may differ on the two sides."""
    width = np.where(centre_nm > WAVELENGTHS_NM, below_nm, above_nm or below_nm) / 2.3548
    return np.asarray(np.exp(-0.5 * ((WAVELENGTHS_NM - centre_nm) / width) ** 2))


def _sum(*bells: tuple[float, ...]) -> Float64Array:
    """Bells added up, each given as (height, centre_nm, width_nm…)."""
    return np.asarray(sum(height * _bell(*shape) for height, *shape in bells))


# Relative power. A blue chip under one phosphor leaves a hole at 480 nm where skins differ: it costs half the
# colour accuracy of a violet chip under three.
LEDS: Mapping[str, Float64Array] = {
    "d65": _D65 / 100.0,
    "blue-pump-ra90": _sum((1.0, 452, 22), (0.2, 490, 45), (0.9, 545, 100), (0.75, 620, 95)),
    "violet-pump-6500k": _sum(
        (0.55, 420, 18), (0.9, 460, 50), (0.7, 500, 55), (0.75, 545, 70), (0.75, 600, 80), (0.65, 650, 70)
    ),
}
_INFRARED_CUT = 1 / (1 + np.exp((WAVELENGTHS_NM - 655.0) / 8.0))
# Relative sensitivity of red, green, blue, 31×3. "srgb" is the ideal that no silicon has.
SENSORS: Mapping[str, Float64Array] = {
    "srgb": _CMF @ _XYZ_TO_SRGB.T,
    "bayer": np.stack(
        [
            _sum((1.0, 602, 70, 110), (0.09, 450, 70), (0.08, 520, 50)),
            _sum((1.0, 533, 95), (0.10, 640, 90), (0.05, 440, 60)),
            _sum((1.0, 462, 80), (0.08, 545, 80)),
        ],
        axis=1,
    )
    * _INFRARED_CUT[:, None],
}


def linear_srgb(reflectance: npt.ArrayLike) -> Float64Array:
    """Linear sRGB (…, 3) of reflectance spectra (…, 31) in daylight D65; a perfect white is (1, 1, 1)."""
    weights = _CMF * _D65[:, None]
    xyz = np.asarray(reflectance, np.float64) @ weights
    rgb = xyz / weights.sum(axis=0) * D65_XYZ @ _XYZ_TO_SRGB.T
    return np.asarray(rgb)


def camera_rgb(reflectance: npt.ArrayLike, led: str, sensor: str) -> Float64Array:
    """What `sensor` reads (…, 3) of reflectance spectra (…, 31) under `led`; a perfect white is (1, 1, 1)."""
    weights = SENSORS[sensor] * LEDS[led][:, None]
    return np.asarray(np.asarray(reflectance, np.float64) @ weights / weights.sum(axis=0))
