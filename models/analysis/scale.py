"""The scale of a face: millimetres a pixel, from the width of the iris where the camera isn't calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hardware.arrays import Float64Array, UInt8Array
from models.analysis.detector import square_crop
from models.analysis.face import Face
from models.networks.runtime import network

# White-to-white diameter of the cornea, what is seen of the iris: 11.71 ± 0.42 mm (Rüfer et al. 2005).
IRIS_MM = 11.7
# Distance between the pupils of adults: mean, and the range outside of which an iris was not seen right.
PUPILS_MM = 63.0
PUPILS_RANGE_MM = (50.0, 78.0)
# No face is narrower or broader, from a child's that is turned aside to the broadest at the ears.
FACE_RANGE_MM = (90.0, 220.0)
_EYES = {"right": (33, 133), "left": (362, 263)}


@dataclass(frozen=True)
class Scale:
    """Millimetres a pixel, and where they come from: "calibration", "iris" or "pupils".

    `disbelieved`: a calibrated scale was there, by which the face would be of no human size.
    """

    mm_per_px: float
    source: str
    disbelieved: bool = False


def scale_of(picture: UInt8Array, face: Face, engine: str, calibrated_mm_per_px: float | None) -> Scale:
    """Scale at `face` in `picture` (H×W×3 uint8 sRGB). Without calibration it is good to about 5 %."""
    least, most = FACE_RANGE_MM
    if calibrated_mm_per_px and least < face.width * calibrated_mm_per_px < most:
        return Scale(calibrated_mm_per_px, "calibration")
    return replace(_of_eyes(picture, face, engine), disbelieved=bool(calibrated_mm_per_px))


def _of_eyes(picture: UInt8Array, face: Face, engine: str) -> Scale:
    irises = {side: _iris(picture, face, side, engine) for side in _EYES}
    pupils_px = float(np.linalg.norm(irises["left"][0] - irises["right"][0]))
    diameters = [diameter for _, diameter in irises.values()]
    scale = IRIS_MM / float(np.mean(diameters))
    agree = min(diameters) > 0.8 * max(diameters)
    if agree and PUPILS_RANGE_MM[0] < pupils_px * scale < PUPILS_RANGE_MM[1]:
        return Scale(scale, "iris")
    points = face.points
    centres = [points[list(corners)].mean(0) for corners in _EYES.values()]
    return Scale(PUPILS_MM / max(1e-6, float(np.linalg.norm(centres[0] - centres[1]))), "pupils")


def _iris(picture: UInt8Array, face: Face, side: str, engine: str) -> tuple[Float64Array, float]:
    """Centre (x, y) and horizontal diameter of one iris, in pixels."""
    net = network("iris", engine)
    size = net.input_shape[1]
    a, b = face.points[list(_EYES[side])]
    cx, cy = (a + b) / 2
    width = float(np.linalg.norm(b - a)) * 2.3
    crop, to_picture = square_crop(picture, float(cx), float(cy), width, face.roll_degrees, size)
    # The network knows the eye whose inner corner is on its right; the other one is shown in the mirror.
    flip = side == "left"
    batch = crop[:, ::-1] if flip else crop
    iris = min(net.run(batch[None] / 255.0), key=lambda output: output.size)
    points = iris.reshape(5, 3)[:, :2].astype(np.float64)
    if flip:
        points[:, 0] = size - 1 - points[:, 0]
    points = points @ to_picture[:, :2].T + to_picture[:, 2]
    # Five points: the centre, then the rim in quarter turns from one side.
    return points[0], float(np.linalg.norm(points[1] - points[3]))
