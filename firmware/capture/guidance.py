"""Guidance: what to tell the person in front of the camera, from what the camera sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hardware.face_mesh import LEFT_EAR, NOSE_TIP, RIGHT_EAR, face_width
from hardware.host.errors import Fault, PlainError

# Mean of a preview picture (sRGB, 0…255) below which nothing can be judged.
_DARK = 18.0
# Bounds for a face that is well placed, as shares of the picture; its width, of a portrait's within it, or in
# the broad picture of a webcam no face would be near enough and still whole.
_WIDTH = (0.38, 0.68)
_PORTRAIT = 3 / 4
_CENTRE = (0.50, 0.47)
_OFF_CENTRE = 0.10
# How far the nose tip may be off the middle of the face, as a share of its width.
_TURNED = 0.12


class FoundFace(Protocol):
    """What is needed of a found face: box in pixels, landmarks 468×3 in pixels."""

    @property
    def box(self) -> tuple[float, float, float, float]: ...

    @property
    def landmarks(self) -> npt.NDArray[np.float64]: ...


FaceFinder = Callable[[npt.NDArray[np.uint8], str], FoundFace]


class CannotLook(PlainError):
    """Faces cannot be looked for; the message is the finder's own sentence."""


def look_for_face(
    finder: FaceFinder, picture: npt.NDArray[np.uint8], engine: str
) -> tuple[FoundFace | None, str | None]:
    """(face, None), or (None, reason) where the finder refuses the picture ("no_face", "two_faces").

    The finder comes from another room: a refusal is whatever Fault it raises, by its code. Raises CannotLook
    with the sentence of any other error that has one, as a network whose answer is no number.
    """
    try:
        return finder(picture, engine), None
    except Fault as refusal:
        return None, refusal.code
    except PlainError as error:
        raise CannotLook(str(error)) from error


def guide(
    picture: npt.NDArray[np.uint8], face: FoundFace | None, reason: str | None, eyes_closed: bool = False
) -> str:
    """One guidance code for a preview `picture` (H×W×3 uint8) with what was found in it.

    Left and right are the patient's own: who stands too far to the left of the picture, moves left.
    """
    if float(picture.mean()) < _DARK:
        return "too_dark"
    if face is None:
        return "two_faces" if reason == "two_faces" else "no_face"
    height, width = picture.shape[:2]
    points = face.landmarks[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    breadth = face_width(points)
    share = breadth / min(width, _PORTRAIT * height)
    if share < _WIDTH[0]:
        return "too_far"
    if share > _WIDTH[1]:
        return "too_near"
    x, y = (low + high) / 2 / (width, height)
    if abs(x - _CENTRE[0]) > _OFF_CENTRE:
        return "move_left" if x < _CENTRE[0] else "move_right"
    if abs(y - _CENTRE[1]) > _OFF_CENTRE:
        return "move_down" if y < _CENTRE[1] else "move_up"
    between_ears = (points[RIGHT_EAR] + points[LEFT_EAR]) / 2
    if abs(points[NOSE_TIP, 0] - between_ears[0]) > _TURNED * breadth:
        return "turn_to_front"
    return "open_eyes" if eyes_closed else "hold_still"


def face_box(
    picture: npt.NDArray[np.uint8], face: FoundFace | None
) -> tuple[float, float, float, float] | None:
    """The face's box in 0…1 of the picture, or None."""
    if face is None:
        return None
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in face.box)
    return (
        min(max(x0 / width, 0.0), 1.0),
        min(max(y0 / height, 0.0), 1.0),
        min(max(x1 / width, 0.0), 1.0),
        min(max(y1 / height, 0.0), 1.0),
    )
