"""The shape of a simulated face: a smooth surface through its landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array, Float64Array
from hardware.face_mesh import EYES, FACE_WIDTH_MM, LIPS, OVAL, face_width


@dataclass(frozen=True)
class Shape:
    """A face's surface on a small grid: `points_mm` h×w×3 (x right, y down, z to the camera, origin in the
    middle of the face), unit `normals` h×w×3, `skin` h×w (1 on skin, 0 off the face, in the eyes and mouth).
    """

    points_mm: Float32Array
    normals: Float32Array
    skin: Float32Array
    mm_per_px: float


def shape_from_landmarks(landmarks: Float64Array, width: int, height: int, step: int = 8) -> Shape:
    """The surface through `landmarks` (468×3 px; z in px, smaller is nearer) of a picture of that size.

    The grid has one point per `step` pixels. Between the landmarks the surface is a thin-plate spline; off
    the face it bends away to flat, for a portrait says nothing of what is there.
    """
    points = np.asarray(landmarks, np.float64)
    scale = face_width(points)
    mm_per_px = FACE_WIDTH_MM / scale
    origin = points[list(OVAL)].mean(axis=0)
    xs, ys = np.meshgrid((np.arange(width // step) + 0.5) * step, (np.arange(height // step) + 0.5) * step)
    size = xs.shape
    skin = _soft_mask(points, size, step, scale)
    depth = cv2.GaussianBlur(-_thin_plate(points, xs, ys, scale), (0, 0), 0.012 * scale / step + 0.5)
    on_face = _fill(points[list(OVAL), :2], size, step)
    near = cv2.GaussianBlur(on_face, (0, 0), 0.06 * scale / step)
    floor = -float(points[list(OVAL), 2].max())
    slope_x, slope_y = (
        _gentle(cv2.Sobel(depth, cv2.CV_64F, *axis, ksize=3) / (8 * step)) for axis in ((1, 0), (0, 1))
    )
    normals = np.dstack([-slope_x * near, -slope_y * near, np.ones(size)])
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    depth = floor + (np.maximum(depth, floor) - floor) * near
    surface = np.dstack([xs - origin[0], ys - origin[1], depth + origin[2]]) * mm_per_px
    return Shape(surface.astype(np.float32), normals.astype(np.float32), skin, mm_per_px)


def _thin_plate(points: Float64Array, xs: Float64Array, ys: Float64Array, scale: float) -> Float64Array:
    """z at the grid: r² log r through the landmarks, smoothed a little, plus a plane."""
    sites = points[:, :2] / scale
    count = len(sites)
    kernel = _kernel(np.linalg.norm(sites[:, None] - sites[None], axis=2)) + 2e-3 * np.eye(count)
    plane = np.column_stack([np.ones(count), sites])
    system = np.block([[kernel, plane], [plane.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(system, np.concatenate([points[:, 2], np.zeros(3)]))
    grid = np.column_stack([xs.ravel(), ys.ravel()]) / scale
    result = np.empty(len(grid))
    for start in range(0, len(grid), 4096):
        block = grid[start : start + 4096]
        squares = (block**2).sum(1)[:, None] + (sites**2).sum(1) - 2 * block @ sites.T
        result[start : start + 4096] = _kernel(np.sqrt(np.maximum(squares, 0))) @ weights[:count]
    result += weights[count] + grid @ weights[count + 1 :]
    return result.reshape(xs.shape)


def _gentle(slope: Float64Array) -> Float64Array:
    """`slope`, kept below 1: the landmarks' depth is a network's guess, steepest where it knows least."""
    return np.asarray(slope / np.sqrt(1 + slope**2))


def _kernel(distance: Float64Array) -> Float64Array:
    return np.asarray(distance**2 * np.log(np.maximum(distance, 1e-12)))


def _fill(polygon: Float64Array, size: tuple[int, ...], step: int) -> Float32Array:
    mask = np.zeros(size, np.float32)
    corners = np.round(polygon / step - 0.5).astype(np.int32)
    cv2.fillPoly(mask, [corners], (1.0,))
    return mask


def _soft_mask(points: Float64Array, size: tuple[int, ...], step: int, scale: float) -> Float32Array:
    mask = _fill(points[list(OVAL), :2], size, step)
    for hole in (*EYES, LIPS):
        mask -= _fill(points[list(hole), :2], size, step)
    soft = cv2.GaussianBlur(np.clip(mask, 0, 1), (0, 0), max(0.8, 0.012 * scale / step))
    return np.asarray(soft, np.float32)
