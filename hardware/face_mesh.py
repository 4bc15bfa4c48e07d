"""The 468 landmarks of a face: the numbers of those that are asked for by name, and the breadth between two.

Left and right are the patient's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NOSE_TIP, RIGHT_EAR, LEFT_EAR = 1, 234, 454
# Breadth of a face between its ears: the only scale that there is of a portrait, or before a calibration.
FACE_WIDTH_MM = 140.0
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
# Outlines of the eyes: the right one, then the left.
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)


def face_width(points: npt.NDArray[np.float64]) -> float:
    """Breadth of the face between its ears, in the unit of `points` (468×2, or ×3 with the depth)."""
    return float(np.linalg.norm(points[LEFT_EAR, :2] - points[RIGHT_EAR, :2]))
