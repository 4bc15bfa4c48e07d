"""Validation pictures of which training has another photograph: the same side of the same person.

    python -m models.training.twins DATA/acne04 > models/training/acne_twins.txt

Names validation pictures, one a line. They say nothing about strangers, so no score counts them.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from models.analysis.picture import read_picture

CANDIDATES = 15
LEAST_ALIKE = 0.5
INLIERS = 20
"""Features that one affine map must carry over: from 20 on, nearly every pair is one person from one side."""


def main(folder: Path) -> None:
    train = sorted((folder / "train" / "images").iterdir())
    known = np.stack([_thumbnails(file) for file in train])
    for file in sorted((folder / "valid" / "images").iterdir()):
        alike = np.einsum("d,tkd->tk", _thumbnails(file)[0], known).max(1)
        likely = [train[i] for i in np.argsort(-alike)[:CANDIDATES] if alike[i] >= LEAST_ALIKE]
        if any(_shared(file, other, mirror) >= INLIERS for other in likely for mirror in (False, True)):
            print(file.name, flush=True)


def _thumbnails(file: Path) -> np.ndarray:
    """(8, 576) standardised thumbnails: four quarter turns, each plain and mirrored."""
    grey = cv2.GaussianBlur(cv2.cvtColor(read_picture(file), cv2.COLOR_RGB2GRAY), (0, 0), 4)
    turns = [np.rot90(side, k) for k in range(4) for side in (grey, grey[:, ::-1])]
    small = np.stack([cv2.resize(t, (24, 24), interpolation=cv2.INTER_AREA).ravel() for t in turns])
    small = small.astype(np.float32)
    return (small - small.mean(1, keepdims=True)) / (small.std(1, keepdims=True) + 1e-3) / 24


@lru_cache(maxsize=2048)
def _features(file: Path, mirror: bool) -> tuple[np.ndarray, np.ndarray | None]:
    grey = cv2.resize(
        cv2.cvtColor(read_picture(file), cv2.COLOR_RGB2GRAY), (480, 480), interpolation=cv2.INTER_AREA
    )
    grey = cv2.GaussianBlur(grey, (0, 0), 1)
    points, descriptors = cv2.ORB_create(700).detectAndCompute(grey[:, ::-1].copy() if mirror else grey, None)
    return np.array([p.pt for p in points], np.float32), descriptors


def _shared(one: Path, other: Path, mirror: bool) -> int:
    """How many features (ORB, Rublee et al. 2011) of `one` an affine map carries onto `other`."""
    (here, a), (there, b) = _features(one, mirror), _features(other, False)
    if a is None or b is None or len(b) < 10:
        return 0
    pairs = [p for p in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(a, b, k=2) if len(p) == 2]
    good = [first for first, second in pairs if first.distance < 0.8 * second.distance]
    if len(good) < 8:
        return 0
    source, target = here[[m.queryIdx for m in good]], there[[m.trainIdx for m in good]]
    _, inliers = cv2.estimateAffine2D(source, target, ransacReprojThreshold=4)
    return 0 if inliers is None else int(inliers.sum())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
