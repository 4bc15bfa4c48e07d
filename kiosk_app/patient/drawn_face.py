"""The drawn face on which a patient points at a spot: as in a mirror, their left is on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hardware.capture import Spot
from sync.wire.findings import canonical_face
from sync.wire.findings.canonical_face import Point
from sync.wire.findings.handedness import AS_IN_A_MIRROR

UNIT = 100  # of the drawing for half a face width
_MARGIN = 8
_OVAL = canonical_face.points(canonical_face.OUTLINES["face_oval"])


@dataclass(frozen=True)
class Dot:
    """A spot that was taken: its number, its place; `whole` where only the zone was named."""

    number: int
    x: float
    y: float
    whole: bool


class DrawnFace:
    """Outline and zones as SVG paths, and the spots `taken` so far."""

    # Where x and y of the canonical face go in the drawing; `static/spots.js` divides by them.
    across, down = AS_IN_A_MIRROR * UNIT, UNIT

    def __init__(self, taken: Sequence[Spot]) -> None:
        xs, ys = [UNIT * x for x, _ in _OVAL], [UNIT * y for _, y in _OVAL]
        self.box = (
            f"{min(xs) - _MARGIN:.0f} {min(ys) - _MARGIN:.0f}"
            f" {max(xs) - min(xs) + 2 * _MARGIN:.0f} {max(ys) - min(ys) + 2 * _MARGIN:.0f}"
        )
        self.outline = [_path(shape, closed=True) for shape in canonical_face.OUTLINES.values()]
        self.outline += [_path(line, closed=False) for line in canonical_face.LINES.values()]
        self.zones = [_path(shape, closed=True) for shape in canonical_face.ZONES.values()]
        self.dots = [_dot(number, spot) for number, spot in enumerate(taken, 1)]


def _path(vertices: tuple[int, ...], *, closed: bool) -> str:
    return canonical_face.curve([_place(p) for p in canonical_face.points(vertices)], closed=closed)


def _place(point: Point) -> Point:
    return round(DrawnFace.across * point[0], 1), round(DrawnFace.down * point[1], 1)


def _dot(number: int, spot: Spot) -> Dot:
    if spot.x is not None and spot.y is not None:
        return Dot(number, *_place((spot.x, spot.y)), whole=False)
    point = canonical_face.inside(spot.zone) if spot.zone in canonical_face.ZONES else (0.0, 0.5)
    return Dot(number, *_place(point), whole=True)
