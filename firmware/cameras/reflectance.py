"""Reflectance: what counts of a camera say, by its calibration or by the board's constants."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from firmware.cameras.calibration import Calibration
from firmware.cameras.camera import Exposure
from hardware.board import Board
from hardware.srgb import srgb_coded


def reflectance(
    board: Board,
    light: str,
    counts: npt.NDArray[np.uint16],
    exposure: Exposure,
    level: float = 1.0,
    calibration: Calibration | None = None,
) -> npt.NDArray[np.uint16]:
    """Linear sRGB, 65,535 = reflectance 1.0, of `counts` taken under `light` at `level`.

    By `calibration`, or the nominal one: black level off, over the board's constants for a white diffuser
    (brightness and white balance). A dark frame is scaled like one under white light.
    """
    if calibration is not None:
        return calibration.apply(board, light, counts, exposure, level)
    profile = board.lights.get(light, board.lights["white"])
    exposed = (exposure.exposure_us / profile.exposure_us) * (exposure.gain / profile.gain)
    scale = 65_535.0 / (profile.white_counts * exposed * level)
    red, blue = profile.colour_gains
    if (red, blue) == (1.0, 1.0):
        black = -board.camera.black_level * scale
        return np.asarray(cv2.addWeighted(counts, scale, counts, 0.0, black, dtype=cv2.CV_16U), np.uint16)
    scales = np.array([red, 1.0, blue]) * scale
    # One affine map of the three channels, saturating: cv2.transform knows no 16-bit rounding of its own.
    balanced = cv2.transform(
        counts.astype(np.float32), np.column_stack([np.diag(scales), -board.camera.black_level * scales])
    )
    return np.asarray(np.clip(np.rint(balanced), 0, 65_535), np.uint16)


def _srgb_table() -> npt.NDArray[np.uint8]:
    return np.asarray(np.round(255 * srgb_coded(np.arange(65_536) / 65_535)), np.uint8)


_SRGB = _srgb_table()


def to_srgb(linear: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """H×W×3 uint16 linear sRGB to uint8 sRGB (IEC 61966-2-1), for eyes and for face finders."""
    return np.asarray(_SRGB[linear])
