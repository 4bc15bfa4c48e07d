"""What each pixel of a picture shows: background, hair, skin, eyes, nose or mouth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, UInt8Array
from models.analysis.face import Face
from models.networks.parsing_classes import CLASSES
from models.networks.runtime import DEFAULT_ENGINE, Network, network

NETWORK = "parsing"
# Views are merged at no more than this: a face that fills it is four times the network's own picture.
WORK_LONG_SIDE = 1280
# A view of one face is this many times its larger extent, which shows the hair, the ears and the neck.
_FACE_VIEW = 1.9
_MOST_FACE_VIEWS = 12
# Squares of these shares of the longer side are seen as well: the second where no face is larger than that.
_TILES = ((0.55, 1.0), (0.35, 0.2))

View = tuple[int, int, int]


def parse(picture: UInt8Array, faces: Sequence[Face], engine: str = DEFAULT_ENGINE) -> UInt8Array:
    """H×W uint8, an index into CLASSES for each pixel of `picture` (H×W×3 uint8 sRGB).

    The network sees the whole picture, then each of `faces` (in its pixels, largest first) by itself.
    """
    height, width = picture.shape[:2]
    step = min(1.0, WORK_LONG_SIDE / max(height, width))
    small = picture
    if step < 1:
        size = (max(1, round(width * step)), max(1, round(height * step)))
        small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    chances = _chances(small, list(_views(small.shape[:2], [face.points * step for face in faces])), engine)
    best = np.full((height, width), -1, np.float32)
    labels = np.zeros((height, width), np.uint8)
    for number in range(len(CLASSES)):
        grown = cv2.resize(chances[number], (width, height), interpolation=cv2.INTER_LINEAR)
        labels[grown > best] = number
        np.maximum(best, grown, out=best)
    return labels


def _views(shape: tuple[int, ...], faces: Sequence[Float64Array]) -> Iterator[View]:
    """Squares (left, top, side), which may reach over the edge, for faces of (468, 2) landmarks."""
    height, width = shape[:2]
    longest = max(height, width)
    yield 0, 0, longest
    extents = [float(np.ptp(points, axis=0).max()) for points in faces]
    for share, largest in _TILES:
        if max(extents, default=longest) <= largest * longest:
            side = round(share * longest)
            yield from ((left, top, side) for top in _starts(height, side) for left in _starts(width, side))
    for points, extent in list(zip(faces, extents, strict=True))[:_MOST_FACE_VIEWS]:
        centre, side = (points.min(0) + points.max(0)) / 2, round(_FACE_VIEW * extent)
        if side < 0.9 * longest:
            yield round(centre[0] - side / 2), round(centre[1] - side / 2), side


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin that cover the length, with a tenth of overlap at least."""
    count = 1 + max(0, math.ceil((length - side) / (0.9 * side)))
    return [round(start) for start in np.linspace(0, max(0, length - side), count)]


def _chances(picture: UInt8Array, views: Sequence[View], engine: str) -> Float32Array:
    """(6, h, w) float32: the classes' probabilities, the weighted mean over `views` of the picture."""
    height, width = picture.shape[:2]
    net = network(NETWORK, engine)
    taper = _taper(net.input_shape[1])
    total = np.zeros((len(CLASSES), height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for left, top, side in views:
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
        seen = _seen(picture, (left, top, side), net.input_shape[1])
        # The mean of a view and its mirror image errs less than either.
        shares = _shares(net, seen) + _shares(net, np.ascontiguousarray(seen[:, :, ::-1]))[:, ::-1]
        inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        importance = max(height, width) / side
        grown = cv2.resize(taper, (side, side), interpolation=cv2.INTER_LINEAR)
        # Beyond the edges of the whole picture nothing could say more of them.
        weight = importance * (grown[inside] if side < max(height, width) else np.float32(1))
        weights[y0:y1, x0:x1] += weight
        for number in range(len(CLASSES)):
            share = np.ascontiguousarray(shares[:, :, number])
            grown = cv2.resize(share, (side, side), interpolation=cv2.INTER_LINEAR)
            total[number, y0:y1, x0:x1] += np.asarray(weight * grown[inside], np.float32)
    return total / (2 * weights)


def _shares(net: Network, seen: Float32Array) -> Float32Array:
    """(size, size, 6): the softmax of the network's logits."""
    [logits] = net.run(seen)
    exponents = np.exp(logits[0] - logits[0].max(axis=2, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=2, keepdims=True))


def _seen(picture: UInt8Array, view: View, size: int) -> Float32Array:
    """(1, size, size, 3) in [-1, 1]: the view, black where it reaches over the picture's edge."""
    left, top, side = view
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    square = np.zeros((side, side, 3), np.uint8)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    seen = cv2.resize(square, (size, size), interpolation=how)
    return np.asarray(seen[None], np.float32) / 127.5 - 1


def _taper(size: int) -> Float32Array:
    """(size, size) float32: 1 in the middle of a view, falling to 0.05 over its outer tenth."""
    line = np.clip((np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5) / (0.1 * size), 0.05, 1)
    return np.asarray(np.minimum.outer(line, line), np.float32)
