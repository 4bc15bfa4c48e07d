"""Boxes against boxes: suppression of doubles, matching to the truth, average precision."""

from __future__ import annotations

import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of boxes (n, 4) and (m, 4): x0, y0, x1, y1."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    inner = np.clip(high - low, 0, None).prod(2)
    area = [(x[:, 2:4] - x[:, :2]).prod(1) for x in (a, b)]
    return np.asarray(inner / np.maximum(area[0][:, None] + area[1][None] - inner, 1e-9))


def nms(boxes: np.ndarray, most: float = 0.45) -> np.ndarray:
    """Boxes (n, 5+), best first, without those that overlap a better one by more than `most`."""
    overlap = iou(boxes, boxes) > most
    kept: list[int] = []
    for i in range(len(boxes)):
        if not overlap[i, kept].any():
            kept.append(i)
    return boxes[kept]


def found(boxes: np.ndarray, truth: np.ndarray, least: float) -> np.ndarray:
    """(n,) whether each box, best first, is the first to overlap some true box (m, 4) by `least` or more."""
    overlap = iou(boxes, truth)
    hits = np.zeros(len(boxes), bool)
    for i in range(len(boxes) if len(truth) else 0):
        best = int(overlap[i].argmax())
        if overlap[i, best] >= least:
            hits[i] = True
            overlap[:, best] = -1
    return hits


def average_precision(scores: np.ndarray, hits: np.ndarray, truths: int) -> float:
    """Area under the precision-recall curve, precision made monotone."""
    right = np.cumsum(hits[np.argsort(-scores)])
    precision = right / np.arange(1, len(right) + 1)
    recall = right / max(1, truths)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))
