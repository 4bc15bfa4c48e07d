"""What the acne network's maps mean: from heat-map and distances to boxes, in pixels of its square.

Training and the analysis read the maps alike; it lies here because training must run where no analysis is.
"""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import Float64Array, FloatArray

CLASSES = ("whitehead and blackhead", "papules", "pustules", "nodules and cysts")
STRIDE = 4
UNIT = 16.0
"""A box's side is UNIT · exp(output) pixels from the middle of the cell."""
CENTRES, SIDES = (5.0, 0.75), (1.5, 2.0)
"""The shipped graph gives relu6((x + first) · second) of these outputs, so that whole numbers spend no level
on values that decide nothing."""
HAYASHI = (5.5, 20.5, 50.5)
"""Lesions of half a face above which severity is 1, 2, 3 (Hayashi et al., J Dermatol 2008)."""
MOST_BOXES = 120
LEAST_SCORE = 0.01
MOST_OVERLAP = 0.45


def boxes_of(centres: FloatArray, sides: FloatArray, classes: FloatArray) -> Float64Array:
    """Boxes (k, 6: x0, y0, x1, y1, score, class), best first, at most MOST_BOXES, all above LEAST_SCORE.

    centres (h, w) logits; sides (h, w, 4) log distances left, top, right, bottom; classes (h, w, 4) logits.
    A box that overlaps a better one by more than MOST_OVERLAP is left out.
    """
    score = 1 / (1 + np.exp(-centres.astype(np.float32)))
    peaks = (cv2.dilate(score, np.ones((3, 3), np.uint8)) == score) & (score > LEAST_SCORE)
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-score[rows, columns], kind="stable")[:MOST_BOXES]
    rows, columns = rows[order], columns[order]
    middle = (np.stack([columns, rows], 1) + 0.5) * STRIDE
    reach = np.exp(np.clip(sides[rows, columns], -3, 3)) * UNIT
    kind = classes[rows, columns].argmax(1)
    box = np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], 1)
    return _without_doubles(np.column_stack([box, score[rows, columns], kind]))


def iou(a: Float64Array, b: Float64Array) -> Float64Array:
    """(n, m) intersection over union of boxes (n, 4+) and (m, 4+): x0, y0, x1, y1."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    inner = np.clip(high - low, 0, None).prod(2)
    area = [(x[:, 2:4] - x[:, :2]).prod(1) for x in (a, b)]
    return np.asarray(inner / np.maximum(area[0][:, None] + area[1][None] - inner, 1e-9))


def _without_doubles(boxes: Float64Array) -> Float64Array:
    overlap = iou(boxes, boxes) > MOST_OVERLAP
    kept: list[int] = []
    for i in range(len(boxes)):
        if not overlap[i, kept].any():
            kept.append(i)
    return boxes[kept]
