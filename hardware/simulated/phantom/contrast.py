"""The contrast of a phantom's marks: how much darker each makes its place, in white and under 365 nm."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from hardware.arrays import Float32Array
from hardware.simulated.phantom.tissue import Pigments, Tissue

_AROUND_MM = 1.5


def with_contrasts(
    truth: dict[str, list[dict[str, Any]]],
    tissue: Tissue,
    rest: Pigments,
    lit: Float32Array,
    mm_per_px: float,
) -> dict[str, list[dict[str, Any]]]:
    """`truth` with the optical density that each mark adds in its middle.

    A spot or lesion adds pigment to the skin at `rest`: `contrast` is the mean of red and green in white
    light without gloss, `contrast_uv` that of the blue under 365 nm. A pore or wrinkle shows by the light
    that reaches it, `lit` (H×W), beside the mean of what lies within 1.5 mm.
    """
    around = cv2.GaussianBlur(lit, (0, 0), _AROUND_MM / mm_per_px)
    for mark in (*truth["pores"], *truth["wrinkles"]):
        x, y = (round(value) for value in mark["place"])
        mark["contrast"] = round(float(np.log10(around[y, x] / lit[y, x])), 4)
    marks = [*truth["spots"], *truth["lesions"]]
    if not marks:
        return truth
    columns, rows = np.rint([mark["place"] for mark in marks]).astype(int).T
    before = Pigments(*(part[None, rows, columns] for part in rest))
    after = Pigments(
        *(
            part + np.array([mark[name] for mark in marks], np.float32)
            for part, name in zip(before, Pigments._fields, strict=True)
        )
    )
    white = np.log10(tissue.white(before) / tissue.white(after))[0, :, :2].mean(axis=1)
    uv = np.log10(tissue.ultraviolet(before) / tissue.ultraviolet(after))[0, :, 2]
    for mark, seen, seen_uv in zip(marks, white, uv, strict=True):
        mark["contrast"], mark["contrast_uv"] = round(float(seen), 4), round(float(seen_uv), 4)
    return truth
