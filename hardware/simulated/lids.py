"""Lids: what a simulated patient shows in place of the eyes when they are closed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float16Array, Float32Array, Float64Array
from hardware.face_mesh import EYES

# How far the patch of a lid reaches beyond the eye, as a share of the eye's breadth.
_REACH = 0.45
_LASHES = 0.22


@dataclass(frozen=True)
class Lid:
    """One closed eye as a patch: maps to lay over those of the open eye, with a soft `mask` (h×w, 0…1)."""

    top: int
    left: int
    mask: Float32Array
    diffuse: Float32Array
    shine: Float32Array
    skin: Float32Array
    uv: Float32Array

    def scaled(self, factor: float) -> Lid:
        """The same lid in a picture `factor` times as large."""
        height, width = self.mask.shape
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        maps = (self.mask, self.diffuse, self.shine, self.skin, self.uv)
        mask, diffuse, shine, skin, uv = (
            np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32) for values in maps
        )
        return Lid(round(self.top * factor), round(self.left * factor), mask, diffuse, shine, skin, uv)

    def cover(self, rows: slice, *maps: Float32Array) -> None:
        """Lay the lid over `maps` (diffuse, shine, skin, uv; float32), which are `rows` of the picture."""
        height, width = self.mask.shape
        first, last = max(rows.start, self.top), min(rows.stop, self.top + height)
        if first >= last:
            return
        own = slice(first - self.top, last - self.top)
        there = (slice(first - rows.start, last - rows.start), slice(self.left, self.left + width))
        for target, values in zip(maps, (self.diffuse, self.shine, self.skin, self.uv), strict=True):
            part = target[there]
            mask = self.mask[own, : part.shape[1]]
            mask = mask[:, :, None] if part.ndim == 3 else mask
            part += mask * (values[own, : part.shape[1]] - part)


def closed_lids(
    diffuse: Float16Array, shine: Float16Array, skin: Float16Array, uv: Float16Array, landmarks: Float64Array
) -> list[Lid]:
    """The lids of a face with `landmarks` (468×3 px) in these maps: skin like that around the eye, with the
    lashes along its lower edge. An eye that is not wholly in the picture has none.
    """
    lids = []
    height, width = skin.shape
    for ring in EYES:
        points = landmarks[list(ring), :2]
        low, high = points.min(axis=0), points.max(axis=0)
        breadth = float(high[0] - low[0])
        reach = _REACH * breadth
        left, top = int(low[0] - reach), int(low[1] - reach)
        right, bottom = int(high[0] + reach) + 1, int(high[1] + reach) + 1
        if left < 0 or top < 0 or right > width or bottom > height or breadth < 4:
            continue
        here = (slice(top, bottom), slice(left, right))
        inside = points - (left, top)
        eye = np.zeros((bottom - top, right - left), np.float32)
        cv2.fillPoly(eye, [np.round(inside).astype(np.int32)], (1.0,))
        rounds = max(1, round(0.10 * breadth))
        grown = np.asarray(cv2.dilate(eye, np.ones((3, 3), np.uint8), iterations=rounds), np.float32)
        mask = np.asarray(cv2.GaussianBlur(grown, (0, 0), 0.03 * breadth + 0.5), np.float32)
        known, sigma = 1 - grown, 0.2 * breadth
        filled = [_fill(values[here].astype(np.float32), known, sigma) for values in (diffuse, uv)]
        # Where the lids meet: the lower third of the open eye.
        line = np.zeros_like(eye)
        xs = np.linspace(low[0] - left, high[0] - left, 24)
        bow = 1 - np.linspace(-1, 1, 24) ** 2
        ends = inside[np.argmin(inside[:, 0])][1], inside[np.argmax(inside[:, 0])][1]
        ys = np.linspace(*ends, 24) + bow * 0.75 * max(0.0, float(inside[:, 1].max()) - max(ends))
        path = np.round(np.column_stack([xs, ys])).astype(np.int32)
        cv2.polylines(line, [path], False, (1.0,), max(1, round(0.05 * breadth)))
        lashes = cv2.GaussianBlur(line, (0, 0), 0.012 * breadth + 0.3)[:, :, None]
        shaded = [values * (1 - (1 - _LASHES) * lashes) for values in filled]
        around = _fill(shine[here].astype(np.float32)[:, :, None], known, sigma)
        lids.append(Lid(top, left, mask, shaded[0], around[:, :, 0], np.ones_like(eye), shaded[1]))
    return lids


def _fill(values: Float32Array, known: Float32Array, sigma: float) -> Float32Array:
    """H×W×C `values`, smoothed from where they are `known` into where they are not."""
    weight = known[:, :, None]
    total = cv2.GaussianBlur(values * weight, (0, 0), sigma).reshape(values.shape)
    return np.asarray(total / (cv2.GaussianBlur(known, (0, 0), sigma)[:, :, None] + 1e-4))
