"""A drawn face with the geometry of one scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sync.wire.findings import Mark, canonical_face
from sync.wire.findings.canonical_face import Point
from sync.wire.findings.handedness import FACING

# Pixels of the drawing for half a face width, and the margins for the labels beside the face.
SCALE = 144.0
MARGIN_X, MARGIN_Y = 152.0, 12.0
LABEL_GAP = 44.0
LABEL_INSET = 8.0
MARK_RADIUS = 2.0

_OVAL = canonical_face.points(canonical_face.OUTLINES["face_oval"])
_TOP, _BOTTOM = min(y for _, y in _OVAL), max(y for _, y in _OVAL)
_SIDE = max(x for x, _ in _OVAL)


@dataclass(frozen=True)
class Circle:
    """A place on the face, in pixels of the drawing."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Label:
    """A zone's number beside the face, with the line that leads to its place."""

    zone: str
    x: float
    y: float
    anchor: str
    leader: str
    to: Circle


class DrawnFace:
    """The outline, the marks of one scan, and a label beside each of the zones named.

    Seen as the patient stands before us: their left is on our right.
    """

    width = round(2 * (MARGIN_X + SCALE * _SIDE))
    height = round(2 * MARGIN_Y + SCALE * (_BOTTOM - _TOP))

    def __init__(self, marks: Iterable[Mark], zones: Iterable[str]) -> None:
        shown = [zone for zone in canonical_face.ZONES if zone in set(zones)]
        self.outline = [_curve(shape, closed=True) for shape in canonical_face.OUTLINES.values()]
        self.outline += [_curve(line, closed=False) for line in canonical_face.LINES.values()]
        self.zones = [_curve(canonical_face.ZONES[zone], closed=True) for zone in shown]
        self.marks = [_circle(mark) for mark in marks]
        self.labels = _labels(shown, self.width)


def _circle(mark: Mark) -> Circle:
    x, y = place((mark.x, mark.y))
    # A mark must be seen, however small the spot is.
    return Circle(x, y, round(max(MARK_RADIUS, SCALE * mark.radius), 1))


def _labels(zones: Sequence[str], width: float) -> list[Label]:
    """Labels stand on the side their zone is on, those of the midline by turns, none on another."""
    centres = {zone: place(canonical_face.inside(zone)) for zone in zones}
    sides: dict[str, list[str]] = {"left": [], "right": []}
    for zone in sorted(zones, key=lambda zone: centres[zone][1]):
        x = centres[zone][0] - width / 2
        fewer = min(sides, key=lambda side: len(sides[side]))
        sides["left" if x < -1 else "right" if x > 1 else fewer].append(zone)
    labels = []
    for side, x, anchor, turn in (
        ("left", MARGIN_X - 24, "end", 1),
        ("right", width - MARGIN_X + 24, "start", -1),
    ):
        below = 0.0
        for zone in sides[side]:
            to_x, to_y = centres[zone]
            y = round(max(to_y, below), 1)
            below = y + LABEL_GAP
            leader = f"M{x + turn * LABEL_INSET:g} {y:g} L{to_x:g} {to_y:g}"
            labels.append(Label(zone, x, y, anchor, leader, Circle(to_x, to_y, 3.0)))
    return labels


def place(point: Point) -> Point:
    """Where a place of the canonical face is in the drawing."""
    x = MARGIN_X + SCALE * (FACING * point[0] + _SIDE)
    return round(x, 1), round(MARGIN_Y + SCALE * (point[1] - _TOP), 1)


def _curve(vertices: tuple[int, ...], *, closed: bool) -> str:
    return canonical_face.curve([place(point) for point in canonical_face.points(vertices)], closed=closed)
