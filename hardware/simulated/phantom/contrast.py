"""The contrast of a phantom's marks: how much darker each makes its place, in white and under 365 nm."""

from __future__ import annotations

from typing import Any

import numpy as np

from hardware.simulated.phantom.tissue import Pigments, Tissue


def with_contrasts(
    truth: dict[str, list[dict[str, Any]]], tissue: Tissue, rest: Pigments
) -> dict[str, list[dict[str, Any]]]:
    """`truth` with the optical density that each spot and lesion adds in its middle to the skin at `rest`.

    `contrast` is the mean of red and green in white light without gloss, `contrast_uv` that of the blue under
    365 nm.
    """
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
