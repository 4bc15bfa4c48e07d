"""One set of boxes out of several views of a face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.analysis.acne_views import VIEWS, fused, returned, view_matrix, viewed


@pytest.mark.parametrize("view", VIEWS)
def test_a_box_drawn_in_a_view_comes_back_to_where_its_lesion_is(view: tuple[float, float, float]) -> None:
    square = np.full((640, 640, 3), -1, np.float32)
    cv2.circle(square, (250, 390), 12, (1, 1, 1), cv2.FILLED)
    matrix = view_matrix(640, view)
    y, x = np.nonzero(viewed(square, matrix)[..., 0] > 0)
    drawn = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1, 0.7, 2.0]])
    [box] = returned(drawn, matrix)
    assert np.abs(box[:4] - [238, 378, 263, 403]).max() < 2
    assert box[4:].tolist() == [0.7, 2.0]


def test_a_lesion_that_every_view_shows_outscores_one_that_a_single_view_shows() -> None:
    lesion, chance = [100.0, 100, 120, 120, 0.5, 1], [300.0, 300, 320, 320, 0.6, 1]
    boxes = fused([np.array([chance, lesion]), np.array([lesion]), np.array([lesion])])
    assert boxes[:, 4] == pytest.approx([0.5, 0.2])
    assert boxes[0, :4] == pytest.approx(lesion[:4])


def test_the_surer_view_decides_more_of_where_a_lesion_lies() -> None:
    sure, unsure = [100.0, 100, 120, 120, 0.9, 1], [104.0, 100, 124, 120, 0.1, 3]
    [box] = fused([np.array([unsure]), np.array([sure])])
    assert box == pytest.approx([100.4, 100, 120.4, 120, 0.5, 1])


def test_neighbours_in_one_view_stay_two_lesions() -> None:
    near = np.array([[100.0, 100, 120, 120, 0.9, 1], [111.0, 100, 131, 120, 0.8, 1]])
    assert len(fused([near, near])) == 2


def test_views_that_show_nothing_give_no_box() -> None:
    assert fused([np.zeros((0, 6)), np.zeros((0, 6))]).shape == (0, 6)
