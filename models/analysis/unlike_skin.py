"""How unlike a dermoscopic close-up of skin a picture is: its traits, and what is made of them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from models.analysis.outline import LesionOutline
from models.networks.lesion_views import NATIVE

# Below this lightness (CIELAB) a place is a dark corner, above the other a white edge or a reflection.
_DARK, _WHITE = 15.0, 97.0
# Fewer pixels than these at NATIVE say nothing of the skin, or of the lesion.
_LEAST_SKIN, _LEAST_LESION = 200, 20
# Colours farther than this from the skin's (CIELAB) are not the skin's.
_FOREIGN = 25.0
_BEYOND = 5.0


def traits(picture: UInt8Array, outline: LesionOutline, logits: Float32Array) -> Float64Array:
    """(TRAITS,) numbers by which a skin close-up differs from others; `logits` (views, 7).

    Colours, their contrast as optical density, which no white balance changes, edges, the lesion's shape, and
    the doubts of both networks.
    """
    small = np.asarray(cv2.resize(picture, NATIVE[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    mask = np.asarray(cv2.resize(outline.mask, NATIVE[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    lit = cv2.erode((lab[..., 0] > _DARK).astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=(1,)) > 0
    if lit.sum() <= _LEAST_SKIN:
        lit = np.ones_like(lit)
    # The lesion's border belongs to neither side.
    skin = (cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0) & lit
    skin = skin if skin.sum() > _LEAST_SKIN else lit
    lesion = (mask > 0) & lit
    lesion = lesion if lesion.sum() > _LEAST_LESION else lit
    return np.array(
        [
            *_colours(lab, skin, lesion),
            *_densities(small, skin, lesion),
            *_separation(lab, mask > 0, lit),
            *_edges(lab[..., 0], mask, skin, lit),
            *_shape(mask),
            1 - lit.mean(),
            (lab[..., 0] > _WHITE).mean(),
            *_doubts(outline, logits),
        ],
        np.float64,
    )


def scores(traits: Float64Array, known: dict[str, Any]) -> Float64Array:
    """(…, n) traits as standard scores of plain close-ups, none beyond five deviations."""
    deviations = np.asarray(known["deviations"])
    return np.asarray(np.clip((traits - np.asarray(known["means"])) / deviations, -_BEYOND, _BEYOND))


def unusualness(traits: Float64Array, known: dict[str, Any]) -> Float64Array:
    """(…,) the mean square of the standard scores: 1 for a close-up like those of the training."""
    return np.asarray((scores(traits, known) ** 2).mean(axis=-1))


def strangeness(traits: Float64Array, known: dict[str, Any]) -> Float64Array:
    """(…,) the logit of being no close-up of skin: a perceptron with one hidden layer, and a way past it."""
    found = scores(traits, known)
    hidden = np.tanh(found @ np.asarray(known["hidden"]) + np.asarray(known["hidden_offsets"]))
    through, past = hidden @ np.asarray(known["output"]), found @ np.asarray(known["past"])
    return np.asarray(through + past + known["offset"])


def _colours(lab: Float32Array, skin: BoolArray, lesion: BoolArray) -> list[float]:
    about, within = lab[skin], lab[lesion]
    middle = np.median(about, axis=0)
    away = np.linalg.norm(lab[..., 1:] - middle[1:], axis=2)
    return [
        *middle,
        *np.log1p(about.std(axis=0)),
        *(np.median(within, axis=0) - middle),
        np.log1p(within[:, 1:].std()),
        np.log((away[skin] > _FOREIGN).mean() + 0.01),
    ]


def _densities(small: UInt8Array, skin: BoolArray, lesion: BoolArray) -> list[float]:
    """Of optical density in R, G, B: the lesion's over the skin's, how it is tinted, and how both vary."""
    # 2.2 undoes sRGB's curve nearly enough; 3 of 255 is a camera's black.
    density = np.asarray(-2.2 * np.log((small.astype(np.float32) + 3) / 258), np.float32)
    about, within = density[skin], density[lesion]
    middle = np.median(about, axis=0)
    more = np.median(within, axis=0) - middle
    size = float(np.linalg.norm(more)) + 0.15
    return [
        *more,
        size,
        (more[2] - more[0]) / size,
        (more[1] - (more[0] + more[2]) / 2) / size,
        *_reach(_tints(about)),
        *_reach(_tints(within)),
        *_reach(about[:, 1:2]),
        *_tints(middle[None])[0],
    ]


def _tints(density: Float32Array) -> Float32Array:
    """(n, 2): red's and blue's density over green's."""
    return np.asarray(density[:, (0, 2)] - density[:, 1:2])


