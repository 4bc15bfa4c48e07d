"""Which way up a face is: zones of a turned one would lie in the wrong places.

The detector finds upside-down faces too, only less surely, and the landmarks put their brows on the chin. So
a face of which it is not sure is looked at in all four turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.analysis.face import Face, find_faces, only_face
from models.analysis.refusal import Refused
from models.runtime import DEFAULT_ENGINE

# Of 479 pictures of faces none turned by 90° or 180° scored more than 0.82, nor did one upright lean by more
# than 36°; turned back, all but one of 743 gained more than the margin, and none upright did.
_SURE, _MARGIN = 0.87, 0.05
_LEANING = 50.0
# Where no face was found at all, the one in a turn has to be this sure.
_FOUND, _PRESENT = 0.8, 0.95
_AROUND = 1.2


def require_upright(picture: np.ndarray, faces: Sequence[Face], engine: str = DEFAULT_ENGINE) -> None:
    """Raises Refused("turned") where the largest of `faces`, those found in `picture`, is not upright, or
    where there is none and one is seen in the turned picture.
    """
    if quarter_turns(picture, faces, engine):
        raise Refused("turned")


def find_upright_face(picture: np.ndarray, engine: str = DEFAULT_ENGINE) -> Face:
    """As `find_face`; raises Refused("turned") too."""
    faces = find_faces(picture, engine)
    require_upright(picture, faces, engine)
    return only_face(faces)


def quarter_turns(picture: np.ndarray, faces: Sequence[Face], engine: str = DEFAULT_ENGINE) -> int:
    """How many quarter turns anticlockwise put the largest of `faces` upright, 0…3; 0 where it is not known.

    `picture` is H×W×3 uint8 RGB, `faces` are those found in it, largest first.
    """
    if not faces:
        scores = [_score(np.rot90(picture, turns), engine, _PRESENT) for turns in range(4)]
        return int(np.argmax(scores)) if max(scores) >= _FOUND else 0
    face = faces[0]
    if abs(face.roll_degrees) > _LEANING:
        return round(face.roll_degrees / 90) % 4
    if face.score >= _SURE:
        return 0
    around = _around(picture, face)
    scores = [_score(np.rot90(around, turns), engine) for turns in range(4)]
    best = int(np.argmax(scores))
    return best if scores[best] > max(scores[0], face.score) + _MARGIN else 0


def _score(picture: np.ndarray, engine: str, presence: float = 0.0) -> float:
    """The detector's score of the largest face that stands upright in `picture`."""
    faces = find_faces(np.ascontiguousarray(picture), engine)
    upright = (f for f in faces if abs(f.roll_degrees) <= _LEANING and f.presence >= presence)
    return next((face.score for face in upright), 0.0)


def _around(picture: np.ndarray, face: Face) -> np.ndarray:
    """The part of the picture that holds the face with a margin."""
    x0, y0, x1, y1 = face.box
    reach = _AROUND * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    return picture[top : int(y + reach) + 1, left : int(x + reach) + 1]
