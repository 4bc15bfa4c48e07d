"""The altered copies that the robustness of our networks is scored on."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from hardware.srgb import srgb_linear
from models.training import alterations
from models.training.alterations import ALTERATIONS, TURNED, altered_copy, turned, turned_boxes
from models.training.boxes import TWINS, read_boxes


def test_a_turned_box_holds_the_spot_that_it_held() -> None:
    picture = np.zeros((200, 240, 3), np.uint8)
    cv2.ellipse(picture, (60, 150), (20, 8), 0, 0, 360, (255, 255, 255), cv2.FILLED)
    [box] = turned_boxes(np.array([[40.0, 142, 80, 158]]), picture.shape)
    y, x = np.nonzero(turned(picture, cv2.BORDER_CONSTANT)[..., 0] > 127)
    assert np.abs(box - [x.min(), y.min(), x.max(), y.max()]).max() < 2
    assert not len(turned_boxes(np.array([[0.0, 0, 10, 10]]), picture.shape))


def test_a_stop_is_a_factor_of_two_in_linear_light() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    brighter, darker = (ALTERATIONS[name](grey)[0, 0, 0] / 255 for name in ("+1 stop", "−1 stop"))
    light = srgb_linear(np.array([darker, 100 / 255, brighter]))
    assert np.allclose(np.diff(np.log2(light)), 1, atol=0.05)


def test_warmer_light_has_more_red_and_less_blue() -> None:
    blue, green, red = ALTERATIONS["−500 K"](np.full((4, 4, 3), 100, np.uint8))[0, 0].astype(int)
    assert blue < green < red


def test_a_copy_has_the_validation_pictures_and_their_truth_but_no_twins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "acne04" / "valid"
    (source / "images").mkdir(parents=True)
    twin = TWINS.read_text().split()[0]
    monkeypatch.setattr(alterations, "FACE_SHARE", 1)
    for name in ("levle0_a.jpg", twin):
        cv2.imwrite(str(source / "images" / name), np.full((64, 64, 3), 90, np.uint8))
    with (source / "boxes.csv").open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["image", "class", "xmin", "ymin", "xmax", "ymax"])
        writer.writerows([[name, "papules", 20, 20, 30, 30] for name in ("levle0_a.jpg", twin)])
    altered_copy(tmp_path, ["acne"], TURNED, tmp_path / "copy")
    folder = tmp_path / "copy" / "acne04" / "valid"
    assert [file.name for file in (folder / "images").iterdir()] == ["levle0_a.jpg"]
    [box] = read_boxes(folder / "boxes.csv")["levle0_a.jpg"]
    assert box[:4] == pytest.approx([18.5, 21.9, 28.5, 31.9], abs=0.1)
