"""The plan of a phantom's face: where its landmarks, zones and features lie in the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from hardware.face_mesh import FACE_WIDTH_MM
from hardware.simulated.targets import mm_per_px

FACE_MIDDLE = 0.47
# How people differ, as standard deviations of shares of the mean face: head and face breadths of adults vary
# by some 4 %, single features by 5 to 10 % (Farkas, Anthropometry of the Head and Face, 1994).
_BREADTH_SD, _HEIGHT_SD, _FEATURE_SD = 0.03, 0.025, 0.05
_MOST_SD = 1.8
# The two sides of a face differ by a little less than a millimetre.
_ASYMMETRY = 0.008
_RIGHT, _LEFT = (33, 133), (362, 263)


class Anatomy(Protocol):
    """A face of 468 landmarks on a plane, as numbers: `sync.wire.findings.canonical_face`, handed down.

    The unit is half the breadth of the face; the origin lies midway between the outer corners of the eyes.
    `ZONES` and `OUTLINES` are closed polygons of vertices.
    """

    @property
    def VERTICES(self) -> Sequence[tuple[float, float]]: ...

    @property
    def ZONES(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def OUTLINES(self) -> Mapping[str, tuple[int, ...]]: ...


class Plan:
    """One phantom's landmarks in a picture of `width`×`height`, varied by `rng` around the mean face.

    `landmarks` is 468×2 px. `mean` are the same vertices on the mean face (unit: half its breadth), in which
    hair, depth and pigment are described: `to_mean` takes pixels there, `unit_px` is its unit.
    """

    def __init__(self, anatomy: Anatomy, width: int, height: int, rng: np.random.Generator) -> None:
        self.anatomy, self.width, self.height = anatomy, width, height
        self.mm_per_px = mm_per_px(width)
        self.mean = np.array(anatomy.VERTICES, np.float64)
        self._sizes = _draw(rng, 8)
        self._skew = rng.normal(0, _ASYMMETRY, 6)
        self.unit_px = FACE_WIDTH_MM / 2 / self.mm_per_px * (1 + _BREADTH_SD * self._sizes[0])
        own = self._varied(self.mean)
        self._middle = (own.min(axis=0) + own.max(axis=0)) / 2
        self.landmarks = self._to_picture(own)
        self.unit_mm = self.unit_px * self.mm_per_px

    def _varied(self, points: Float64Array) -> Float64Array:
        """This face's points (N×2) for those of the mean face, same unit."""
        x, y = points[:, 0], points[:, 1]
        _, tall, jaw, eyes, nose, mouth, lips, chin = self._sizes * _FEATURE_SD
        tall *= _HEIGHT_SD / _FEATURE_SD

        def near(v: float, spread: float, u: float = 0.0, breadth: float = 9.0) -> Float64Array:
            return np.asarray(np.exp(-(((y - v) / spread) ** 2) - ((x - u) / breadth) ** 2))

        wide = 1 + jaw * near(1.2, 0.5) + 1.6 * nose * near(0.58, 0.16, 0.0, 0.45)
        wide += mouth * near(1.0, 0.16, 0.0, 0.6) + 0.5 * eyes * near(-0.03, 0.2, 0.0, 0.9)
        lip = near(1.02, 0.12, 0.0, 0.45)
        own_y = y * (1 + tall) + 1.5 * lips * (y - 1.0) * lip + 0.6 * chin * np.clip(y - 1.15, 0, None)
        side = np.tanh(3 * x)
        own_y = own_y + side * (
            self._skew[0] * near(-0.1, 0.3) + self._skew[1] * near(1.0, 0.25) + self._skew[2] * near(0.5, 0.3)
        )
        own_x = x * wide + self._skew[3] * near(0.55, 0.35, 0, 0.5) + self._skew[4] * near(1.3, 0.5)
        return np.column_stack([own_x, own_y])

    def _to_picture(self, points: Float64Array) -> Float64Array:
        centre = np.array([self.width / 2, FACE_MIDDLE * self.height])
        return np.asarray((points - self._middle) * self.unit_px + centre)

    def picture(self, points: Sequence[tuple[float, float]] | Float64Array) -> Float64Array:
        """Pixels (N×2) of points given on the mean face."""
        return self._to_picture(self._varied(np.asarray(points, np.float64)))

    def to_mean(self, step: int = 1) -> tuple[Float32Array, Float32Array]:
        """(u, v), each h×w float32: where every `step`-th pixel lies on the mean face."""
        columns, rows = self.width // step, self.height // step
        xs = (np.arange(columns) + 0.5) * step - 0.5
        ys = (np.arange(rows) + 0.5) * step - 0.5
        goal = np.column_stack([axis.ravel() for axis in np.meshgrid(xs, ys)])
        goal = (goal - (self.width / 2, FACE_MIDDLE * self.height)) / self.unit_px + self._middle
        # The variation is small and smooth, so going back by what it moved comes to rest at once.
        found = goal.copy()
        for _ in range(4):
            found += goal - self._varied(found)
        return (
            found[:, 0].reshape(rows, columns).astype(np.float32),
            found[:, 1].reshape(rows, columns).astype(np.float32),
        )

    def outline(self, name: str) -> Float64Array:
        """The closed outline `name` in pixels, its corners rounded."""
        return rounded(self.landmarks[list(self.anatomy.OUTLINES[name])])

    def eye(self, side: str) -> tuple[Float64Array, float]:
        """(middle, breadth) of an eye in pixels; "right" is the patient's own, at the left of the picture."""
        a, b = self.landmarks[list(_RIGHT if side == "right" else _LEFT)]
        return (a + b) / 2, float(np.linalg.norm(b - a))

    def zones(self, skin: BoolArray) -> tuple[UInt8Array, tuple[str, ...]]:
        """H×W uint8, 1 + the place of each zone in the names that come with it; 0 elsewhere.

        Only where `skin` (H×W bool); around the eyes goes before the cheeks, as it does when measured.
        """
        names = tuple(self.anatomy.ZONES)
        found = np.zeros((self.height, self.width), np.uint8)
        for name in sorted(names, key=lambda name: "periorbital" not in name):
            inside = self.fill(self.landmarks[list(self.anatomy.ZONES[name])]) > 0.5
            found[inside & skin & (found == 0)] = 1 + names.index(name)
        return found, names

    def fill(self, polygon: Float64Array, blur_px: float = 0.0) -> Float32Array:
        """H×W float32, 1 inside `polygon` (N×2 px), with a soft edge."""
        mask = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
        values = mask.astype(np.float32) / 255
        return np.asarray(cv2.GaussianBlur(values, (0, 0), blur_px) if blur_px else values, np.float32)


def rounded(polygon: Float64Array, closed: bool = True, rounds: int = 3) -> Float64Array:
    """`polygon` with its corners cut (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(polygon, -1, axis=0)
        cut = np.stack([0.75 * polygon + 0.25 * after, 0.25 * polygon + 0.75 * after], axis=1).reshape(-1, 2)
        polygon = cut if closed else np.vstack([polygon[:1], cut[:-2], polygon[-1:]])
    return polygon


def _draw(rng: np.random.Generator, count: int) -> Float64Array:
    """Standard normal numbers without the rare far ones: a phantom is an ordinary face."""
    return np.clip(rng.standard_normal(count), -_MOST_SD, _MOST_SD)
