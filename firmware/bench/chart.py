"""The colour chart in a picture: where it is, how large, which colours its patches show."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from firmware.cameras.calibration import CalibrationError
from hardware.targets import Chart

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeenChart:
    """What a picture shows of a chart: the patches' mean colours (24×3, as it has them) and scale."""

    colours: Array
    mm_per_px: float


def read_chart(picture: npt.NDArray[np.uint16], chart: Chart) -> SeenChart:
    """Find `chart` by its markers in a picture (H×W×3 linear) and read it. Raises CalibrationError."""
    bright = np.percentile(picture, 99) or 1
    grey = np.clip(picture.mean(axis=2) / bright, 0, 1) ** (1 / 2.2)
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    detector = cv2.aruco.ArucoDetector(dictionary, parameters)
    corners, ids, _ = detector.detectMarkers((255 * grey).astype(np.uint8))
    numbers = [] if ids is None else [int(number) for number in ids.ravel()]
    middles = {n: c.reshape(4, 2) for n, c in zip(numbers, corners, strict=True)}
    absent = [number for number in range(4) if number not in middles]
    if absent:
        raise CalibrationError(
            f"The colour chart is not seen whole: marker {absent[0]} is missing. Put the chart in the middle,"
            " facing the camera, with all four markers uncovered."
        )
    half = chart.marker_mm / 2
    square = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    places = np.concatenate([at + square for at in chart.markers_mm()])
    seen = np.concatenate([middles[number] for number in range(4)])
    homography, _ = cv2.findHomography(places, seen)
    patches = cv2.perspectiveTransform(chart.patches_mm()[None], homography)[0]
    # The scale in the chart's middle, from the area that a square millimetre has there.
    corner = cv2.perspectiveTransform(np.array([[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]]), homography)[0]
    (ax, ay), (bx, by) = corner[1] - corner[0], corner[2] - corner[0]
    px_per_mm = float(np.sqrt(abs(ax * by - ay * bx)))
    reach = max(2, round(0.3 * chart.patch_mm * px_per_mm))
    colours = [_middle(picture, x, y, reach) for x, y in patches]
    return SeenChart(np.array(colours), 1.0 / px_per_mm)


def _middle(picture: npt.NDArray[np.uint16], x: float, y: float, reach: int) -> Array:
    row, column = round(y), round(x)
    patch = picture[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
    if patch.size == 0:
        raise CalibrationError("The colour chart reaches out of the picture: move it to the middle.")
    return np.asarray(patch.reshape(-1, 3).mean(axis=0), np.float64)
