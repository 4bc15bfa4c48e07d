"""The parsing tells skin from hair, eyes and background, near and far, and what is measured is skin alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.analysis.face import find_face
from models.analysis.parsing import parse
from models.analysis.skin import facial_skin, skin_mask
from models.analysis.zones import outline, polygon_mask, zone_masks
from models.networks.parsing_classes import BACKGROUND, CLASSES, EYES, HAIR, MOUTH, NOSE, SKIN
from models.networks.runtime import DEFAULT_ENGINE, ENGINES

DERMAKIOSK = Path(sys.executable).with_name("dermakiosk")


def _share(labels: np.ndarray, place: np.ndarray, *wanted: int) -> float:
    return float(np.isin(labels[place > 0], wanted).mean())


@pytest.fixture(scope="module")
def labels(large_portrait: np.ndarray) -> np.ndarray:
    return parse(large_portrait, [find_face(large_portrait)])


def test_every_pixel_gets_one_of_the_classes(labels: np.ndarray, large_portrait: np.ndarray) -> None:
    assert labels.shape == large_portrait.shape[:2] and labels.dtype == np.uint8
    assert set(np.unique(labels)) == set(range(len(CLASSES)))


def test_the_parts_of_a_face_lie_where_its_landmarks_say(
    labels: np.ndarray, large_portrait: np.ndarray
) -> None:
    face = find_face(large_portrait)
    zones = zone_masks(face.points, np.full(labels.shape, 255, np.uint8))
    for name in ("left_cheek", "right_cheek", "chin"):
        assert _share(labels, zones[name], SKIN) > 0.85, name
    assert _share(labels, zones["nose"], NOSE, SKIN) > 0.9
    for name, part in (("left_eye", EYES), ("right_eye", EYES), ("lips_outer", MOUTH)):
        assert _share(labels, polygon_mask(outline(face.points, name), labels.shape), part) > 0.5, name


def test_hair_and_cloth_are_no_skin(labels: np.ndarray, large_portrait: np.ndarray) -> None:
    face = find_face(large_portrait)
    skin = skin_mask(labels, [face])
    top = face.points[10]
    above = np.zeros_like(skin)
    cv2.circle(above, (int(top[0]), int(top[1] - 0.45 * face.width)), round(0.1 * face.width), 255, -1)
    assert _share(labels, above, HAIR) > 0.8
    assert not skin[above > 0].any()
    assert (labels[-200:] == BACKGROUND).mean() > 0.9


def test_a_far_face_is_parsed_as_a_near_one(portrait: np.ndarray) -> None:
    wide = np.full((1400, 1400, 3), (96, 112, 120), np.uint8)
    wide[600:1112, 500:1012] = portrait
    face = find_face(wide)
    skin = skin_mask(parse(wide, [face]), [face])
    for name, zone in zone_masks(face.points, np.full(skin.shape, 255, np.uint8)).items():
        if "cheek" in name or name == "nose":
            assert skin[zone].mean() > 0.85 * 255, name
    assert not skin[:500].any()


def test_a_wall_in_the_colour_of_skin_is_none(portrait: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    for colour in ((224, 188, 160), (150, 104, 78), (70, 46, 36)):
        wall = np.clip(rng.normal(colour, 4, (600, 800, 3)), 0, 255).astype(np.uint8)
        assert (skin_mask(parse(wall, []), []) > 0).mean() < 0.02, colour


def test_what_is_measured_of_a_face_is_within_its_outline(
    labels: np.ndarray, large_portrait: np.ndarray
) -> None:
    face = find_face(large_portrait)
    measured, skin = facial_skin(labels, face), skin_mask(labels, [face])
    assert 0 < cv2.countNonZero(measured) < cv2.countNonZero(skin)
    for name in ("left_eye", "right_eye", "left_brow", "right_brow", "lips_outer"):
        assert not measured[polygon_mask(outline(face.points, name), measured.shape) > 0].any(), name
    chin = face.points[152, 1]
    assert not measured[round(chin + 0.05 * face.width) :].any()


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {DEFAULT_ENGINE}))
def test_the_engines_agree_on_nearly_every_pixel(portrait: np.ndarray, engine: str) -> None:
    face = find_face(portrait)
    assert (parse(portrait, [face]) == parse(portrait, [face], engine)).mean() > 0.985


def test_the_command_writes_the_parsing_and_the_mask_of_every_picture(
    tmp_path: Path, portrait: np.ndarray, landscape: np.ndarray
) -> None:
    for name, picture in (("face", portrait), ("coffee", landscape)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    maps = {"--masks": tmp_path / "masks", "--parsing": tmp_path / "parsing"}
    options = [str(part) for pair in maps.items() for part in pair]
    files = [str(tmp_path / f"{name}.png") for name in ("face", "coffee")]
    command = [str(DERMAKIOSK), "analyse", "face", *files, "--json", "-", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[1])["refused"] == "no_face"
    for name, picture in (("face", portrait), ("coffee", landscape)):
        mask, labels = (
            cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED) for folder in maps.values()
        )
        assert mask.shape == labels.shape == picture.shape[:2]
        assert set(np.unique(mask)) <= {0, 255} and labels.max() < len(CLASSES)
        assert np.isin(labels[mask > 0], (SKIN, NOSE)).all()
