"""Upright: from a picture as the sensor lies to one of a camera mode's size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hardware.profile import Mode

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def upright(picture: npt.NDArray[np.uint16], rotation: int, mode: Mode) -> npt.NDArray[np.uint16]:
    """H×W×3 `picture` turned by `rotation` degrees clockwise, cut in the middle to the shape of `mode`, then
    scaled down to its size by the mean of the pixels it replaces. The picture is no smaller than `mode`.
    """
    if rotation:
        picture = np.asarray(cv2.rotate(picture, _TURNS[rotation]), np.uint16)
    height, width = picture.shape[:2]
    scale = min(width / mode.width, height / mode.height)
    cut_width, cut_height = round(mode.width * scale), round(mode.height * scale)
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    cut = picture[top : top + cut_height, left : left + cut_width]
    if cut.shape[:2] == (mode.height, mode.width):
        return np.ascontiguousarray(cut)
    return np.asarray(cv2.resize(cut, (mode.width, mode.height), interpolation=cv2.INTER_AREA), np.uint16)


def refuse_smaller(size: tuple[int, int], rotation: int, mode: Mode) -> None:
    """Raise OSError where a sensor's picture of `size` (width, height) has, once upright, fewer pixels than
    `mode` asks for: scaled up it would show nothing smaller, and what is small would be missed.
    """
    width, height = size[::-1] if rotation in (90, 270) else size
    if width < mode.width or height < mode.height:
        raise OSError(
            f"the camera gives {width} × {height} pixels where camera.still asks for {mode.width} ×"
            f" {mode.height}: write a size into the board profile that it has, or use a camera that has this"
        )
