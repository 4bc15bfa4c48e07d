"""Picture files as the networks want them: 8-bit sRGB, and label maps beside them as they stand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hardware.arrays import UInt8Array
from hardware.picture_colours import Colour
from hardware.picture_file import read_numbers_file, read_picture_file

MIN_PIXELS_A_SIDE = 16


def read_picture(path: Path, colour: Colour = "auto") -> UInt8Array:
    """The picture in `path` as H×W×3 uint8 sRGB, upright. Raises PictureError as read_picture_file does."""
    return read_picture_file(path, colour).srgb8()


def read_labels(path: Path) -> UInt8Array:
    """The label map or mask in `path`, H×W uint8: its numbers are no colours. Raises PictureError."""
    numbers = read_numbers_file(path)
    labels = np.asarray(numbers if numbers.dtype == np.uint8 else numbers // 257, np.uint8)
    grey = labels[:, :, 0] if labels.shape[2] == 1 else cv2.cvtColor(labels, cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, np.uint8)
