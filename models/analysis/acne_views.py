"""How else a face is shown to the acne network, and one set of boxes out of what it says of each view."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array
from models.networks.acne_maps import LEAST_SCORE, MOST_BOXES, iou

# Magnification, degrees, shift in pixels (half a cell of the maps): what training varied, in moderation.
VIEWS = ((0.85, 0.0, 0.0), (1.18, 0.0, 0.0), (1.0, 0.0, 2.0), (0.95, 8.0, 0.0), (0.95, -8.0, 0.0))
# Boxes of two views that overlap by more than this are of one lesion.
_SAME = 0.3


def view_matrix(size: int, view: tuple[float, float, float]) -> Float64Array:
    """(2, 3): from a square of `size` pixels to one of VIEWS."""
    scale, degrees, shift = view
    matrix = np.asarray(cv2.getRotationMatrix2D((size / 2, size / 2), degrees, scale), np.float64)
    matrix[:, 2] += shift
    return matrix


def viewed(square: Float32Array, matrix: Float64Array) -> Float32Array:
    """The square, float32 in [-1, 1], through `matrix`; black where it ends."""
    view = cv2.warpAffine(square, matrix, square.shape[1::-1], borderValue=(-1, -1, -1))
    return np.asarray(view, np.float32)


def returned(boxes: Float64Array, matrix: Float64Array) -> Float64Array:
    """Boxes (k, 6) of a view in the square's pixels: their middles moved, their sides scaled, none turned."""
    back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2 @ back[:, :2].T + back[:, 2]
    reach = (boxes[:, 2:4] - boxes[:, :2]) / 2 * np.sqrt(np.linalg.det(back[:, :2]))
    return np.column_stack([middle - reach, middle + reach, boxes[:, 4:]])


def fused(views: Sequence[Float64Array]) -> Float64Array:
    """Boxes (k, 6) of one square as in `boxes_of`, out of those of several views, each best first.

    Weighted boxes fusion (Solovyev et al., Image and Vision Computing 2021): of one lesion, the mean of the
    views' boxes, weighted by score; its score is the sum of theirs over the number of views.
    """
    rows = np.concatenate([np.column_stack([boxes, np.full(len(boxes), i)]) for i, boxes in enumerate(views)])
    groups: list[list[Float64Array]] = []
    middles = np.zeros((len(rows), 4))
    for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
        overlaps = iou(row[None, :4], middles[: len(groups)])[0]
        best = int(overlaps.argmax()) if len(groups) else -1
        if best < 0 or overlaps[best] < _SAME:
            middles[len(groups)] = row[:4]
            groups.append([row])
        elif all(row[6] != other[6] for other in groups[best]):
            groups[best].append(row)
            same = np.array(groups[best])
            middles[best] = np.average(same[:, :4], axis=0, weights=same[:, 4])
    scores = np.array([sum(row[4] for row in group) for group in groups]) / len(views)
    boxes = np.column_stack([middles[: len(groups)], scores, [group[0][5] for group in groups]])
    boxes = boxes[np.argsort(-scores, kind="stable")][:MOST_BOXES]
    return np.asarray(boxes[boxes[:, 4] > LEAST_SCORE])
