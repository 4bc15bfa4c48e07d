"""Training pictures in memory: read once, kept as bytes on the device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from models.analysis.picture import read_labels, read_picture


def read_all(
    files: Sequence[Path], size: tuple[int, int], *, grey: bool = False, nearest: bool = False
) -> Tensor:
    """(n, 3 or 1, h, w) uint8, RGB or grey, each picture stretched to `size` (height, width). Raises
    PictureError, which is a ValueError, naming a bad file.
    """

    def read(file: Path) -> np.ndarray:
        picture = read_labels(file) if grey else read_picture(file)
        if picture.shape[:2] != size:
            how = (
                cv2.INTER_NEAREST
                if nearest
                else cv2.INTER_AREA
                if picture.shape[0] > size[0]
                else cv2.INTER_LINEAR
            )
            picture = cv2.resize(picture, size[::-1], interpolation=how)
        return picture[None] if grey else np.ascontiguousarray(picture.transpose(2, 0, 1))

    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.stack(list(pool.map(read, files))))


def unit(pictures: Tensor) -> Tensor:
    """uint8 to [0, 1]."""
    return pictures.float() / 255


def network_input(pictures: Tensor) -> Tensor:
    """[0, 1] to the networks' [-1, 1]."""
    return pictures * 2 - 1
