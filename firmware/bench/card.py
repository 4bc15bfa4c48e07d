"""A card in the plane of the face: how much of its light the camera gets, and how evenly."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_BLOCKS = 16
_Number = TypeVar("_Number", bound=np.number[Any])


def seen_share(light: str) -> float:
    """How much of a matte card's light the camera gets: half of it through polarisers, crossed or parallel.

    See hardware.simulated.patient.
    """
    return 0.5 if light in ("parallel", "cross") else 1.0


def middle(picture: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """The middle of `picture` (H×W×3), a quarter of it each way."""
    height, width = picture.shape[:2]
    return picture[3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8]


def blocks(picture: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """The mean of each of 16×16 blocks of `picture` (H×W×3), 16×16×3."""
    height, width = picture.shape[:2]
    rows, columns = height // _BLOCKS, width // _BLOCKS
    cut = picture[: rows * _BLOCKS, : columns * _BLOCKS]
    return np.asarray(cut.reshape(_BLOCKS, rows, _BLOCKS, columns, 3).mean(axis=(1, 3)))


def unevenness(picture: npt.NDArray[np.floating[Any]]) -> float:
    """The largest relative deviation of any of the `blocks` of `picture` (H×W×3) from their mean."""
    found = blocks(picture)
    return float(np.abs(found / found.mean(axis=(0, 1)) - 1).max())
