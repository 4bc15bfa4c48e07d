"""The middle of a frame, where the face stands: what a frame's brightness is judged by."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Number = TypeVar("_Number", bound=np.number[Any])


def middle(picture: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Every eighth row and column of the middle half of a picture, H×W×… of whatever numbers it has."""
    height, width = picture.shape[:2]
    return picture[height // 4 : -height // 4 : 8, width // 4 : -width // 4 : 8]


def middle_level(picture: npt.NDArray[np.number[Any]]) -> float:
    """Median of the brightest channel in the middle of a picture, H×W×3, in its own unit."""
    return float(np.median(middle(picture).max(axis=2)))
