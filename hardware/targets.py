"""Targets for calibration: what each one is, in millimetres.

The middle of a target stands where the middle of a face does; x to the right of the picture, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardware.arrays import Float64Array
from hardware.skin_spectra import reflectance
from hardware.spectra import WAVELENGTHS_NM, linear_srgb

# White card, grey card: the same at every wavelength.
WHITE_REFLECTANCE = 0.90
GREY_REFLECTANCE = 0.18


@dataclass(frozen=True)
class Sphere:
    """A matte ball, its middle in the plane of the face, before black cloth."""

    radius_mm: float = 45.0
    reflectance: float = 0.6


@dataclass(frozen=True)
class Chart:
    """A colour chart of 6×4 patches with an ArUco marker (dictionary 4×4, ids 0…3) on each corner.

    `colours` are linear sRGB in daylight D65, 24×3, row by row. Marker 0 is top left, then clockwise.
    """

    colours: Float64Array
    columns: int = 6
    rows: int = 4
    pitch_mm: float = 26.0
    patch_mm: float = 20.0
    marker_mm: float = 24.0

    def patches_mm(self) -> Float64Array:
        """Middles of the patches, 24×2."""
        xs = (np.arange(self.columns) - (self.columns - 1) / 2) * self.pitch_mm
        ys = (np.arange(self.rows) - (self.rows - 1) / 2) * self.pitch_mm
        return np.array([(x, y) for y in ys for x in xs])

    def markers_mm(self) -> Float64Array:
        """Middles of the four markers, 4×2: above and below the patches, flush with their sides."""
        x = (self.columns - 1) / 2 * self.pitch_mm
        y = (self.rows + 1) / 2 * self.pitch_mm + 2.0
        return np.array([(-x, -y), (x, -y), (x, y), (-x, y)])


def chart_spectra() -> Float64Array:
    """The reference chart's reflectance, 24×31: twelve skins, six greys, six saturated paints."""
    skins = reflectance(
        melanin=np.geomspace(0.04, 0.4, 12), blood=np.tile([0.006, 0.012, 0.018], 4), surface=0.05
    )
    greys = np.outer([0.04, 0.09, 0.18, 0.36, 0.59, 0.85], np.ones(31))

    def bump(centre_nm: float, width_nm: float) -> Float64Array:
        return np.asarray(0.06 + 0.5 * np.exp(-(((WAVELENGTHS_NM - centre_nm) / width_nm) ** 2)))

    def edge(at_nm: float) -> Float64Array:
        return np.asarray(0.06 + 0.6 / (1 + np.exp((at_nm - WAVELENGTHS_NM) / 12)))

    paints = [bump(450, 45), bump(490, 45), bump(530, 45), edge(520), edge(570), edge(610)]
    return np.vstack([skins, greys, paints])


def reference_chart() -> Chart:
    """The chart whose colours are those of `chart_spectra`."""
    return Chart(linear_srgb(chart_spectra()))
