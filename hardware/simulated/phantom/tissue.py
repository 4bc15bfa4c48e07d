"""The tissue of a phantom: from melanin and blood to what comes back under white light and under 365 nm."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array
from hardware.skin_spectra import reflectance
from hardware.spectra import WAVELENGTHS_NM, linear_srgb

# Volume fractions that the table of colours spans.
MELANIN, BLOOD = (0.002, 0.95), (0.001, 0.16)
_CELLS = (512, 256)
# Light that the rough horny layer scatters back and depolarises: crossed polarisers do not hold it off.
_CORNEUM = 0.018
_EPIDERMIS_CM = 0.006
# Deep melanin lies this deep in the dermis, spread over as much as the epidermis is thick. Of the light that
# comes back some has turned above it: most of the blue, little of the red, so that it looks blue-grey.
_DEEP_CM = 0.02
# Reduced scattering of dermis at 500 nm, 1/cm, falling with the wavelength (Jacques 2013).
_SCATTER_500 = 46.0
# Collagen's light under 365 nm as a colour camera sees it, where it comes from (most of it from the upper
# 0.1 mm of the dermis), the horny layer's own, and the lamp's violet that leaks through.
_COLLAGEN = np.array([0.13, 0.27, 0.44])
_COLLAGEN_ABOVE_DEEP = 0.88
_KERATIN = np.array([0.012, 0.020, 0.030])
_LEAK = np.array([0.012, 0.008, 0.045])
# Bands of the camera's red, green, blue in that light, nm.
_BANDS = np.array([610.0, 530.0, 455.0])
_UV_NM = 365.0
# Porphyrins of the skin's bacteria glow at 600 to 640 nm: red-orange to a camera.
PORPHYRIN = np.array([0.55, 0.13, 0.05], np.float32)


def melanin_absorption(nm: Float64Array | float) -> Float64Array:
    """Of melanosomes, 1/cm (Jacques 1998)."""
    return np.asarray(6.6e11 * np.asarray(nm, np.float64) ** -3.33)


def _colour_table() -> Float32Array:
    """Linear sRGB of diffuse reflectance, as a picture: melanin down, blood across, by their logarithms."""
    melanin = np.geomspace(*MELANIN, _CELLS[0])
    blood = np.geomspace(*BLOOD, _CELLS[1])
    rows = [linear_srgb(reflectance(m, blood, surface=_CORNEUM)) for m in melanin]
    return np.maximum(np.stack(rows), 1e-3).astype(np.float32)


class Pigments(NamedTuple):
    """Maps (h×w) of `melanin` in the epidermis, `deep` melanin in the dermis (as a volume fraction of a layer
    as thick as the epidermis) and `blood` in the dermis: volume fractions.
    """

    melanin: Float32Array
    deep: Float32Array
    blood: Float32Array


class Tissue:
    """Colours of skin by its pigments."""

    def __init__(self) -> None:
        self._table = np.log(_colour_table())

    def white(self, pigments: Pigments) -> Float32Array:
        """Diffuse reflectance, linear sRGB h×w×3 float32."""
        melanin, deep, blood = pigments
        down = _place(melanin, MELANIN, _CELLS[0])
        across = _place(blood, BLOOD, _CELLS[1])
        found = np.exp(
            cv2.remap(self._table, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )
        return np.asarray(found * _deep_factor(deep), np.float32)

    def ultraviolet(self, pigments: Pigments) -> Float32Array:
        """What a colour camera records under 365 nm (h×w×3 float32): fluorescence, with the lamp's leak.

        Epidermal melanin takes the UV going in and the fluorescence coming out; deep melanin only dims what
        little of the fluorescence comes from below it, so it shows less than in white light.
        """
        melanin, deep, blood = pigments
        into = melanin_absorption(_UV_NM) * _EPIDERMIS_CM * 0.45
        result = np.empty((*melanin.shape, 3), np.float32)
        for band, (nm, collagen, keratin, leak) in enumerate(
            zip(_BANDS, _COLLAGEN, _KERATIN, _LEAK, strict=True)
        ):
            through = np.exp(-melanin * (into + melanin_absorption(nm) * _EPIDERMIS_CM))
            below = np.exp(-2 * deep * melanin_absorption(nm) * _EPIDERMIS_CM)
            # Blood lies mostly below collagen's bright upper layer, and takes a little of the green.
            reddened = np.exp(-(3.0 if band else 0.5) * blood)
            share = _COLLAGEN_ABOVE_DEEP + (1 - _COLLAGEN_ABOVE_DEEP) * below
            violet = np.exp(-2 * melanin * melanin_absorption(400.0) * _EPIDERMIS_CM)
            result[:, :, band] = collagen * through * share * reddened + keratin + leak * violet
        return result


def _place(values: Float32Array, span: tuple[float, float], cells: int) -> Float32Array:
    share = np.log(np.clip(values, *span) / span[0]) / np.log(span[1] / span[0])
    return np.asarray(share * (cells - 1), np.float32)


def _deep_factor(deep: Float32Array) -> Float64Array:
    """What deep melanin leaves of white light, h×w×3: 1 where there is none."""
    scatter = _SCATTER_500 * (WAVELENGTHS_NM / 500.0) ** -1.3
    above = 1 - np.exp(-_DEEP_CM * scatter)
    levels = np.linspace(0, 1.0, 65)
    taken = np.exp(-2 * np.outer(levels, melanin_absorption(WAVELENGTHS_NM)) * _EPIDERMIS_CM)
    left = above + (1 - above) * taken
    # The bands of sRGB, on skin of a middle colour.
    skin = reflectance(0.08, 0.012)
    colours = linear_srgb(skin * left) / linear_srgb(skin)
    return np.stack([np.interp(deep, levels, colours[:, band]) for band in range(3)], axis=-1)
