"""Spots: dark round places on the skin, found over a range of sizes in optical density."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array, UInt8Array
from models.analysis.pigment import optical_density
from models.analysis.smoothing import shrunk, smooth_within

VERSION = "spots-1"
# Standard deviations of the blobs looked for; a spot's diameter is about 2.8 of them: 1.1 to 7 mm.
SIGMAS_MM = (0.4, 0.6, 0.9, 1.3, 1.8, 2.5)
# An eighth of the light less than beside it.
MIN_CONTRAST_OD = 0.06
# Share of skin around a spot: beside hair, nostrils and the edge of the face there are shadows.
LEAST_SURROUNDED = 0.93
# A picture in which a spot of 2.5 mm has to be this much darker to rise above the noise shows no spots; nor
# does one whose pixels are coarser than the second smallest of them.
FAINTEST_OD = 2 * MIN_CONTRAST_OD
COARSEST_MM_PER_PX = SIGMAS_MM[1]
_JUDGED_BY_MM = 0.9
_RATIO = 1.6
# A Gaussian blob answers its own size with this share of its contrast.
_ANSWER = 0.24
_NOISE_FACTOR = 5.0
_MAX_ELONGATION = 2.5
_EDGE_MM = 1.5
# Share of the ring around a spot that may be as dark: a fold or the shaded side of a nose goes on through it.
_MAX_DARK_RING = 0.14


@dataclass(frozen=True)
class DarkSpot:
    """One spot: centre and radius in pixels, area, and contrast in optical density."""

    x: float
    y: float
    radius_px: float
    area_mm2: float
    contrast: float


def find_spots(light: Float32Array, skin: UInt8Array, mm_per_px: float) -> list[DarkSpot] | None:
    """The spots on skin, strongest first; None where the picture could not show them.

    `light` is H×W×3 linear light, `skin` H×W uint8 (255 = skin).
    """
    margin = max(1, round(_EDGE_MM / mm_per_px))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    allowed = cv2.erode(skin, disc, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
    if not allowed.any():
        return []
    if mm_per_px > COARSEST_MM_PER_PX:
        return None
    density = optical_density(light)[..., :2].mean(axis=-1).astype(np.float32)
    # What is no skin takes the colour of the skin around it, so that its edge is no spot.
    filled = np.where(skin > 0, density, smooth_within(density, skin, 4.0 / mm_per_px)).astype(np.float32)
    share = (skin > 0).astype(np.float32)
    candidates = []
    for sigma_mm in SIGMAS_MM:
        sigma = sigma_mm / mm_per_px
        if sigma >= 1.0:
            # Large blobs are looked for in a smaller picture, where their blurs are cheap.
            factor = max(1, int(sigma / 2.5))
            searched = shrunk(allowed.astype(np.float32), factor)
            zoom = allowed.shape[1] / searched.shape[1]
            least, found = _blobs(
                shrunk(filled, factor), shrunk(share, factor), searched, sigma / factor, zoom
            )
            if sigma_mm == _JUDGED_BY_MM and least > FAINTEST_OD * _ANSWER:
                return None
            candidates += found
    kept: list[tuple[float, int, int, float]] = []
    for answer, x, y, sigma in sorted(candidates, reverse=True):
        if all((x - a) ** 2 + (y - b) ** 2 > (1.8 * max(sigma, s)) ** 2 for _, a, b, s in kept):
            kept.append((answer, x, y, sigma))
    spots = (_grown(filled, skin, x, y, sigma, mm_per_px) for _, x, y, sigma in kept)
    return [spot for spot in spots if spot]


def _blobs(
    density: Float32Array, share: Float32Array, allowed: Float32Array, sigma: float, zoom: float
) -> tuple[float, list[tuple[float, int, int, float]]]:
    """The least answer that is no noise, and (answer, x, y, sigma) of the round maxima at one size.

    The answer is a difference of Gaussians. `sigma` is in the pixels of what is given; x, y and sigma come
    back multiplied by `zoom`.
    """
    surrounded = cv2.GaussianBlur(share, (0, 0), 2 * sigma) > LEAST_SURROUNDED
    searched = surrounded & (allowed > 0.99)
    near, far = cv2.GaussianBlur(density, (0, 0), sigma), cv2.GaussianBlur(density, (0, 0), sigma * _RATIO)
    answer = np.asarray(near - far, np.float32)
    inside = answer[searched]
    if not inside.size:
        return 0.0, []
    noise = 1.4826 * float(np.median(np.abs(inside - np.median(inside))))
    least = max(MIN_CONTRAST_OD * _ANSWER, _NOISE_FACTOR * noise)
    reach = 2 * round(sigma) + 1
    highest = cv2.dilate(answer, np.ones((reach, reach), np.uint8))
    ys, xs = np.nonzero((answer >= highest) & (answer > least) & searched)
    step = max(1, round(sigma))
    blobs = [
        (float(answer[y, x]), int((x + 0.5) * zoom), int((y + 0.5) * zoom), sigma * zoom)
        for x, y in zip(xs, ys, strict=True)
        if _is_round(answer, int(x), int(y), step)
    ]
    return least, blobs


def _is_round(answer: Float32Array, x: int, y: int, step: int) -> bool:
    """Whether the peak falls off alike in all directions: hairs and wrinkles do not."""
    height, width = answer.shape
    if not (step <= x < width - step and step <= y < height - step):
        return False
    p = answer[y - step : y + step + 1 : step, x - step : x + step + 1 : step].astype(float)
    dxx, dyy = p[1, 0] + p[1, 2] - 2 * p[1, 1], p[0, 1] + p[2, 1] - 2 * p[1, 1]
    dxy = (p[0, 0] + p[2, 2] - p[0, 2] - p[2, 0]) / 4
    determinant = dxx * dyy - dxy**2
    bound = (_MAX_ELONGATION + 1) ** 2 / _MAX_ELONGATION
    return bool(determinant > 0 and (dxx + dyy) ** 2 / determinant < bound)


def _grown(
    density: Float32Array, skin: UInt8Array, x: int, y: int, sigma: float, mm_per_px: float
) -> DarkSpot | None:
    """The spot around a peak: what lies above half of its contrast, within reach of its size."""
    reach = max(3, round(4 * sigma))
    y0, x0 = max(0, y - reach), max(0, x - reach)
    window = density[y0 : y + reach + 1, x0 : x + reach + 1]
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    distance = np.hypot(columns - (x - x0), rows - (y - y0))
    ring = (distance > 2.2 * sigma) & (distance <= 4 * sigma)
    ground = float(np.median(window[ring]))
    rise = cv2.GaussianBlur(window, (0, 0), max(0.6, sigma * 0.4)) - ground
    contrast = float(rise[distance <= max(1.0, sigma * 0.5)].max())
    if contrast < MIN_CONTRAST_OD or np.mean(rise[ring] > contrast / 2) > _MAX_DARK_RING:
        return None
    above = (rise > contrast / 2) & (distance <= 2.6 * sigma)
    above &= skin[y0 : y + reach + 1, x0 : x + reach + 1] > 0
    _, labels = cv2.connectedComponents(above.astype(np.uint8))
    label = labels[y - y0, x - x0]
    area_px = int(np.count_nonzero(labels == label)) if label else 0
    if area_px < 4:
        return None
    return DarkSpot(float(x), float(y), float(np.sqrt(area_px / np.pi)), area_px * mm_per_px**2, contrast)
