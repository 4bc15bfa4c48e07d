"""A face that is not upright is never given zones in the wrong places."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import cv2
import numpy as np
import pytest

from hardware.capture import Capture, Frame
from models.analysis.acne import find_acne
from models.analysis.capture import analyse_capture
from models.analysis.describe import describe_picture
from models.analysis.face import find_faces
from models.analysis.refusal import Refused
from models.analysis.upright import find_upright_face, quarter_turns
from models.networks.runtime import DEFAULT_ENGINE
from tests.support.picture_files import png, save

SCAN = UUID(int=1)


def _turned(picture: np.ndarray, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(picture, -turns))


@pytest.mark.parametrize("turns", range(4))
def test_the_turns_that_put_a_face_upright_are_known(
    portrait: np.ndarray, large_portrait: np.ndarray, turns: int
) -> None:
    for picture in (portrait, large_portrait[::3, ::3]):
        seen = _turned(picture, turns)
        assert quarter_turns(seen, find_faces(seen)) == turns


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_face_that_is_hard_to_see_is_not_called_absent(portrait: np.ndarray, turns: int) -> None:
    hard = portrait.copy()
    hard[60:100, 180:270] = 60  # the brows
    hard = cv2.GaussianBlur(cv2.resize(hard, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA), (0, 0), 0.6)
    seen = _turned(hard, turns)
    with pytest.raises(Refused, match="Turn the picture upright"):
        find_upright_face(seen)
    assert quarter_turns(hard, find_faces(hard)) == 0


def test_of_two_turns_that_score_alike_the_one_in_which_landmarks_fit_is_upright(
    portrait: np.ndarray,
) -> None:
    hard = portrait.copy()
    hard[60:100, 180:270] = 60
    leaning = cv2.getRotationMatrix2D((224, 120), 20, 1)
    hard = cv2.warpAffine(hard, leaning, (512, 512), borderMode=cv2.BORDER_REFLECT)
    hard = cv2.resize(hard, None, fx=0.15, fy=0.15, interpolation=cv2.INTER_AREA)
    seen = _turned(cv2.GaussianBlur(hard, (0, 0), 0.9), 1)
    assert find_faces(seen)
    with pytest.raises(Refused, match="Turn the picture upright"):
        find_upright_face(seen)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_face_is_refused_with_what_to_do(tmp_path: Path, portrait: np.ndarray, turns: int) -> None:
    path = save(tmp_path / "face.png", png(_turned(portrait, turns)))
    row = describe_picture(path, tmp_path, None, DEFAULT_ENGINE)
    assert row["refused"] == "turned" and "Turn the picture upright" in row["sentence"]
    assert row["faces"] == [] and json.dumps(row)
    frame = Frame("white", _turned(portrait, turns), 1, 1.0, 1, "srgb")
    with pytest.raises(Refused, match="Turn the picture upright"):
        analyse_capture(Capture("own", (frame,)), SCAN)


def test_a_face_that_leans_is_upright(portrait: np.ndarray) -> None:
    for angle in (-30, 30):
        matrix = cv2.getRotationMatrix2D((224, 120), angle, 1)
        leaning = cv2.warpAffine(portrait, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
        assert abs(find_upright_face(leaning).roll_degrees) > 20


def test_a_picture_without_a_face_is_not_called_turned(landscape: np.ndarray) -> None:
    for turns in range(4):
        assert quarter_turns(_turned(landscape, turns), []) == 0


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_acne_of_a_turned_face_is_counted_upright_and_placed_where_it_is(
    large_portrait: np.ndarray, turns: int
) -> None:
    picture = np.ascontiguousarray(large_portrait[::2, ::2])
    height = len(picture)
    upright, seen = find_acne(picture), find_acne(_turned(picture, turns))
    assert len(upright.boxes) and len(seen.counted) == len(upright.counted)
    assert seen.severity == upright.severity
    boxes = upright.boxes[:, :4]
    for _ in range(turns):
        boxes = np.stack([height - boxes[:, 3], boxes[:, 0], height - boxes[:, 1], boxes[:, 2]], axis=1)
    assert np.allclose(seen.boxes[:, :4], boxes, atol=0.01)
