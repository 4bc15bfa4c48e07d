"""A face in a picture: its box with 468 landmarks.

Left and right, here and in everything built on it, are the patient's own: the patient's left cheek is on the
right of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardware.arrays import Float64Array, UInt8Array
from models.analysis.detector import Detection, detect, overlap, square_crop
from models.analysis.refusal import Refused
from models.networks.runtime import DEFAULT_ENGINE, network

LANDMARKS = 468
# Outer corners of the patient's right eye, then of the left.
EYE_CORNERS = (33, 263)
# Where the face is broadest, at its right ear and at its left.
SIDES = (234, 454)
MIN_PRESENCE = 0.5
MIN_SIDE_PX = 16
# A second face counts once its width is this share of the largest one's: a poster far behind does not.
SECOND_FACE_SHARE = 0.4


@dataclass(frozen=True)
class Face:
    """One face.

    `box` is (x0, y0, x1, y1) in pixels, inside the picture; `landmarks` is 468×3 float64: x, y in pixels of
    the upright picture (they may lie outside it), z in the same unit, smaller is nearer to the camera.
    `score` is the detector's, `presence` the landmark network's, both 0…1.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: Float64Array
    presence: float

    @property
    def points(self) -> Float64Array:
        """The landmarks' x and y, 468×2."""
        return self.landmarks[:, :2]

    @property
    def width(self) -> float:
        """Distance in pixels between the two sides of the face at the height of the ears."""
        right, left = self.points[list(SIDES)]
        return float(np.linalg.norm(left - right))

    @property
    def roll_degrees(self) -> float:
        """Tilt of the line through the eyes in the picture; positive is clockwise."""
        right, left = self.points[list(EYE_CORNERS)]
        return float(np.degrees(np.arctan2(left[1] - right[1], left[0] - right[0])))


def find_faces(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> list[Face]:
    """The faces in `picture` (H×W×3 uint8 RGB, upright), largest first; an empty list if there is none."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"find_faces wants H×W×3 uint8 RGB, not {picture.shape} {picture.dtype}.")
    if min(picture.shape[:2]) < MIN_SIDE_PX:
        return []
    faces: list[Face] = []
    for detection in detect(picture, engine):
        face = _landmarks(picture, detection, engine)
        if face and all(overlap(np.array(face.box), np.array(other.box)) < 0.3 for other in faces):
            faces.append(face)
    return sorted(faces, key=lambda face: -face.width)


def find_face(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> Face:
    """The one face in `picture` (H×W×3 uint8 RGB, upright).

    Raises Refused("no_face") or Refused("two_faces"); faces much smaller than the largest are passed over.
    """
    return only_face(find_faces(picture, engine))


def only_face(faces: Sequence[Face]) -> Face:
    """The largest of `faces`, those of one picture. Raises Refused as `find_face` does."""
    if not faces:
        raise Refused("no_face")
    if len(faces) > 1 and faces[1].width > SECOND_FACE_SHARE * faces[0].width:
        raise Refused("two_faces")
    return faces[0]


def _landmarks(picture: UInt8Array, detection: Detection, engine: str) -> Face | None:
    """Two passes: the second looks at the square that the first one's landmarks span, which is steadier."""
    x0, y0, x1, y1 = detection.box
    side = 1.5 * max(x1 - x0, y1 - y0)
    points, presence = _run(picture, (x0 + x1) / 2, (y0 + y1) / 2, side, detection.eyes, engine)
    if presence < MIN_PRESENCE:
        return None
    centre, side = _upright_square(points)
    points, presence = _run(picture, centre[0], centre[1], 1.5 * side, points[list(EYE_CORNERS), :2], engine)
    height, width = picture.shape[:2]
    box = np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])
    box = np.clip(box, 0, [width, height, width, height])
    if presence < MIN_PRESENCE or box[2] - box[0] < 4 or box[3] - box[1] < 4:
        return None
    return Face(tuple(float(v) for v in box), detection.score, points, presence)  # type: ignore[arg-type]


def _run(
    picture: UInt8Array, cx: float, cy: float, side: float, eyes: Float64Array, engine: str
) -> tuple[Float64Array, float]:
    net = network("face-landmarks", engine)
    size = net.input_shape[1]
    angle = float(np.degrees(np.arctan2(eyes[1][1] - eyes[0][1], eyes[1][0] - eyes[0][0])))
    crop, to_picture = square_crop(picture, cx, cy, side, angle, size)
    raw, flag = sorted(net.run(crop[None] / 255.0), key=lambda a: -a.size)
    points = raw.reshape(LANDMARKS, 3).astype(np.float64)
    points[:, :2] = points[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
    points[:, 2] *= side / size
    return points, float(1.0 / (1.0 + np.exp(-np.clip(flag.ravel()[0], -60, 60))))


def _upright_square(points: Float64Array) -> tuple[Float64Array, float]:
    """Centre and side of the square around the landmarks whose top is parallel to the line of the eyes."""
    right, left = points[list(EYE_CORNERS), :2]
    x = (left - right) / (np.linalg.norm(left - right) + 1e-9)
    axes = np.array([x, [-x[1], x[0]]])
    turned = points[:, :2] @ axes.T
    low, high = turned.min(0), turned.max(0)
    return (low + high) / 2 @ axes, float((high - low).max())
