"""Zones of a face: polygons over its landmarks, as masks.

Left and right are the patient's own.
"""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float64Array, UInt8Array
from sync.wire.findings.canonical_face import OUTLINES, ZONES


def zone_polygons(points: Float64Array) -> dict[str, Float64Array]:
    """The closed polygon (N×2, in the unit of `points`) of each zone, from 468×2 landmarks."""
    return {name: points[list(indices)] for name, indices in ZONES.items()}


def outline(points: Float64Array, name: str) -> Float64Array:
    """The closed polygon of one drawn outline: "face_oval", "left_eye", … (see canonical_face.OUTLINES)."""
    return np.asarray(points[list(OUTLINES[name])])


def polygon_mask(polygon: Float64Array, shape: tuple[int, int]) -> UInt8Array:
    """H×W uint8, 255 inside the polygon."""
    mask = np.zeros(shape, np.uint8)
    # Four bits below the pixel, so that small polygons keep their area.
    corners = np.round(polygon * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], (255,), shift=4)
    return mask


def zone_masks(points: Float64Array, skin: UInt8Array) -> dict[str, BoolArray]:
    """The skin of each zone, and of the whole "face", H×W bool; `skin` is H×W uint8, 255 = skin.

    No pixel belongs to two zones: around the eyes goes before the cheeks.
    """
    polygons = zone_polygons(points)
    order = sorted(polygons, key=lambda name: "periorbital" not in name)
    free = skin > 0
    masks = {"face": free.copy()}
    for name in order:
        masks[name] = (polygon_mask(polygons[name], (skin.shape[0], skin.shape[1])) > 0) & free
        free &= ~masks[name]
    return masks
