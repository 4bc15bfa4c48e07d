"""Overlays: one picture for each measurement, with thin contours on the face, words outside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from hardware.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from models.analysis.face import Face
from models.analysis.marks import RoundPlace
from models.analysis.pen import INK, PAPER, SOFT_INK, TEAL, Pen, halo_line, smooth_line
from models.analysis.words import ENGLISH, Words
from models.analysis.zones import outline, polygon_mask, zone_polygons
from sync.wire.findings import Finding
from sync.wire.findings.handedness import AS_IN_A_MIRROR

# The names of all that may be drawn.
OVERLAYS = ("zones", "spots", "redness", "acne")
WIDTH, FACE_WIDTH = 1200, 560
TOP, BOTTOM, MARGIN = 164, 164, 32
LABEL_PX, LABEL_LINE, LABEL_WIDTH, CAPTION_PX = 28, 36, 236, 26
BAR_MM = 20.0
# A screen of 1280×800 shows less than half of every pixel, and a line has to be seen there.
LINE_PX, HALO_PX, LEADER_PX = 3, 3, 2


@dataclass(frozen=True)
class Sheet:
    """What every overlay of one face shares: close-up (H×W×3 uint8 sRGB), scale, lines of caption, words.

    `shown` is the caption where it was measured in the light that shows the face. Without `true_colour`, a
    calibrated one, colour is not given as a number.
    """

    picture: UInt8Array
    face: Face
    mm_per_px: float
    calibrated: bool
    caption: tuple[str, ...]
    words: Words = ENGLISH
    shown: tuple[str, ...] = ()
    true_colour: bool = True


def draw_overlays(
    sheet: Sheet,
    findings: Sequence[Finding],
    spots: Sequence[RoundPlace] | None,
    red: BoolArray | None,
    lesions: Sequence[RoundPlace] | None = None,
) -> dict[str, UInt8Array]:
    """ "zones", and of "spots", "redness" and "acne" those that were measured, as H×1200×3 uint8 sRGB.

    All are for the patient, so the face is turned as in a mirror before anything is drawn or written on it.
    """
    words = sheet.words
    sheet, turned = _in_the_mirror(sheet)
    values = {(str(f.zone), f.measure): f.value for f in findings}

    def label(measure: str, template: str) -> dict[str, str]:
        return {
            zone: template % {"value": _number(values[zone, measure], words)}
            for zone in words.zones
            if (zone, measure) in values
        }

    # Where colour has no number the area was still measured.
    measured = {zone for zone, _ in values}
    colour = dict.fromkeys((zone for zone in words.zones if zone in measured), "")
    line = words.areas_uncalibrated
    numbers = label("ita", words.areas_label)
    if sheet.true_colour and numbers:
        colour, line = colour | numbers, words.areas_line
    counts = label("spot_count", words.spots_label)
    redness = label("redness", words.redness_label)
    blemishes = label("acne_count", words.acne_label)
    sheets = {"zones": _sheet(sheet, words.areas_title, line, colour, None, ())}
    if spots is not None:
        sheets["spots"] = _sheet(sheet, words.spots_title, words.spots_line, counts, None, turned(spots))
    if red is not None:
        sheets["redness"] = _sheet(
            sheet, words.redness_title, words.redness_line, redness, red[:, ::AS_IN_A_MIRROR], ()
        )
    if lesions is not None:
        as_shown = replace(sheet, caption=sheet.shown)
        sheets["acne"] = _sheet(
            as_shown, words.acne_title, words.acne_line, blemishes, None, turned(lesions), 1.0
        )
    return sheets


@dataclass(frozen=True)
class _Turned:
    """A place as in a mirror."""

    x: float
    y: float
    radius_px: float


def _in_the_mirror(sheet: Sheet) -> tuple[Sheet, Callable[[Sequence[RoundPlace]], list[RoundPlace]]]:
    """The sheet with its face as in a mirror, and what turns places on it likewise.

    Landmarks and zones keep their names: left is the patient's own.
    """
    last = sheet.picture.shape[1] - 1
    face = sheet.face
    x0, y0, x1, y1 = face.box
    landmarks = face.landmarks * [AS_IN_A_MIRROR, 1, 1] + [last, 0, 0]
    turned = replace(face, box=(last - x1, y0, last - x0, y1), landmarks=landmarks)
    picture = np.ascontiguousarray(sheet.picture[:, ::AS_IN_A_MIRROR])

    def places(on: Sequence[RoundPlace]) -> list[RoundPlace]:
        return [_Turned(last - place.x, place.y, place.radius_px) for place in on]

    return replace(sheet, picture=picture, face=turned), places


def _number(value: float, words: Words) -> str:
    """The whole number, never "-0"; in a line from right to left its minus stays before it."""
    text = str(round(value))
    return f"\N{LEFT-TO-RIGHT MARK}{text}" if words.right_to_left and text.startswith("-") else text


def _sheet(
    sheet: Sheet,
    title: str,
    line: str,
    labels: Mapping[str, str],
    red: BoolArray | None,
    places: Sequence[RoundPlace],
    ring: float = 1.4,
) -> UInt8Array:
    """One overlay; a ring is `ring` times as wide as its place."""
    canvas, zoom, origin = _place_face(sheet)
    smooth = {
        zone: smooth_line(polygon * zoom + origin)
        for zone, polygon in zone_polygons(sheet.face.points).items()
    }
    quiet = bool(places) or red is not None
    _draw_zones(canvas, [smooth[zone] for zone in labels], 0.75 if quiet else 1.0)
    if red is not None:
        _draw_region(canvas, red, zoom, origin)
    for place in places:
        centre = np.array([place.x, place.y]) * zoom + origin
        _ring(canvas, centre, max(9.0, place.radius_px * zoom * ring + 4))
    bar = _scale_bar(canvas, sheet, zoom)
    image = Image.fromarray(canvas)
    pen = Pen(image, sheet.words)
    start = WIDTH - MARGIN if sheet.words.right_to_left else MARGIN
    pen.write(start, 24, title, INK, "Bold", 48)
    pen.write(start, 92, line, SOFT_INK, "Regular", 30)
    _draw_labels(pen, labels, smooth)
    _draw_caption(pen, sheet, start, bar, canvas.shape[0])
    return np.asarray(image)


def _place_face(sheet: Sheet) -> tuple[UInt8Array, float, Float64Array]:
    """Paper with the face on it, faded out around the head; the zoom, and where the close-up begins."""
    height, width = sheet.picture.shape[:2]
    extent = np.ptp(sheet.face.points, axis=0)
    zoom = FACE_WIDTH / max(float(extent[0]), float(extent[1]) * 0.72)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(sheet.picture, size, interpolation=method)
    middle = (sheet.face.points.min(0) + sheet.face.points.max(0)) / 2 * zoom
    x0 = round(WIDTH / 2 - float(middle[0]))
    whole = _fade(sheet.face.points * zoom, (size[1], size[0]))
    rows = np.flatnonzero(whole.max(axis=1) > 0.01)
    first, last = int(rows[0]), int(rows[-1]) + 1
    canvas = np.full((TOP + last - first + BOTTOM, WIDTH, 3), PAPER, np.uint8)
    left, right = max(0, x0), min(WIDTH, x0 + size[0])
    part = picture[first:last, left - x0 : right - x0].astype(np.float32)
    fade = whole[first:last, left - x0 : right - x0, None]
    blend = part * fade + np.array(PAPER, np.float32) * (1 - fade)
    canvas[TOP : TOP + last - first, left:right] = blend.round().astype(np.uint8)
    return canvas, zoom, np.array([x0, TOP - first], float)


def _fade(points: Float64Array, shape: tuple[int, int]) -> Float32Array:
    """1 on the face, 0 away from it, and at the edges of the picture."""
    oval = outline(points, "face_oval")
    centre = oval.mean(0)
    wide = (oval - centre) * [1.16, 1.2] + centre - [0, 0.06 * np.ptp(oval[:, 1])]
    mask = polygon_mask(wide, shape)
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0
    soft = 0.05 * float(np.ptp(oval[:, 0]))
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return np.asarray(cv2.GaussianBlur(np.clip(distance / soft, 0, 1), (0, 0), soft / 6), np.float32)


def _draw_zones(canvas: UInt8Array, polygons: Sequence[Float64Array], weight: float) -> None:
    drawn = canvas.copy()
    for polygon in polygons:
        halo_line(drawn, polygon, TEAL, LINE_PX)
    cv2.addWeighted(drawn, weight, canvas, 1 - weight, 0, dst=canvas)


def _ring(canvas: UInt8Array, centre: Float64Array, radius: float) -> None:
    at = (round(float(centre[0]) * 16), round(float(centre[1]) * 16))
    cv2.circle(canvas, at, round(radius * 16), PAPER, LINE_PX + HALO_PX, cv2.LINE_AA, shift=4)
    cv2.circle(canvas, at, round(radius * 16), INK, LINE_PX, cv2.LINE_AA, shift=4)


def _draw_region(canvas: UInt8Array, region: BoolArray, zoom: float, origin: Float64Array) -> None:
    """Contours of a region of the close-up, smoothed; specks are left out."""
    size = (round(region.shape[1] * zoom), round(region.shape[0] * zoom))
    grown = cv2.GaussianBlur(cv2.resize(region.astype(np.float32), size), (0, 0), 4)
    contours, _ = cv2.findContours((grown > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        if cv2.contourArea(contour) > 150:
            halo_line(canvas, smooth_line(contour[::4, 0].astype(float) + origin, 2), INK, LINE_PX)


def _scale_bar(canvas: UInt8Array, sheet: Sheet, zoom: float) -> int:
    """Draws the bar at the lower end of the lines; the x where it ends on their side."""
    length = round(BAR_MM / sheet.mm_per_px * zoom)
    left = MARGIN if sheet.words.right_to_left else WIDTH - MARGIN - length
    right = left + length
    y = canvas.shape[0] - 42
    cv2.rectangle(canvas, (left, y), (right, y + 3), INK, -1)
    for x in (left, right):
        cv2.rectangle(canvas, (x - 1, y - 6), (x + 1, y + 9), INK, -1)
    return right if sheet.words.right_to_left else left


def _draw_caption(pen: Pen, sheet: Sheet, start: float, bar: int, height: int) -> None:
    last = height - 62
    pen.write(start, last, sheet.words.sides, SOFT_INK, "Regular", CAPTION_PX)
    for above, line in enumerate(reversed(sheet.caption), start=1):
        pen.write(start, last - 38 * above, line, INK, "Regular", CAPTION_PX)
    template = sheet.words.length if sheet.calibrated else sheet.words.about_length
    text = template % {"value": f"{BAR_MM:.0f}"}
    room = 14 + pen.width(text, "Regular", CAPTION_PX)
    x = bar + room if sheet.words.right_to_left else bar - room
    pen.write(x, last, text, INK, "Regular", CAPTION_PX)


def _draw_labels(pen: Pen, labels: Mapping[str, str], polygons: Mapping[str, Float64Array]) -> None:
    """Two columns beside the face, each label level with its zone as far as there is room, with a leader."""
    columns: dict[bool, list[str]] = {False: [], True: []}
    for zone in labels:
        on_right = zone.startswith("right_") or zone in ("forehead", "chin")
        columns[on_right].append(zone)
    for on_right, zones in columns.items():
        bottom = -np.inf
        for zone in sorted(zones, key=lambda z: float(_anchor(polygons[z], on_right)[1])):
            anchor = _anchor(polygons[zone], on_right)
            name = pen.lines(pen.words.zones[zone], "Bold", LABEL_PX, LABEL_WIDTH)
            value = pen.lines(labels[zone], "Regular", LABEL_PX, LABEL_WIDTH) if labels[zone] else []
            y = max(float(anchor[1]), bottom + LABEL_LINE * len(name) + 16)
            bottom = y + LABEL_LINE * len(value)
            _draw_label(pen, name, value, anchor, y, on_right)


def _anchor(polygon: Float64Array, on_right: bool) -> Float64Array:
    """Where the leader ends: the outermost place on that side, in the middle third of the zone's height."""
    top, height = polygon[:, 1].min(), np.ptp(polygon[:, 1])
    central = polygon[np.abs(polygon[:, 1] - top - height / 2) <= height / 6 + 1]
    return np.asarray(central[int(np.argmax(central[:, 0] * (1 if on_right else -1)))])


def _draw_label(
    pen: Pen, name: Sequence[str], value: Sequence[str], anchor: Float64Array, y: float, on_right: bool
) -> None:
    """Name above `y`, value below it; the label is on its zone's side in every direction of reading."""
    lines = [(line, "Bold") for line in name] + [(line, "Regular") for line in value]
    width = max(pen.width(line, weight, LABEL_PX) for line, weight in lines)
    left = WIDTH - MARGIN - width if on_right else MARGIN
    end = left - 12 if on_right else left + width + 12
    pen.draw.line([(end, y), (float(anchor[0]), float(anchor[1]))], SOFT_INK, LEADER_PX)
    radius = 5
    pen.draw.ellipse(
        [anchor[0] - radius, anchor[1] - radius, anchor[0] + radius, anchor[1] + radius], SOFT_INK, PAPER
    )
    start = left + width if pen.words.right_to_left else left
    for place, line in enumerate(name):
        pen.write(start, y - LABEL_LINE * (len(name) - place) - 2, line, INK, "Bold", LABEL_PX)
    for place, line in enumerate(value):
        pen.write(start, y + LABEL_LINE * place - 2, line, SOFT_INK, "Regular", LABEL_PX)
