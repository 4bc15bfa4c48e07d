"""ACNE04's boxes as the truth, and boxes against it: matching and average precision."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from models.networks.acne_maps import CLASSES, iou

TWINS = Path(__file__).with_name("acne_twins.txt")
"""Validation pictures of which training has another photograph (twins.py): no score counts them."""


def read_boxes(file: Path) -> dict[str, list[list[float]]]:
    """Boxes by picture: x0, y0, x1, y1, class. Those without an area are left out."""
    boxes: dict[str, list[list[float]]] = {}
    with file.open(newline="", encoding="utf-8") as source:
        for row in csv.DictReader(source):
            box = [float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")]
            if box[2] - box[0] > 1 and box[3] - box[1] > 1:
                boxes.setdefault(row["image"], []).append([*box, float(CLASSES.index(row["class"]))])
    return boxes


def level(name: str) -> int:
    """The severity 0…3 in a picture's name, or -1."""
    return int(name[5]) if name.startswith("levle") else -1


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
