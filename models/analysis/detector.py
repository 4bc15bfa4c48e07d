"""The face detector: boxes with eye positions, from one look at the whole picture down to tiles of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, UInt8Array
from models.networks.runtime import network

# Beyond this the detector sees nothing more: its own input is at most 192 pixels wide.
WORK_LONG_SIDE = 1536
MIN_SCORE = 0.5
SAME_FACE_OVERLAP = 0.3
# A face of this share of the long side needs no closer look; beside smaller ones there may be others.
LARGE_SHARE = 0.15
# Grey that BlazeFace takes for "nothing here" after scaling to −1…1.
_PAD = (127.0, 127.0, 127.0)
_STRIDES = {"face-detection-short": ((8, 2), (16, 6)), "face-detection-full": ((4, 1),)}


@dataclass(frozen=True)
class Detection:
    """One box `(x0, y0, x1, y1)` in pixels with the two eyes `(2, 2)`, image-left one first."""

    box: Float64Array
    eyes: Float64Array
    score: float

    def scaled(self, factor: float) -> Detection:
        return Detection(self.box * factor, self.eyes * factor, self.score)


def detect(picture: UInt8Array, engine: str) -> list[Detection]:
    """The faces in `picture` (H×W×3 uint8 RGB), best first.

    Two looks at the whole picture come first. Only if they find no large face do others follow: with a margin
    (a face that fills the picture), tilted by 30 degrees either way, then at tiles (small faces).
    """
    scale = min(1.0, WORK_LONG_SIDE / max(picture.shape[:2]))
    small = picture
    if scale < 1.0:
        height, width = picture.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    found: list[Detection] = []
    for stage in _stages(small.shape[1], small.shape[0]):
        for name, window, angle in stage:
            found += _look(small, name, window, angle, engine)
        if any(d.box[2] - d.box[0] > LARGE_SHARE * max(small.shape[:2]) for d in found):
            break
    return [detection.scaled(1.0 / scale) for detection in _suppress(found)]


Look = tuple[str, tuple[float, float, float], float]


def _stages(width: int, height: int) -> Iterator[list[Look]]:
    """Looks by falling likelihood: (network, square window as centre x, centre y, side; tilt in degrees)."""
    side = float(max(width, height))
    cx, cy = width / 2, height / 2
    yield [("face-detection-short", (cx, cy, side), 0.0), ("face-detection-full", (cx, cy, side), 0.0)]
    yield [("face-detection-short", (cx, cy, side * f), 0.0) for f in (1.5, 2.2)]
    yield [
        ("face-detection-short", (cx, cy, side * f), angle) for angle in (-30.0, 30.0) for f in (1.15, 1.8)
    ]
    for parts in (2, 3):
        window = side / parts * 1.25
        yield [("face-detection-full", (*c, window), 0.0) for c in _tiles(width, height, window)]


def _tiles(width: int, height: int, window: float) -> list[tuple[float, float]]:
    """Centres of square windows that cover the picture with at least a third of overlap."""

    def centres(length: int) -> Float64Array:
        if length <= window:
            return np.array([length / 2])
        count = int(np.ceil((length - window) / (window * 0.66))) + 1
        return np.linspace(window / 2, length - window / 2, count, dtype=np.float64)

    return [(float(x), float(y)) for y in centres(height) for x in centres(width)]


def _look(
    picture: UInt8Array, name: str, window: tuple[float, float, float], angle: float, engine: str
) -> list[Detection]:
    net = network(name, engine)
    size = net.input_shape[1]
    cx, cy, side = window
    crop, to_picture = square_crop(picture, cx, cy, side, angle, size)
    regressors, scores = sorted(net.run(crop[None] / 127.5 - 1.0), key=lambda a: -a.shape[-1])
    score = 1.0 / (1.0 + np.exp(-np.clip(scores.ravel(), -60, 60)))
    keep = score > MIN_SCORE
    # Eight pairs a row, in input pixels: offset of the centre, width with height, then six key points.
    pairs = regressors.reshape(-1, 8, 2)[keep].astype(np.float64)
    anchors = _anchors(name, size)[keep]
    detections = []
    for pair, anchor, value in zip(pairs, anchors, score[keep], strict=True):
        centre, extent = pair[0] + anchor, pair[1]
        points = np.array([centre, pair[2] + anchor, pair[3] + anchor]) @ to_picture[:, :2].T
        points += to_picture[:, 2]
        half = extent / 2 * side / size
        if np.all(half > 0):
            box = np.concatenate([points[0] - half, points[0] + half])
            detections.append(Detection(box, points[1:], float(value)))
    return detections


def square_crop(
    picture: UInt8Array, cx: float, cy: float, side: float, angle: float, size: int
) -> tuple[Float32Array, Float64Array]:
    """A `size`×`size` float32 view of the square centred on (cx, cy), turned by `angle` degrees.

    Returns it with the 2×3 matrix that maps its pixels back to the picture. Reduces by area before it turns,
    so that a large face is not aliased; outside the picture it is mid-grey.
    """
    factor = max(1, int(side / size))
    source = picture
    offset: Float64Array = np.zeros(2)
    if factor > 1:
        reach = side * 0.75
        y0, y1 = max(0, int(cy - reach)), min(picture.shape[0], int(cy + reach) + 1)
        x0, x1 = max(0, int(cx - reach)), min(picture.shape[1], int(cx + reach) + 1)
        slab = picture[y0:y1, x0:x1]
        if slab.shape[0] >= factor and slab.shape[1] >= factor:
            rows, columns = slab.shape[0] // factor, slab.shape[1] // factor
            slab = slab[: rows * factor, : columns * factor]
            source = np.asarray(cv2.resize(slab, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
            offset = np.array([x0, y0], float)
        else:
            factor = 1
    turn = np.deg2rad(angle)
    step = side / size
    axes = step * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = (size - 1) / 2
    to_picture = np.hstack([axes, (np.array([cx, cy]) - axes @ [middle, middle])[:, None]])
    to_source = to_picture.copy()
    to_source[:, 2] = (to_source[:, 2] - offset + 0.5) / factor - 0.5
    to_source[:, :2] /= factor
    crop = cv2.warpAffine(
        source,
        to_source,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_PAD,
    )
    return crop.astype(np.float32), to_picture


@lru_cache(maxsize=4)
def _anchors(name: str, size: int) -> Float64Array:
    """The grid of anchor centres in input pixels, in the order of the network's rows."""
    grids = []
    for stride, repeats in _STRIDES[name]:
        line = np.arange(stride / 2, size, stride)
        x, y = np.meshgrid(line, line)
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), repeats, axis=0))
    return np.concatenate(grids)


def overlap(a: Float64Array, b: Float64Array) -> float:
    """Intersection over union of two boxes `(x0, y0, x1, y1)`."""
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = float(size.prod())
    return shared / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared + 1e-9)


def _suppress(found: list[Detection]) -> list[Detection]:
    """One detection for each face: those that overlap are averaged, weighted by score."""
    rest, kept = sorted(found, key=lambda d: -d.score), []
    while rest:
        best = rest[0]
        same = [d for d in rest if overlap(best.box, d.box) > SAME_FACE_OVERLAP]
        rest = [d for d in rest if overlap(best.box, d.box) <= SAME_FACE_OVERLAP]
        weights = np.array([d.score for d in same])
        weights /= weights.sum()
        box = np.einsum("i,ij->j", weights, np.stack([d.box for d in same]))
        eyes = np.einsum("i,ijk->jk", weights, np.stack([d.eyes for d in same]))
        kept.append(Detection(box, eyes, best.score))
    return kept
