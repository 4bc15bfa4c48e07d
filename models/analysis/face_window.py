"""The window: the part of a picture around one face, at the scale at which it is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from hardware.arrays import Float64Array
from models.analysis.face import Face

Number = TypeVar("Number", bound="np.integer[Any] | np.floating[Any]")

# 900 pixels across a face are 0.16 mm each: the smallest spot that is counted spans three.
FACE_PX = 900
_MARGINS = (0.22, 0.38, 0.22, 0.16)


@dataclass(frozen=True)
class FaceWindow:
    """A window `x0, y0, x1, y1` (whole pixels of the picture), shrunk by `step` ≥ 1, with the face in it.

    `face` has the window's coordinates.
    """

    window: tuple[int, int, int, int]
    step: float
    size: tuple[int, int]
    face: Face

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of what `cut` returns."""
        return self.size[1], self.size[0]

    def cut(self, pixels: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """The window of `pixels`, a picture of the size that it was made for; the dtype stays."""
        x0, y0, x1, y1 = self.window
        part = pixels[y0:y1, x0:x1]
        if part.shape[:2] == self.shape:
            return np.ascontiguousarray(part)
        return np.asarray(cv2.resize(part, self.size, interpolation=cv2.INTER_AREA))

    def placed(self, points: Float64Array) -> Float64Array:
        """Points (n, 2) of the picture in the window's coordinates."""
        return np.asarray((points - np.array(self.window[:2])) / self.step)


def face_window(face: Face, shape: tuple[int, int]) -> FaceWindow:
    """The window of `face` in a picture of `shape` (height, width); never enlarges."""
    low, high = face.points.min(0), face.points.max(0)
    extent = high - low
    left, above, right, below = _MARGINS
    x0, y0 = np.floor(low - extent * [left, above]).astype(int)
    x1, y1 = np.ceil(high + extent * [right, below]).astype(int)
    x0, y0 = max(0, int(x0)), max(0, int(y0))
    x1, y1 = min(shape[1], int(x1)), min(shape[0], int(y1))
    step = max(1.0, float(max(extent)) / FACE_PX)
    size = (max(1, round((x1 - x0) / step)), max(1, round((y1 - y0) / step)))
    landmarks = face.landmarks.copy()
    landmarks[:, :2] -= [x0, y0]
    landmarks /= step
    box = tuple((np.array(face.box) - [x0, y0, x0, y0]) / step)
    return FaceWindow((x0, y0, x1, y1), step, size, replace(face, box=box, landmarks=landmarks))
