"""Boxes against the truth: matching and average precision."""

from __future__ import annotations

import numpy as np

from models.training.acne_maps import iou


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
