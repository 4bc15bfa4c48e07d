"""The canonical face is a face, and places on a picture land where they belong on it."""

from __future__ import annotations

import numpy as np
import pytest

from hardware import face_mesh
from models.analysis import face
from models.analysis.canonical import to_canonical
from models.analysis.face import find_face
from sync.wire.findings.canonical_face import LINES, MIRROR, OUTLINES, TRIANGLES, VERTICES, ZONES, points

V = np.array(VERTICES)


def test_its_frame_is_the_one_that_it_says() -> None:
    assert V.shape == (468, 2)
    assert np.abs(V[[33, 263]].mean(0)).max() < 1e-3
    assert V[454, 0] - V[234, 0] == pytest.approx(2, abs=1e-3)
    assert V[152, 1] > 1 and V[10, 1] < -0.5
    assert np.abs(V).max() < 2


def test_its_numbers_are_those_that_the_cameras_and_the_networks_know() -> None:
    """Each of the three has them for itself: none of them may import another."""
    eyes = (OUTLINES["right_eye"], OUTLINES["left_eye"])
    assert [set(ring) for ring in eyes] == [set(ring) for ring in face_mesh.EYES]
    assert set(OUTLINES["face_oval"]) == set(face_mesh.OVAL)
    assert face.SIDES == (face_mesh.RIGHT_EAR, face_mesh.LEFT_EAR)
    assert tuple(ring[0] for ring in face_mesh.EYES) == face.EYE_CORNERS


def test_it_is_symmetric() -> None:
    mirror = np.array(MIRROR)
    assert (mirror[mirror] == np.arange(468)).all()
    assert np.abs(V[mirror] * [-1, 1] - V).max() < 2e-3
    assert (mirror == np.arange(468)).sum() == 28


def test_its_triangles_cover_it_once() -> None:
    corners = V[np.array(TRIANGLES)]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(_area(points(OUTLINES["face_oval"])), rel=0.05)
    assert set(np.array(TRIANGLES).ravel()) == set(range(468))


def test_left_is_the_patients_left() -> None:
    for group in (OUTLINES, LINES, ZONES):
        for name, indices in group.items():
            x = np.mean([p[0] for p in points(indices)])
            side = 1 if name.split("_")[0] == "left" or name.endswith("_left") else 0
            side -= 1 if name.split("_")[0] == "right" or name.endswith("_right") else 0
            assert np.sign(round(x, 2)) == side, name


def test_zones_do_not_cover_each_other_much() -> None:
    total = sum(_area(points(indices)) for indices in ZONES.values())
    assert 0.4 < total / _area(points(OUTLINES["face_oval"])) < 0.8


def _area(polygon: list[tuple[float, float]]) -> float:
    p = np.array(polygon)
    q = np.roll(p, -1, axis=0)
    return float(abs((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / 2)


def test_landmarks_land_on_their_own_vertices(portrait: np.ndarray) -> None:
    landmarks = find_face(portrait).points
    # Inside the mouth and the eyes the mesh folds in a picture; elsewhere each vertex is hit.
    open_skin = [9, 10, 151, 50, 280, 101, 330, 4, 5, 195, 18, 200, 205, 425, 108, 337, 123, 352]
    assert np.abs(to_canonical(landmarks[open_skin], landmarks) - V[open_skin]).max() < 0.02


def test_a_point_between_landmarks_lands_between_them(portrait: np.ndarray) -> None:
    landmarks = find_face(portrait).points
    middle = landmarks[[50, 101, 36]].mean(0)
    x, y = to_canonical(middle, landmarks)[0]
    low, high = V[[50, 101, 36]].min(0), V[[50, 101, 36]].max(0)
    assert low[0] <= x <= high[0] and low[1] <= y <= high[1]


def test_a_point_outside_the_mesh_stays_near_it(portrait: np.ndarray) -> None:
    landmarks = find_face(portrait).points
    above = landmarks[10] + (landmarks[10] - landmarks[9]) * 0.5
    assert to_canonical(above, landmarks)[0, 1] == pytest.approx(1.5 * V[10, 1] - 0.5 * V[9, 1], abs=0.15)


def test_no_points_give_no_points(portrait: np.ndarray) -> None:
    assert to_canonical(np.zeros((0, 2)), find_face(portrait).points).shape == (0, 2)
