"""Deleting what decides makes a class less likely, keeping it alone does not: the test of saliency."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.analysis import lesion as lesions
from models.analysis.lesion import FoundLesion
from models.analysis.saliency import GRID, Saliency
from models.networks.lesion_views import CLASSES
from models.training.faithfulness import _rows, remaining

WINDOW = (10.0, 10.0, 110.0, 110.0)


def test_the_map_that_knows_the_place_deletes_better_and_keeps_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = np.full((120, 160, 3), 200, np.uint8)
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (60, 60), 30, 255, -1)
    picture[mask > 0] = 150
    cv2.circle(picture, (48, 70), 5, (20, 20, 20), -1)

    def dark_blot(seen: np.ndarray, mask: np.ndarray, engine: str) -> np.ndarray:
        logits = np.zeros((1, 7))
        logits[0, CLASSES.index("mel")] = (150 - seen[66:75, 44:53].mean()) / 15
        return logits

    monkeypatch.setattr(lesions, "view_logits", dark_blot)
    chances = np.full(7, 0.02)
    chances[CLASSES.index("mel")] = 0.88
    lesion, found = FoundLesion(mask, chances, True), Saliency(np.zeros((7, GRID, GRID)), WINDOW)
    y, x = np.mgrid[:120, :160]
    known, elsewhere = (-np.hypot(x - at[0], y - at[1]) for at in ((48, 70), (100, 20)))
    deleted, kept = remaining(picture, lesion, found, known)
    deleted_elsewhere, kept_elsewhere = remaining(picture, lesion, found, elsewhere)
    assert deleted < deleted_elsewhere - 0.3 and kept > kept_elsewhere + 0.3


def test_the_table_pairs_each_map_with_the_saliency() -> None:
    draw = np.random.default_rng(0)
    base = draw.uniform(0.3, 0.9, (40, 2))
    rows = {row["map"]: row for row in _rows({"saliency": base, "noise": base + [0.2, -0.1]})}
    assert rows["saliency"]["deleted_gap"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    gap = rows["noise"]["deleted_gap"]
    assert gap["low"] == pytest.approx(-0.2) == gap["high"]
    assert rows["noise"]["kept_gap"]["value"] == pytest.approx(0.1)
