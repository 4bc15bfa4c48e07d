"""What a picture file has as transparent, taken out of what was measured: white is all there is to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hardware.arrays import BoolArray, UInt8Array
from models.analysis.acne import Acne
from models.analysis.lesion import FoundLesion
from models.analysis.refusal import Refused


def opaque(labels: UInt8Array, shown: BoolArray | None) -> UInt8Array:
    """The mask or label map (H×W uint8) with 0 where `shown` (H×W bool) is false; with None all is shown."""
    return labels if shown is None else np.where(shown, labels, np.uint8(0))


def opaque_lesion(lesion: FoundLesion, shown: BoolArray | None) -> FoundLesion:
    """The lesion where it is shown. Raises Refused("no_lesion") where nothing of it is."""
    if shown is None:
        return lesion
    mask = opaque(lesion.mask, shown)
    if not mask.any():
        raise Refused("no_lesion")
    return replace(lesion, mask=mask)


def opaque_acne(acne: Acne, shown: BoolArray | None) -> Acne:
    """The boxes whose middles are shown; no severity where a counted one is not, or none at all is."""
    if shown is None:
        return acne
    height, width = shown.shape
    middles = (acne.boxes[:, :2] + acne.boxes[:, 2:4]) / 2
    columns, rows = np.clip(middles.astype(int), 0, [width - 1, height - 1]).T
    seen = replace(acne, boxes=acne.boxes[shown[rows, columns]])
    if len(seen.counted) == len(acne.counted) and (len(seen.boxes) or not len(acne.boxes)):
        return seen
    return replace(seen, severity=None)
