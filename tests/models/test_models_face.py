"""Faces are found whatever their size, place or tilt, and refused by name where they cannot be used."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.analysis.face import find_face, find_faces
from models.analysis.refusal import Refused
from models.analysis.scale import IRIS_MM, scale_of
from models.networks.runtime import installed_engines


def test_the_face_is_where_it_is(portrait: np.ndarray) -> None:
    face = find_face(portrait)
    x0, y0, x1, y1 = face.box
    assert 160 < x0 < 190 and 260 < x1 < 285
    assert 50 < y0 < 90 and 165 < y1 < 200
    assert face.landmarks.shape == (468, 3)
    assert face.presence > 0.95


def test_the_patients_left_is_on_the_right_of_the_picture(portrait: np.ndarray) -> None:
    points = find_face(portrait).points
    assert points[33, 0] < points[263, 0]


@pytest.mark.parametrize("engine", installed_engines())
def test_each_engine_gives_the_same_landmarks(portrait: np.ndarray, engine: str) -> None:
    expected = find_face(portrait).points
    assert np.abs(find_face(portrait, engine).points - expected).max() < 0.5


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_a_tilted_face_has_the_same_landmarks_tilted(portrait: np.ndarray, degrees: int) -> None:
    turn = cv2.getRotationMatrix2D((220, 120), degrees, 1.0)
    tilted = cv2.warpAffine(portrait, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    upright = find_face(portrait)
    expected = upright.points @ turn[:, :2].T + turn[:, 2]
    face = max(find_faces(tilted), key=lambda f: f.presence)
    assert np.abs(face.points - expected).mean() < 0.025 * upright.width


@pytest.mark.parametrize("face_px", [70, 150, 400])
def test_a_face_in_a_corner_of_a_large_picture_is_found(portrait: np.ndarray, face_px: int) -> None:
    head = portrait[40:210, 140:310]
    head = cv2.resize(head, None, fx=face_px / 92, fy=face_px / 92, interpolation=cv2.INTER_AREA)
    canvas = np.full((1800, 2400, 3), 128, np.uint8)
    canvas[-head.shape[0] - 100 : -100, 60 : 60 + head.shape[1]] = head
    face = find_face(canvas)
    assert face.width == pytest.approx(face_px, rel=0.15)


def test_a_face_that_fills_the_picture_is_found(portrait: np.ndarray) -> None:
    assert find_face(np.ascontiguousarray(portrait[70:190, 170:275])).presence > 0.5


def test_no_face_is_refused_by_name(landscape: np.ndarray) -> None:
    with pytest.raises(Refused, match="No face can be seen") as refused:
        find_face(landscape)
    assert refused.value.code == "no_face"
    assert refused.value.exit_status == 2


def test_two_faces_are_refused_by_name(portrait: np.ndarray) -> None:
    head = portrait[0:256, 90:346]
    with pytest.raises(Refused) as refused:
        find_face(np.ascontiguousarray(np.hstack([head, head[:, ::-1]])))
    assert refused.value.code == "two_faces"


def test_a_small_face_far_behind_is_passed_over(portrait: np.ndarray) -> None:
    head = portrait[0:256, 90:346]
    canvas = np.full((512, 700, 3), 120, np.uint8)
    canvas[:, :512] = cv2.resize(head, (512, 512), interpolation=cv2.INTER_CUBIC)
    canvas[30:126, 560:656] = cv2.resize(head, (96, 96), interpolation=cv2.INTER_AREA)
    assert find_face(canvas).box[2] < 512


def test_a_picture_too_small_for_a_face_has_none() -> None:
    assert find_faces(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.parametrize("shape", [(16, 4000), (4000, 16), (17, 17)])
def test_odd_shapes_have_no_face(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert find_faces(noise) == []


def test_the_irises_give_the_scale_of_a_grown_face(large_portrait: np.ndarray) -> None:
    face = find_face(large_portrait)
    scale = scale_of(large_portrait, face, "ai-edge-litert", None)
    assert scale.source == "iris"
    assert 115 < face.width * scale.mm_per_px < 165
    assert IRIS_MM / scale.mm_per_px > 20


def test_a_calibrated_scale_goes_before_the_irises(large_portrait: np.ndarray) -> None:
    face = find_face(large_portrait)
    assert scale_of(large_portrait, face, "ai-edge-litert", 0.2).mm_per_px == 0.2
