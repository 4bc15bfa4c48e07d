"""Asymmetry, border, colour and diameter of an outlined lesion, as numbers for a clinician."""

from __future__ import annotations

from typing import TypedDict

import cv2
import numpy as np

from hardware.arrays import Float32Array, Int32Array, UInt8Array

# The six colours of dermoscopy's ABCD rule (Stolz et al. 1994), as sRGB after Seidenari et al. (2003).
COLOURS = {
    "white": (235, 225, 220),
    "red": (190, 80, 70),
    "light brown": (180, 125, 85),
    "dark brown": (105, 60, 40),
    "blue-grey": (95, 105, 125),
    "black": (35, 28, 28),
}
_COLOUR_SHARE = 0.05
_WORK_SIDE = 512


class Features(TypedDict):
    """What `abcd` says of a lesion; null where that is a speck."""

    asymmetry: float | None
    border: float | None
    colour_spread: float | None
    colours: list[str]
    diameter_px: float | None
    diameter_mm: None


def abcd(picture: UInt8Array, mask: UInt8Array) -> Features:
    """The features of the lesion `mask` (H×W uint8, 255, not empty) in `picture` (H×W×3 uint8 sRGB).

    asymmetry: 0…1, the share of the area that does not fall on itself when folded over a principal axis, mean
    of both axes. border: 1 - 4πA/P², 0 for a circle (isoperimetric quotient). colour: standard deviation of
    CIELAB within the lesion, and which of COLOURS are nearest to at least 5 % of it; white is only what is
    lighter than the skin around (Stolz et al. 1994), or a pale lesion would be white. diameter_px: the
    largest distance between two points of the outline. diameter_mm is null: a picture alone has no scale.
    """
    step = min(1.0, _WORK_SIDE / max(mask.shape))
    if step < 1:
        size = (max(1, round(mask.shape[1] * step)), max(1, round(mask.shape[0] * step)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        # A speck in a very long picture, gone when that was made smaller.
        return {
            "asymmetry": None,
            "border": None,
            "colour_spread": None,
            "diameter_px": None,
            "diameter_mm": None,
            "colours": [],
        }
    outline = np.asarray(max(contours, key=cv2.contourArea), np.int32)
    colours = np.asarray(cv2.cvtColor((picture.astype(np.float32) / 255), cv2.COLOR_RGB2LAB), np.float32)
    lab, skin = colours[mask > 0], colours[mask == 0]
    return {
        "asymmetry": round(_asymmetry(mask), 4),
        "border": round(_raggedness(outline), 4),
        "colour_spread": round(float(np.sqrt(lab.var(axis=0).sum())), 2),
        "colours": _colours(lab, skin),
        "diameter_px": round(_diameter(outline) / step, 1),
        "diameter_mm": None,
    }


def _asymmetry(mask: UInt8Array) -> float:
    moments = cv2.moments(mask, binaryImage=True)
    cx, cy = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    angle = 0.5 * np.degrees(np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"]))
    reach = int(np.ceil(np.hypot(mask.shape[0], mask.shape[1])))
    turn = np.asarray(cv2.getRotationMatrix2D((cx, cy), float(angle), 1.0), np.float64)
    turn[:, 2] += reach - np.array([cx, cy])
    level = cv2.warpAffine(mask, turn, (2 * reach + 1, 2 * reach + 1), flags=cv2.INTER_NEAREST)
    shares = [(level != folded).mean() / (level > 0).mean() / 2 for folded in (level[::-1], level[:, ::-1])]
    return float(np.mean(shares))


def _raggedness(outline: Int32Array) -> float:
    # A staircase of pixels is longer than the line that it stands for: its hull's corners are cut first.
    smooth = cv2.approxPolyDP(outline, 1.0, True)
    perimeter = cv2.arcLength(smooth, True)
    return float(np.clip(1 - 4 * np.pi * cv2.contourArea(smooth) / max(perimeter, 1e-6) ** 2, 0, 1))


def _colours(lab: Float32Array, skin: Float32Array) -> list[str]:
    known = np.array([list(COLOURS.values())], np.float32) / 255
    references = cv2.cvtColor(known, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - references[None], axis=2)
    if len(skin):
        distances[lab[:, 0] <= np.median(skin[:, 0]), list(COLOURS).index("white")] = np.inf
    nearest = distances.argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(COLOURS)) / len(lab)
    return [name for name, share in zip(COLOURS, shares, strict=True) if share >= _COLOUR_SHARE]


def _diameter(outline: Int32Array) -> float:
    hull = cv2.convexHull(outline)[:, 0].astype(np.float64)
    return float(np.linalg.norm(hull[:, None] - hull[None], axis=2).max()) + 1
