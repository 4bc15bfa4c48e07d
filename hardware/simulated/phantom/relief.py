"""The relief of a phantom's face: its depth, with wrinkles, pores and bumps in it, and its normals."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array
from hardware.simulated.phantom.plan import FACE_MIDDLE, Plan
from hardware.simulated.shape import Shape

# The middle line of a head from crown to chin without nose and lips: (v on the mean face, mm to the camera).
_MIDLINE = (
    (-2.4, -130), (-1.6, -72), (-1.4, -46), (-1.2, -26), (-1.0, -11), (-0.8, -2), (-0.6, 4), (-0.4, 8),
    (-0.22, 10), (0.0, 6), (0.2, 4), (0.45, 5), (0.7, 9), (0.9, 12), (1.0, 12), (1.15, 9), (1.25, 7),
    (1.42, 10), (1.52, 5), (1.62, -9), (1.75, -36), (2.0, -80), (4.0, -80),
)  # fmt: skip
# Half the breadth of the head at heights on the mean face.
_HALF_BREADTH = (
    (-2.4, 0.5), (-1.5, 0.72), (-1.2, 0.92), (-0.9, 1.04), (-0.4, 1.11), (0.2, 1.09), (0.6, 1.03),
    (0.9, 0.95), (1.1, 0.87), (1.3, 0.76), (1.5, 0.64), (1.7, 0.60), (4.0, 0.6),
)  # fmt: skip
_SMOOTH = 0.05
_NECK_MM, _NECK_BREADTH, _SHOULDERS = -50.0, 0.66, (2.0, 2.7)
_DEPTH_MM = 80.0
# Nose: (v, height over the midline in mm, breadth).
_NOSE = (
    (-0.2, 0, 0.10), (-0.05, 2.5, 0.09), (0.1, 6, 0.10), (0.3, 11.5, 0.12), (0.45, 15.5, 0.14),
    (0.56, 18.5, 0.155), (0.62, 18, 0.155), (0.67, 12, 0.15), (0.71, 3, 0.13), (0.76, 0, 0.1),
)  # fmt: skip
# Bumps and hollows: u (both sides where not 0), v, mm, half breadth, half height.
_FORMS = (
    (0.205, 0.585, 7.0, 0.062, 0.070),  # wings of the nose
    (0.300, 0.610, -2.2, 0.030, 0.080),  # the crease beside them
    (0.105, 0.672, -5.0, 0.050, 0.020),  # nostrils
    (0.46, -0.03, -6.5, 0.21, 0.10),  # sockets
    (0.455, 0.012, 5.0, 0.15, 0.065),  # eyeballs
    (0.45, 0.125, -1.2, 0.18, 0.025),  # below the lower lid
    (0.25, 0.02, -3.5, 0.05, 0.08),  # inner corners
    (0.42, -0.21, 3.0, 0.26, 0.075),  # brows
    (0.62, 0.36, 4.5, 0.20, 0.15),  # cheekbones
    (0.60, 0.75, 2.0, 0.20, 0.20),  # cheeks
    (0.0, 0.945, 3.2, 0.20, 0.045),  # upper lip
    (0.0, 1.075, 4.2, 0.19, 0.050),  # lower lip
    (0.39, 0.97, -2.0, 0.05, 0.05),  # corners of the mouth
    (0.0, 0.82, -0.9, 0.030, 0.060),  # philtrum
    (0.0, 1.42, 2.0, 0.17, 0.09),  # chin
)
_COARSE = 4


def face_depth(plan: Plan, head: Float64Array) -> Float32Array:
    """Depth in mm (H×W float32, larger is nearer to the camera) of the face without its fine relief.

    Where `head` (H×W in 0…1) ends, the neck and what is behind begin.
    """
    u, v = plan.to_mean(_COARSE)
    share = np.minimum(np.abs(u) / _curve(_HALF_BREADTH, v), 1.0) ** 2.2
    side = 1 - np.sqrt(np.maximum(1 - share, 0) + 0.004) + 0.002
    depth = _curve(_MIDLINE, v) - _DEPTH_MM * side
    across = np.abs(u) / _curve(_NOSE, v, 2)
    depth += _curve(_NOSE, v) * np.exp(-(across**2.4))
    for x, y, mm, half_breadth, half_height in _FORMS:
        for place in {x, -x}:
            depth += mm * np.exp(-(((u - place) / half_breadth) ** 2) - ((v - y) / half_height) ** 2)
    mouth = np.exp(-(((v - 1.0) / 0.022) ** 2)) * np.exp(-((u / 0.33) ** 8))
    depth -= 3.0 * mouth
    # Nasolabial folds: from the wings of the nose to beside the corners of the mouth.
    fold = 0.35 + 0.42 * (v - 0.62) + 0.08 * (v - 0.62) ** 2
    depth -= 1.1 * np.exp(-(((np.abs(u) - fold) / 0.045) ** 2)) * np.exp(-(((v - 0.8) / 0.19) ** 4))
    low, high = _SHOULDERS
    breadth = _NECK_BREADTH + 2.0 * np.clip((v - low) / (high - low), 0, 1) ** 2
    neck = _NECK_MM - 40 * (1 - np.sqrt(1 - 0.96 * np.minimum(np.abs(u) / breadth, 1.0) ** 2.5))
    on_head = cv2.resize(head, (u.shape[1], u.shape[0]), interpolation=cv2.INTER_AREA)
    depth = neck + on_head * (depth - neck)
    fine = cv2.resize(depth.astype(np.float32), (plan.width, plan.height), interpolation=cv2.INTER_CUBIC)
    # Slopes show the seams of any interpolation.
    return np.asarray(cv2.GaussianBlur(fine, (0, 0), 1.5 / plan.mm_per_px), np.float32)


def _curve(table: Sequence[tuple[float, ...]], at: Float32Array, column: int = 1) -> Float64Array:
    """Values of a `column` of `table` at `at` (its first column), without corners."""
    rows = np.array(table)
    grid = np.arange(-3.0, 4.5, _SMOOTH / 4)
    values = np.interp(grid, rows[:, 0], rows[:, column]).astype(np.float32)
    values = cv2.GaussianBlur(values[None], (0, 0), 4.0, borderType=cv2.BORDER_REPLICATE)[0]
    return np.asarray(np.interp(at, grid, values))


def normals(depth_mm: Float32Array, mm_per_px: float) -> Float32Array:
    """Unit normals, H×W×3 float32 (x right, y down, z to the camera), of a depth map in mm."""
    down, right = np.gradient(depth_mm, mm_per_px)
    length = np.sqrt(right**2 + down**2 + 1)
    return np.dstack([-right / length, -down / length, 1 / length]).astype(np.float32)


def occlusion(depth_mm: Float32Array, mm_per_px: float) -> Float32Array:
    """How much of the light around reaches each place, H×W float32 in 0…1: less where it lies in a hollow.

    A cheap stand-in for ambient occlusion: depth below the mean of the surroundings, at several sizes.
    """
    height, width = depth_mm.shape
    dim = np.zeros((height, width), np.float32)
    for radius_mm, weight in ((0.35, 2.5), (1.2, 0.5), (6.0, 0.045), (18.0, 0.009)):
        sigma = radius_mm / mm_per_px
        step = max(1, int(sigma / 3))
        size = (max(1, width // step), max(1, height // step))
        small = cv2.resize(depth_mm, size, interpolation=cv2.INTER_AREA)
        around = cv2.GaussianBlur(small, (0, 0), sigma / step)
        hollow = cv2.resize(np.maximum(around - small, 0), (width, height), interpolation=cv2.INTER_LINEAR)
        dim += weight * hollow
    return np.asarray(np.exp(-dim), np.float32)


def surface(depth_mm: Float32Array, skin: Float32Array, mm_per_px: float) -> Shape:
    """The Shape of a depth map, one point a pixel, origin in the middle of the face."""
    height, width = depth_mm.shape
    xs = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * np.float32(mm_per_px)
    ys = (np.arange(height, dtype=np.float32) + 0.5 - FACE_MIDDLE * height) * np.float32(mm_per_px)
    x, y = np.meshgrid(xs, ys)
    points = np.dstack([x, y, depth_mm.astype(np.float32)])
    return Shape(points, normals(depth_mm, mm_per_px), skin, mm_per_px)
