"""The canonical face: a drawn face on which both ends of the wire place what was found.

x runs to the right of the picture, y down; the unit is half the width of the face, the origin lies midway
between the outer corners of the eyes. The shape is the mean of 150 frontal faces, made symmetric; its
vertices are numbered as in the 468-point face mesh. Left and right are the patient's own: the patient's left
is at x > 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_DOCUMENT = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

Point = tuple[float, float]

VERTICES: tuple[Point, ...] = tuple((float(x), float(y)) for x, y in _DOCUMENT["vertices"])
# Corner numbers of each triangle, all turning the same way (clockwise as drawn).
TRIANGLES: tuple[tuple[int, int, int], ...] = tuple((a, b, c) for a, b, c in _DOCUMENT["triangles"])
# MIRROR[n] is the vertex that faces vertex n across the midline.
MIRROR: tuple[int, ...] = tuple(int(n) for n in _DOCUMENT["mirror"])


def _facing(indices: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(MIRROR[n] for n in indices)


def _both_halves(right: tuple[int, ...]) -> tuple[int, ...]:
    """A closed polygon from its patient's-right half, which begins and ends on the midline."""
    return right + tuple(n for n in reversed(_facing(right)) if MIRROR[n] != n)


_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_RIGHT_BROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)

# Closed polygons, for drawing.
OUTLINES: dict[str, tuple[int, ...]] = {
    "face_oval": _both_halves(
        (10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
    ),
    "right_eye": _RIGHT_EYE,
    "left_eye": _facing(_RIGHT_EYE),
    "right_brow": _RIGHT_BROW,
    "left_brow": _facing(_RIGHT_BROW),
    "lips_outer": _both_halves((0, 37, 39, 40, 185, 61, 146, 91, 181, 84, 17)),
    "lips_inner": _both_halves((13, 82, 81, 80, 191, 78, 95, 88, 178, 87, 14)),
}

_NOSE_WING = (198, 131, 49, 102, 64)

# Open lines, for drawing.
LINES: dict[str, tuple[int, ...]] = {
    "nose_base": (64, 98, 97, 2, 326, 327, 294),
    "nose_right": _NOSE_WING,
    "nose_left": _facing(_NOSE_WING),
}

_RIGHT_CHEEK = (116, 117, 118, 119, 100, 142, 203, 206, 216, 214, 192, 213, 147, 123)
_RIGHT_PERIORBITAL = (143, 111, 117, 118, 119, 120, 121, 128, 244, 189, 221, 222, 223, 224, 225, 124)

# Closed polygons of the zones that measurements name; eyes and brows inside them are no skin.
ZONES: dict[str, tuple[int, ...]] = {
    "forehead": _both_halves((10, 109, 67, 103, 54, 68, 63, 105, 66, 107, 9)),
    "left_cheek": _facing(_RIGHT_CHEEK),
    "right_cheek": _RIGHT_CHEEK,
    "nose": _both_halves((168, 193, 174, 198, 131, 49, 102, 64, 98, 97, 2)),
    "chin": _both_halves((18, 83, 182, 106, 204, 32, 140, 171, 175)),
    "left_periorbital": _facing(_RIGHT_PERIORBITAL),
    "right_periorbital": _RIGHT_PERIORBITAL,
}


def curve(through: Sequence[Point], *, closed: bool) -> str:
    """An SVG path through the points: a Catmull-Rom spline as cubic Bézier curves."""
    count = len(through)

    def at(index: int) -> Point:
        return through[index % count] if closed else through[min(max(index, 0), count - 1)]

    path = f"M{through[0][0]:g} {through[0][1]:g}"
    for index in range(count if closed else count - 1):
        before, start, end, after = (at(index + offset) for offset in (-1, 0, 1, 2))
        first = (start[0] + (end[0] - before[0]) / 6, start[1] + (end[1] - before[1]) / 6)
        second = (end[0] - (after[0] - start[0]) / 6, end[1] - (after[1] - start[1]) / 6)
        path += " C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in (first, second, end))
    return path + (" Z" if closed else "")


def inside(zone: str) -> Point:
    """A place in the zone to point at; around an eye it is the skin below the eye."""
    corners = points(ZONES[zone])
    if zone.endswith("periorbital"):
        middle = sum(y for _, y in corners) / len(corners)
        corners = [(x, y) for x, y in corners if y > middle]
    return sum(x for x, _ in corners) / len(corners), sum(y for _, y in corners) / len(corners)


def zone_at(point: Point) -> str | None:
    """The zone of a place on the face, "face" between the zones, None beside the face.

    Around the eyes goes before the cheeks, as in the measurements.
    """
    if not _holds(points(OUTLINES["face_oval"]), point):
        return None
    order = sorted(ZONES, key=lambda name: "periorbital" not in name)
    return next((name for name in order if _holds(points(ZONES[name]), point)), "face")


def _holds(polygon: Sequence[Point], point: Point) -> bool:
    """Whether the polygon holds the point: an odd number of its edges lies to the right."""
    x, y = point
    held = False
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            held = not held
    return held


def points(indices: tuple[int, ...]) -> list[Point]:
    """The vertices with these numbers, in canonical coordinates."""
    return [VERTICES[n] for n in indices]