def _reach(values: Float32Array) -> Float64Array:
    """(k,) from (n, k): the logarithm of what lies between the tenth and the ninetieth of a hundred."""
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    return np.asarray(np.log(high - low + 0.02))


def _separation(lab: Float32Array, inside: BoolArray, lit: BoolArray) -> list[float]:
    """Of L*, a*, b*: the share of the variance that lesion and skin explain (η²)."""
    share = inside[lit].mean()
    if not 0 < share < 1:
        return [0.0, 0.0, 0.0]
    within, about = lab[inside & lit], lab[~inside & lit]
    between = share * (1 - share) * (within.mean(axis=0) - about.mean(axis=0)) ** 2
    return list(between / (lab[lit].var(axis=0) + 1e-3))


def _edges(lightness: Float32Array, mask: UInt8Array, skin: BoolArray, lit: BoolArray) -> list[float]:
    """How steep and rough it is: everywhere, on the skin once thin lines are gone, on the lesion's rim."""
    kernel = np.ones((5, 5), np.uint8)
    closed = cv2.morphologyEx(lightness, cv2.MORPH_CLOSE, kernel)
    opened = np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel), np.float32)
    without_lines = _steepness(opened)
    rim = (cv2.dilate(mask, kernel) > 0) & (cv2.erode(mask, kernel) == 0) & lit
    on_skin = np.log1p(without_lines[skin].mean())
    on_rim = np.log1p(without_lines[rim].mean()) if rim.any() else 0.0
    return [
        np.log1p(_steepness(lightness)).mean(),
        np.log1p(np.abs(cv2.Laplacian(lightness, cv2.CV_32F)).mean()),
        on_skin,
        on_rim,
        on_rim - on_skin,
        np.log1p(cv2.GaussianBlur(lightness, (0, 0), 6)[skin].std()),
        np.log1p((lightness - cv2.GaussianBlur(lightness, (0, 0), 1.5))[skin].std()),
    ]


def _steepness(values: Float32Array) -> Float32Array:
    return np.hypot(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))


def _shape(mask: UInt8Array) -> list[float]:
    """Solidity, roundness, distance from the middle, share of the picture's edge, share of the picture."""
    inside = mask > 0
    if not inside.any():
        return [0.0, 0.0, 1.0, 0.0, np.log(0.01)]
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=cv2.contourArea)
    area = max(1.0, cv2.contourArea(outline))
    hull = max(1.0, cv2.contourArea(cv2.convexHull(outline)))
    perimeter = max(1.0, cv2.arcLength(cv2.approxPolyDP(outline, 1.0, True), True))
    height, width = mask.shape
    away = np.argwhere(inside).mean(axis=0) - [height / 2, width / 2]
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    return [
        area / hull,
        4 * np.pi * area / perimeter**2,
        float(np.hypot(*away)) / height,
        edge.mean(),
        np.log(inside.mean() + 0.01),
    ]


def _doubts(outline: LesionOutline, logits: Float32Array) -> list[float]:
    single = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    mean = logits.mean(axis=0)
    return [
        outline.sureness,
        np.log(outline.doubt + 0.01),
        np.logaddexp.reduce(mean),
        mean.max(),
        single.std(axis=0).mean(),
        *(mean - mean.mean()),
    ]
