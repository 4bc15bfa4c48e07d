"""The way from a picture to the canonical face."""

from __future__ import annotations

import numpy as np

from hardware.arrays import Float64Array
from sync.wire.findings.canonical_face import TRIANGLES, VERTICES

_VERTICES = np.array(VERTICES)
_TRIANGLES = np.array(TRIANGLES)
_CHUNK = 256


def to_canonical(points: Float64Array, landmarks: Float64Array) -> Float64Array:
    """Points (N×2) of the picture in canonical coordinates; `landmarks` is the 468×2 of the face they lie on.

    Affine within each triangle of the mesh; a point outside the mesh goes with the nearest triangle.
    """
    points = np.asarray(points, float).reshape(-1, 2)
    corners = np.asarray(landmarks, float)[_TRIANGLES]
    origin, edges = (
        corners[:, 0],
        np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], -1),
    )
    determinant = np.linalg.det(edges)
    # Where the face turns away, triangles of the picture flatten or fold over; those cannot be inverted.
    usable = np.abs(determinant) > 1e-6 * np.ptp(landmarks[:, 0]) ** 2
    inverse = np.linalg.inv(edges[usable])
    origin, targets = origin[usable], _VERTICES[_TRIANGLES[usable]]
    mapped = [_map(points[i : i + _CHUNK], origin, inverse, targets) for i in range(0, len(points), _CHUNK)]
    return np.concatenate(mapped) if mapped else np.zeros((0, 2))


def _map(
    points: Float64Array, origin: Float64Array, inverse: Float64Array, targets: Float64Array
) -> Float64Array:
    uv = np.einsum("tij,ntj->nti", inverse, points[:, None] - origin[None])
    weights = np.concatenate([1 - uv.sum(-1, keepdims=True), uv], axis=-1)
    best = np.argmax(weights.min(-1), axis=1)
    chosen = weights[np.arange(len(points)), best]
    return np.asarray(np.einsum("nk,nkj->nj", chosen, targets[best]))
