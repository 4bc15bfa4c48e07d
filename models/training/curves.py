"""The area under a receiver operating characteristic."""

from __future__ import annotations

import numpy as np


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the receiver operating characteristic: the chance that a positive outscores a negative."""
    hits, misses = scores[positive], np.sort(scores[~positive])
    if not len(hits) or not len(misses):
        return float("nan")
    below, upto = np.searchsorted(misses, hits, "left"), np.searchsorted(misses, hits, "right")
    return float((below + upto).mean() / 2 / len(misses))
