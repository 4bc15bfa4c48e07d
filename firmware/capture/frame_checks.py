"""Checks: what makes a frame of the capture sequence usable."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from firmware.cameras.calibration import Calibration
from firmware.cameras.camera import Exposure
from firmware.cameras.reflectance import to_srgb
from firmware.capture.guidance import FaceFinder, look_for_face
from hardware.board import Board
from hardware.face_mesh import FACE_WIDTH_MM, face_width
from hardware.middle import middle, middle_level

# Farther than this from where the first frame saw them, the landmarks' median has moved. The landmark network
# itself puts them up to 2 mm elsewhere when the light comes from another side.
MOVED_MM = 5.0
# How far a frame in the dark may be off the dark, in its middle, as a reflectance: beyond it there is stray
# light, now or when the kiosk was calibrated, and beyond the second a lamp that does not go out.
DARK_AT_MOST = 0.008
LAMP_IN_THE_DARK = 0.05
# A frame this much less sharp than the first one was blurred by movement.
_BLURRED = 0.7
# Lights that show skin as the white one does, so that sharpness can be compared.
_ALIKE = ("white", "parallel", "cross")
_LOOK_WIDTH = 480
_FACE_PX = 200

Points = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint16]


class FrameChecks:
    """Judges the frames of one sequence against the board's bands, and each other.

    `find_face` gives landmarks; None leaves movement unjudged. Frames are compared with `first`, landmarks of
    an earlier sequence (468×2 in pixels of the frame), or else with the first frame that has a face in it.
    Nothing of a frame is kept but its landmarks and its sharpness.
    """

    def __init__(self, board: Board, find_face: FaceFinder | None, first: Points | None = None) -> None:
        self._board, self._find_face = board, find_face
        self.first = first
        self._sharpness: float | None = None

    def dark(self, counts: Pixels, exposure: Exposure, calibration: Calibration | None = None) -> str | None:
        """What is wrong with a frame (H×W×3 counts) taken in the dark: "lamp_stuck", "stray_light" or None.

        Darker than the calibration has the dark, it was made in stray light, which is taken off every frame.
        """
        levels = dark_levels(self._board, counts, exposure, calibration)
        if levels.max() > LAMP_IN_THE_DARK:
            return "lamp_stuck"
        return "stray_light" if np.abs(levels).max() > DARK_AT_MOST else None

    def lit(self, light: str, pixels: Pixels) -> str | None:
        """What is wrong with a frame under `light`: "too_dark", "too_bright", "moved", "blurred" or None."""
        low, high = self._board.lights[light].expect
        level = middle_level(pixels) / 65_535
        if level < low:
            return "too_dark"
        if level > high:
            return "too_bright"
        points = self._landmarks(pixels, level)
        return self._moved(light, points) or self._blurred(light, pixels, points)

    def _landmarks(self, pixels: Pixels, level: float) -> Points | None:
        """468×2 in pixels of the frame, found in a small copy brought to the brightness of a portrait."""
        if self._find_face is None:
            return None
        scale = _LOOK_WIDTH / pixels.shape[1]
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        portrait = to_srgb(np.clip(small * min(0.25 / level, 30.0), 0, 65_535).astype(np.uint16))
        face, _ = look_for_face(self._find_face, portrait, self._board.engine)
        return None if face is None else np.asarray(face.landmarks[:, :2]) / scale

    def _moved(self, light: str, points: Points | None) -> str | None:
        if points is None:
            # Fluorescence and hard shadows may hide a face that is there; the other lights do not.
            return "moved" if self.first is not None and light in _ALIKE else None
        if self.first is None:
            self.first = points
            return None
        width = max(face_width(self.first), 1.0)
        shift = np.median(np.linalg.norm(points - self.first, axis=1)) / width * FACE_WIDTH_MM
        return "moved" if shift > MOVED_MM else None

    def _blurred(self, light: str, pixels: Pixels, points: Points | None) -> str | None:
        if light not in _ALIKE or (points is None and self.first is not None):
            return None
        found = sharpness(pixels, points)
        if self._sharpness is None:
            if found < self._board.camera.sharpness_at_least:
                return "blurred"
            self._sharpness = found
        return "blurred" if found < _BLURRED * self._sharpness else None


def dark_levels(
    board: Board, counts: Pixels, exposure: Exposure, calibration: Calibration | None = None
) -> npt.NDArray[np.float64]:
    """Median reflectance (0…1) by the board's white light in the middle of `counts` taken in the dark, of
    each of the 3 channels: below 0 where it is darker than the calibration's dark, or the board's.
    """
    white, seen = board.lights["white"], middle(counts)
    exposed = (exposure.exposure_us / white.exposure_us) * (exposure.gain / white.gain)
    black = board.camera.black_level if calibration is None else _middle_of_map(calibration.black, seen)
    red, blue = white.colour_gains
    above = np.median(seen - np.asarray(black, np.float64), axis=(0, 1)) * np.array([red, 1.0, blue])
    return np.asarray(above / (white.white_counts * exposed), np.float64)


def _middle_of_map(black: npt.NDArray[np.float32], seen: Pixels) -> npt.NDArray[np.float32]:
    """The part of a map of whole frames that belongs to the middle of one, `seen`, at its size."""
    height, width = seen.shape[:2]
    top, left = height // 2, width // 2
    whole = np.asarray(cv2.resize(black, (2 * width, 2 * height)), np.float32)
    return whole[top : top + height, left : left + width]


def sharpness(pixels: Pixels, points: Points | None) -> float:
    """Detail of a face in 1: the spread of the second derivative of its log reflectance, at 200 px a face.

    At that size a pixel is 0.7 mm and the sensor's noise is averaged away; the simulated patient who sways by
    4 mm while the shutter is open keeps 0.65 of it, by 2 mm 0.95. Without landmarks the middle of the picture
    stands for the face.
    """
    height, width = pixels.shape[:2]
    if points is None:
        (x0, y0), (x1, y1) = (0.25 * width, 0.2 * height), (0.75 * width, 0.75 * height)
    else:
        x0, y0 = np.clip(points.min(axis=0), 0, (width - 2, height - 2))
        x1, y1 = np.clip(points.max(axis=0), (x0 + 2, y0 + 2), (width, height))
    face = pixels[int(y0) : int(y1), int(x0) : int(x1), 1]
    scale = min(1.0, _FACE_PX / face.shape[1])
    small = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    # In dark skin the sensor's noise would pass for detail: take the mean of some pixels more.
    logs = np.log(cv2.GaussianBlur(small, (0, 0), 1.2) + np.float32(0.01 * 65_535))
    # Movement takes the detail along its way only; the middle nine tenths leave out brows and nostrils.
    spreads = []
    for order in ((2, 0), (0, 2)):
        low, high = np.percentile(cv2.Sobel(logs, cv2.CV_32F, *order, ksize=3), (5, 95))
        spreads.append(float(high - low))
    return min(spreads)
