"""Blurring within a mask."""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import Float32Array, UInt8Array


def shrunk(values: Float32Array, factor: int) -> Float32Array:
    """`values` (H×W float32) reduced by area to about 1/factor of its size."""
    if factor <= 1:
        return values
    size = (max(1, round(values.shape[1] / factor)), max(1, round(values.shape[0] / factor)))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))


def smooth_within(values: Float32Array, mask: UInt8Array, sigma: float) -> Float32Array:
    """`values` (H×W float32) blurred from inside `mask` outwards, by normalised convolution.

    Where no mask is near, the mean of what is inside. A wide blur is done on a smaller picture.
    """
    weight = (mask > 0).astype(np.float32)
    factor = max(1, int(sigma / 3))
    total, held = shrunk(values * weight, factor), shrunk(weight, factor)
    if sigma / factor > 0.3:
        total, held = (
            np.asarray(cv2.GaussianBlur(part, (0, 0), sigma / factor), np.float32) for part in (total, held)
        )
    smooth = (total + 1e-4 * float(values[mask > 0].mean())) / (held + 1e-4)
    grown = cv2.resize(smooth, (values.shape[1], values.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown, np.float32)
