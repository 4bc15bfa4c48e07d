"""`analyse acne`: boxes in the pictures' own pixels, a count that the boxes show, refusals in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.analysis import acne
from models.analysis.acne import THRESHOLD, find_acne
from models.analysis.detector import Detection
from models.analysis.refusal import Refused
from models.networks.acne_maps import CENTRES, CLASSES, SIDES, UNIT, boxes_of
from models.training.strange import example

DERMAKIOSK = Path(sys.executable).with_name("dermakiosk")
SIZE = 640


class _DarkSpots:
    """In the network's place: sees dark spots as lesions, and all of them as 32 pixels wide and high."""

    input_shape = (1, SIZE, SIZE, 3)
    peak = 2.0

    def __init__(self, lesions: int = 0) -> None:
        self.lesions = lesions

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        cells = cv2.resize(batch[0].mean(2), (SIZE // 4, SIZE // 4), interpolation=cv2.INTER_AREA)
        dark = cv2.connectedComponentsWithStats((cells < -0.5).astype(np.uint8))
        y, x = np.mgrid[: SIZE // 4, : SIZE // 4]
        logits = np.full(cells.shape, -5.0)
        for cx, cy in dark[3][1:]:
            logits = np.maximum(logits, (self.peak + 5) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8) - 5)
        sides = np.full((1, *logits.shape, 4), np.log(16 / UNIT), np.float32)
        kinds = np.zeros((1, *logits.shape, len(CLASSES)), np.float32)
        kinds[..., 2] = 1
        counts = np.full((1, 80), -9.0)
        counts[0, self.lesions] = 9
        return [
            (logits[None, ..., None] + CENTRES[0]) * CENTRES[1],
            (sides + SIDES[0]) * SIDES[1],
            kinds,
            counts,
            np.array([[0.0, 3.0, 0.0, 0.0]]),
        ]


def _one_face(picture: np.ndarray, engine: str) -> list[Detection]:
    """In the detector's place: a face that fills the picture."""
    height, width = picture.shape[:2]
    return [Detection(np.array([0.0, 0, width, height]), np.zeros((2, 2)), 0.9)]


@pytest.fixture
def dark_spots(monkeypatch: pytest.MonkeyPatch) -> _DarkSpots:
    network = _DarkSpots()
    monkeypatch.setattr(acne, "network", lambda name, engine: network)
    monkeypatch.setattr(acne, "detect", _one_face)
    monkeypatch.setattr(acne, "find_faces", lambda picture, engine: [])
    return network


def _spotted(height: int, width: int, spots: list[tuple[int, int]], radius: int = 12) -> np.ndarray:
    picture = np.full((height, width, 3), 170, np.uint8)
    for spot in spots:
        cv2.circle(picture, spot, radius, (0, 0, 0), -1)
    return picture


def test_boxes_come_back_in_the_pixels_of_a_stretched_picture(dark_spots: _DarkSpots) -> None:
    dark_spots.lesions = 2
    found = find_acne(_spotted(900, 1200, [(300, 200), (1000, 700)], radius=25)).counted
    centres = sorted(((box[:2] + box[2:4]) / 2).tolist() for box in found)
    assert np.allclose(centres, [[300, 200], [1000, 700]], atol=6)
    # The stand-in draws boxes of one size, however much a view magnifies.
    assert np.allclose(found[:, 2] - found[:, 0], 32 * 1200 / SIZE, rtol=0.05)
    assert np.allclose(found[:, 3] - found[:, 1], 32 * 900 / SIZE, rtol=0.05)
    assert {CLASSES[int(kind)] for kind in found[:, 5]} == {"pustules"}


def test_a_spot_at_the_edge_has_a_box_within_the_picture(dark_spots: _DarkSpots) -> None:
    dark_spots.lesions = 1
    [box] = find_acne(_spotted(SIZE, SIZE, [(2, 320)])).counted
    assert box[0] == 0 and 0 < box[2] < 40


def test_a_small_face_is_looked_at_closely_and_its_boxes_are_put_back(
    dark_spots: _DarkSpots, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = Detection(np.array([1800.0, 900, 2200, 1300]), np.zeros((2, 2)), 0.9)
    monkeypatch.setattr(acne, "detect", lambda picture, engine: [face])
    dark_spots.lesions = 1
    picture = _spotted(3000, 4000, [(1950, 1150)])
    cv2.circle(picture, (300, 300), 12, (0, 0, 0), -1)
    [box] = find_acne(picture).counted
    assert np.allclose((box[:2] + box[2:4]) / 2, [1950, 1150], atol=3)


def test_the_mirror_image_counts_as_much_and_swaps_left_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Lopsided(_DarkSpots):
        def run(self, batch: np.ndarray) -> list[np.ndarray]:
            out = super().run(batch)
            mirrored = batch[0, :, : SIZE // 2].mean() > batch[0, :, SIZE // 2 :].mean()
            out[1][..., 2 if mirrored else 0] += SIDES[1] * np.log(1.5)
            return out

    network = _Lopsided(1)
    monkeypatch.setattr(acne, "network", lambda name, engine: network)
    monkeypatch.setattr(acne, "detect", _one_face)
    monkeypatch.setattr(acne, "find_faces", lambda picture, engine: [])
    [box] = find_acne(_spotted(SIZE, SIZE, [(200, 300)])).counted
    assert 200 - box[0] == pytest.approx(24, abs=3) and box[2] - 200 == pytest.approx(16, abs=3)


def test_as_many_boxes_are_above_the_threshold_as_are_counted_even_where_scores_tie() -> None:
    counts = np.zeros(80)
    counts[3] = 1
    scores = acne._comparable(np.array([0.6, 0.4, 0.4, 0.4, 0.1]), counts)
    assert (scores > THRESHOLD).sum() in (1, 4)
    assert (np.diff(scores) <= 0).all()


def test_a_doubled_peak_is_one_box() -> None:
    centres = np.full((160, 160), -5.0)
    centres[80, 80] = centres[80, 82] = 2
    assert len(boxes_of(centres, np.zeros((160, 160, 4)), np.zeros((160, 160, 4)))) == 1


def test_a_dark_frame_is_called_too_dark(dark_spots: _DarkSpots) -> None:
    with pytest.raises(Refused) as refused:
        find_acne(np.full((480, 640, 3), 3, np.uint8))
    assert refused.value.code == "too_dark"


def test_a_bare_wall_has_no_face(dark_spots: _DarkSpots) -> None:
    with pytest.raises(Refused) as refused:
        find_acne(np.full((480, 640, 3), 170, np.uint8))
    assert refused.value.code == "no_face"


def test_spots_where_no_face_is_detected_are_no_acne(
    dark_spots: _DarkSpots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acne, "detect", lambda picture, engine: [])
    with pytest.raises(Refused) as refused:
        find_acne(_spotted(SIZE, SIZE, [(200, 300), (400, 300)]))
    assert refused.value.code == "no_face"


def test_doubtful_spots_are_acne_only_where_no_dermoscope_took_the_picture(
    dark_spots: _DarkSpots, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark_spots.lesions, dark_spots.peak = 1, -0.42
    picture = _spotted(SIZE, SIZE, [(300, 320)])
    monkeypatch.setattr(acne, "is_close_up", lambda seen: False)
    assert len(find_acne(picture).counted) == 1
    monkeypatch.setattr(acne, "is_close_up", lambda seen: True)
    with pytest.raises(Refused) as refused:
        find_acne(picture)
    assert refused.value.code == "no_face"


def test_the_moon_has_no_acne() -> None:
    with pytest.raises(Refused) as refused:
        find_acne(example("moon"))
    assert refused.value.code == "no_face"


def test_the_command_writes_a_line_for_each_picture_in_order(
    tmp_path: Path, portrait: np.ndarray, landscape: np.ndarray
) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), portrait[..., ::-1])
    cv2.imwrite(str(tmp_path / "coffee.png"), landscape[..., ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    files = [str(tmp_path / name) for name in ("coffee.png", "face.png", "notes.txt")]
    command = [str(DERMAKIOSK), "analyse", "acne", *files, "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    coffee, face, notes = map(json.loads, done.stdout.splitlines())
    assert coffee["refused"] == "no_face" and notes["error"] == "not_a_picture"
    assert face["severity"] in range(4) and face["model"].startswith("acne@")
    assert set(face["counts"]) == set(CLASSES) and sum(face["counts"].values()) == face["count"]
    assert face["count"] == sum(box[4] > face["threshold"] for box in face["boxes"]) < 6
    for x0, y0, x1, y1, score, kind in face["boxes"]:
        assert 0 <= x0 < x1 <= 512 and 0 <= y0 < y1 <= 512 and score > 0.01 and kind in CLASSES
