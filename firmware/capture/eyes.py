"""Eyes: whether both are seen closed in a picture, as UV needs them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from firmware.capture.guidance import FoundFace
from hardware.face_mesh import EYES

# A third of an open eye is iris, far darker in the red than skin of any colour; of a closed one the lashes'
# shadow is a tenth. Seen on simulated patients: open 0.05…0.18, closed 0.43…0.86.
_DARK_SHARE = 25
CLOSED_ABOVE = 0.3


def lid_brightness(picture: npt.NDArray[np.uint16], face: FoundFace) -> float:
    """How bright the darker quarter of the darker eye is beside the skin around it, in the red; 1 = as skin.

    `picture` is H×W×3 linear RGB; `face` has its landmarks in pixels of it. An eye that cannot be looked at
    is 0: not seen closed.
    """
    points = np.asarray(face.landmarks)[:, :2]
    return min(_one_eye(picture[:, :, 0], points[list(ring)]) for ring in EYES)


def eyes_closed(picture: npt.NDArray[np.uint16], face: FoundFace) -> bool:
    """Whether both eyes are seen closed.

    By what is between the lids, not by where the landmark network puts the lids: that one draws closed eyes
    half open.
    """
    return lid_brightness(picture, face) > CLOSED_ABOVE


def _one_eye(red: npt.NDArray[np.uint16], ring: npt.NDArray[np.float64]) -> float:
    low, high = ring.min(axis=0), ring.max(axis=0)
    breadth = float(high[0] - low[0])
    margin = 0.4 * breadth
    left, top = (int(value) for value in low - margin)
    right, bottom = (int(value) + 1 for value in high + margin)
    if breadth < 8 or left < 0 or top < 0 or right > red.shape[1] or bottom > red.shape[0]:
        return 0.0
    patch = red[top:bottom, left:right]
    eye = np.zeros(patch.shape, np.uint8)
    cv2.fillPoly(eye, [np.round(ring - (left, top)).astype(np.int32)], (1.0,))
    grown = cv2.dilate(eye, np.ones((3, 3), np.uint8), iterations=max(1, round(0.15 * breadth)))
    inside, around = patch[eye > 0], patch[grown == 0]
    if inside.size < 20 or around.size < 20:
        return 0.0
    return float(np.percentile(inside, _DARK_SHARE) / max(float(np.median(around)), 1.0))
