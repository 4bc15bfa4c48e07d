"""A picture given for a simulated patient that cannot be measured is to blame itself, by its name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from hardware.board import BOARDS, load_board
from hardware.simulated.close_up import draw_skin
from hardware.simulated.patient_options import SimulatedPatient
from kiosk_app.demo.given_pictures import PictureRefused, check_close_up, check_portrait

BOARD = load_board(BOARDS / "simulated.toml")
ASTRONAUT = skimage.data.astronaut()


def written(folder: Path, picture: np.ndarray) -> Path:
    file = folder / "given.png"
    assert cv2.imwrite(str(file), picture[..., ::-1])
    return file


def plain(level: int, height: int = 400, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def face(factor: float, more: float = 0.0) -> np.ndarray:
    return np.clip(ASTRONAUT * factor + more, 0, 255).astype(np.uint8)


def framed(inner: np.ndarray, level: int) -> np.ndarray:
    return cv2.copyMakeBorder(inner, 99, 99, 99, 99, cv2.BORDER_CONSTANT, value=(level,) * 3)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (plain(0), "is too dark to measure"),
        (plain(255), "is too bright to measure"),
        (framed(plain(0), 128), "is too dark to measure"),
        (framed(plain(255), 128), "is too bright to measure"),
        (face(0.06), "is too dark to measure"),
        (face(1.2, 100), "is too bright to measure"),
        (ASTRONAUT[::-1], "upside down"),
    ],
)
def test_a_portrait_that_the_camera_would_take_for_a_fault_is_refused(
    tmp_path: Path, picture: np.ndarray, said: str
) -> None:
    file = written(tmp_path, picture)
    with pytest.raises(PictureRefused, match=said) as refused:
        check_portrait(SimulatedPatient(portrait=file), BOARD)
    assert str(file) in str(refused.value)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    "picture", [ASTRONAUT, face(0.5), plain(128), plain(128, 1, 1), framed(plain(128), 0)]
)
def test_a_portrait_that_is_lit_right_may_be_shown_to_the_camera(tmp_path: Path, picture: np.ndarray) -> None:
    check_portrait(SimulatedPatient(portrait=written(tmp_path, picture)), BOARD)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (plain(0), "too dark"),
        (plain(255), "does not look like a dermoscopic close-up"),
        (plain(128, 4, 4), "too small to hold a lesion"),
        (ASTRONAUT, "does not look like a dermoscopic close-up"),
    ],
)
def test_a_close_up_of_which_nothing_can_be_said_is_refused(
    tmp_path: Path, picture: np.ndarray, said: str
) -> None:
    file = written(tmp_path, picture)
    with pytest.raises(PictureRefused, match=said) as refused:
        check_close_up(SimulatedPatient(close_up=file), BOARD.engine)
    assert str(refused.value).startswith(f"{file}: ")
    assert refused.value.exit_status == 2


def test_a_close_up_of_a_mole_may_be_shown_to_the_camera(tmp_path: Path) -> None:
    check_close_up(SimulatedPatient(close_up=written(tmp_path, draw_skin(600, 450, 3).picture)), BOARD.engine)
