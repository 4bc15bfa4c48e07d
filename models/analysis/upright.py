"""Which way up a face is: zones of a turned one would lie in the wrong places.

The detector finds upside-down faces too, only less surely, and the landmarks put their brows on the chin. So
a face of which it is not sure is looked at in all four turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardware.arrays import UInt8Array
from models.analysis.face import Face, find_faces, only_face
from models.analysis.refusal import Refused
from models.networks.runtime import DEFAULT_ENGINE

# Measured on ACNE04's validation pictures, FASSEG and Pratheepan, 479 in all, of at most 1,024 pixels a side.
# None that was turned scored more than 0.84 with level eyes, none upright leaned by more than 36°. In the
# 1,311 turns of the 437 with a face, the turn is found in 1,288 and no face in 23. None passes as upright;
# none upright is called turned.
_SURE, _LEANING = 0.9, 50.0
# Where no face was found at all, the one in a turn has to be this likely.
_LIKELY = 0.7
_AROUND = 1.2


def require_upright(picture: UInt8Array, faces: Sequence[Face], engine: str = DEFAULT_ENGINE) -> None:
    """Raises Refused("turned") where the largest of `faces`, those found in `picture`, is not upright, or
    where there is none and one is seen in the turned picture.
    """
    if quarter_turns(picture, faces, engine):
        raise Refused("turned")


def find_upright_face(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> Face:
    """As `find_face`; raises Refused("turned") too."""
    faces = find_faces(picture, engine)
    require_upright(picture, faces, engine)
    return only_face(faces)


def quarter_turns(picture: UInt8Array, faces: Sequence[Face], engine: str = DEFAULT_ENGINE) -> int:
    """How many quarter turns anticlockwise put the largest of `faces` upright, 0…3; 0 where it is not known.

    `picture` is H×W×3 uint8 RGB, `faces` are those found in it, largest first.
    """
    if not faces:
        found = [_likelihood(np.rot90(picture, turns), engine) for turns in range(4)]
        return int(np.argmax(found)) if max(found) >= _LIKELY else 0
    face = faces[0]
    by_roll = round(face.roll_degrees / 90) % 4 if abs(face.roll_degrees) > _LEANING else 0
    if face.score >= _SURE:
        return by_roll
    # In a turned face the eyes, too, may be seen where none are: in which turn it is a face is what counts.
    around = _around(picture, face)
    found = [_likelihood(np.rot90(around, turns), engine) for turns in range(4)]
    found[by_roll] = max(found[by_roll], face.score * face.presence)
    return int(np.argmax(found))


def _likelihood(picture: UInt8Array, engine: str) -> float:
    """Of the largest face that stands upright in `picture`: the detector's score times the landmarks'."""
    faces = find_faces(np.ascontiguousarray(picture), engine)
    return next((f.score * f.presence for f in faces if abs(f.roll_degrees) <= _LEANING), 0.0)


def _around(picture: UInt8Array, face: Face) -> UInt8Array:
    """The part of the picture that holds the face with a margin."""
    x0, y0, x1, y1 = face.box
    reach = _AROUND * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    return picture[top : int(y + reach) + 1, left : int(x + reach) + 1]
