"""The canonical face: the mean shape of many frontal faces, made symmetric, with its triangles.

    python -m models.training.canonical_face PICTURE… > sync/wire/findings/canonical_face.json

What comes out is a statistic of landmark positions; it holds no pixel, and no single person's shape.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from models.analysis.face import EYE_CORNERS, SIDES, find_face
from models.analysis.picture import read_picture

ROUNDS = 10


def main(paths: list[str]) -> None:
    shapes = [find_face(read_picture(Path(path))).landmarks for path in paths]
    mean = _to_frame(_procrustes_mean(shapes))
    mirror = _mirror(mean)
    vertices = np.round(_to_frame((mean + mean[mirror] * [-1, 1, 1]) / 2)[:, :2], 4)
    document = {
        "frame": "canonical-face-1",
        "faces": len(shapes),
        "vertices": vertices.tolist(),
        "mirror": mirror.tolist(),
        "triangles": _triangles(vertices),
    }
    json.dump(document, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")


def _procrustes_mean(shapes: list[np.ndarray]) -> np.ndarray:
    """Generalised Procrustes analysis (Gower 1975): position, size, turn are taken out."""
    aligned = [s - s.mean(0) for s in shapes]
    aligned = [s / np.linalg.norm(s) for s in aligned]
    mean = aligned[0]
    for _ in range(ROUNDS):
        turned = []
        for shape in aligned:
            u, _, vt = np.linalg.svd(shape.T @ mean)
            turned.append(shape @ u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt)
        mean = np.mean(turned, axis=0)
        mean /= np.linalg.norm(mean)
    return mean


def _to_frame(points: np.ndarray) -> np.ndarray:
    """Origin between the eyes, seen from the front with level eyes, the sides of the face 2 apart."""
    right, left = points[EYE_CORNERS[0]], points[EYE_CORNERS[1]]
    x = (left - right) / np.linalg.norm(left - right)
    y = np.array([0.0, 1.0, 0.0]) - x[1] * x
    y /= np.linalg.norm(y)
    turned = (points - (left + right) / 2) @ np.array([x, y, np.cross(x, y)]).T
    return np.asarray(turned * 2 / abs(turned[SIDES[1], 0] - turned[SIDES[0], 0]))


def _mirror(points: np.ndarray) -> np.ndarray:
    """For each vertex the one that faces it: the pairing with the least total distance in space.

    Raises ValueError if the pairs do not agree.
    """
    distance = np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=2)
    _, pairs = linear_sum_assignment((distance + distance.T) ** 2)
    if not np.array_equal(pairs[pairs], np.arange(len(points))):
        raise ValueError("The mean face has no mirror symmetry: use more, and frontal, faces.")
    return pairs


def _triangles(vertices: np.ndarray) -> list[list[int]]:
    """Delaunay triangles whose corners are vertices, each turning the same way."""
    scaled = ((vertices + 2) * 1000).astype(np.float32)
    plane = cv2.Subdiv2D((0, 0, 4001, 4001))
    index_of = {}
    for index, (x, y) in enumerate(scaled):
        index_of[plane.insert((float(x), float(y)))] = index
    triangles = []
    for corners in np.asarray(plane.getTriangleList()).reshape(-1, 3, 2):
        if corners.min() < 0 or corners.max() > 4000:
            continue
        a, b, c = (index_of[plane.findNearest((float(x), float(y)))[0]] for x, y in corners)
        (ax, ay), (bx, by), (cx, cy) = vertices[a], vertices[b], vertices[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) > 1e-9:
            triangles.append([a, b, c] if area > 0 else [a, c, b])
    return sorted(triangles)


if __name__ == "__main__":
    main(sys.argv[1:])
