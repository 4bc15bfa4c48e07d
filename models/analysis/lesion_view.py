"""The square views of a lesion that the class network sees, at the scale of its training."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array, UInt8Array
from models.networks.lesion_views import LEAST_SIDE, NATIVE

# A lesion that is small in a large picture is looked at this many pixels wide, where the picture has them.
_SMALL_LESION = 60.0


@dataclass(frozen=True)
class Framed:
    """A close-up with its lesion: `picture` h×w×3, reduced to `step` (≤ 1) of the size that it had.

    `centre` (x, y) and `side` are of the square about the lesion, in the reduced picture's pixels.
    """

    picture: UInt8Array
    step: float
    centre: tuple[float, float]
    side: float

    def to_picture(self, times: float, size: int) -> Float64Array:
        """2×3: from pixels of the view of `size` pixels, `times` the lesion's side, to the reduced picture's.

        The view lies within the picture where it can.
        """
        height, width = self.picture.shape[:2]
        side = min(self.side * times, float(max(width, height)))
        corner = [
            float(np.clip(place, min(side, length) / 2, length - min(side, length) / 2)) - side / 2
            for place, length in zip(self.centre, (width, height), strict=True)
        ]
        scale = side / size
        # Pixel centres: the view's (u + .5) · scale + corner is the picture's x + .5.
        return np.array([[scale, 0, corner[0] + scale / 2 - 0.5], [0, scale, corner[1] + scale / 2 - 0.5]])

    def view(self, times: float, size: int, picture: Float32Array | None = None) -> Float32Array:
        """size×size×3 float32 in [-1, 1], reflected at the picture's edges; of another `picture` if given."""
        source = self.picture if picture is None else picture
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = self.to_picture(times, size)
        view = cv2.warpAffine(source, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(view, np.float32) / np.float32(127.5) - np.float32(1)


def framed(picture: UInt8Array, mask: UInt8Array) -> Framed:
    """`picture` (H×W×3 uint8) framed by its lesion's `mask` (H×W uint8); by all of it if that is empty."""
    height, width = picture.shape[:2]
    x, y, w, h = cv2.boundingRect(mask) if mask.any() else (0, 0, width, height)
    step = min(1.0, max(NATIVE[1] / max(height, width), _SMALL_LESION / max(w, h)))
    small = picture
    if step < 1:
        size = (max(1, round(width * step)), max(1, round(height * step)))
        small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    side = max(LEAST_SIDE * min(1.0, max(small.shape[:2]) / NATIVE[1]), max(w, h) * step)
    return Framed(small, step, ((x + w / 2) * step, (y + h / 2) * step), side)
