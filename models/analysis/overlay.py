"""Overlays: one picture for each measurement, with thin contours on the face, words outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.analysis.face import Face
from models.analysis.spots import Spot
from models.analysis.zones import outline, polygon_mask, zone_polygons
from sync.wire.findings import Finding

PAPER, INK, SOFT_INK, TEAL = (250, 248, 244), (26, 35, 38), (76, 90, 94), (11, 93, 99)
WIDTH, FACE_WIDTH = 1200, 620
TOP, BOTTOM, MARGIN = 148, 132, 40
BAR_MM = 20.0
ZONE_WORDS = {
    "forehead": "Forehead",
    "left_periorbital": "Around left eye",
    "right_periorbital": "Around right eye",
    "left_cheek": "Left cheek",
    "right_cheek": "Right cheek",
    "nose": "Nose",
    "chin": "Chin",
}
LIGHT_WORDS = {
    "white": "white light",
    "cross": "cross-polarised light",
    "parallel": "parallel-polarised light",
}
_FONTS = ("/usr/share/fonts/truetype/noto/NotoSans-{}.ttf", "/usr/share/fonts/noto/NotoSans-{}.ttf")


@dataclass(frozen=True)
class Sheet:
    """What every overlay of one face shares: its close-up (H×W×3 uint8 sRGB), the scale and the caption."""

    picture: np.ndarray
    face: Face
    mm_per_px: float
    calibrated: bool
    caption: str


def draw_overlays(
    sheet: Sheet, findings: Sequence[Finding], spots: Sequence[Spot], red: np.ndarray
) -> dict[str, np.ndarray]:
    """ "zones", "spots" and "redness" as H×1200×3 uint8 sRGB."""
    values = {(str(f.zone), f.measure): f.value for f in findings}

    def label(measure: str, template: str) -> dict[str, str]:
        return {
            zone: template.format(values[zone, measure]) for zone in ZONE_WORDS if (zone, measure) in values
        }

    counts = {
        zone: "no spots" if text == "0" else "1 spot" if text == "1" else f"{text} spots"
        for zone, text in label("spot_count", "{:.0f}").items()
    }
    colour = label("ita", "skin colour {:.0f}°")
    redness = label("redness", "{:.0f} % red")
    return {
        "zones": _sheet(
            sheet,
            "Where we measured",
            "The number is skin colour as an angle: higher is lighter.",
            colour,
            None,
            (),
        ),
        "spots": _sheet(sheet, "Spots", "Each ring goes around one darker place.", counts, None, spots),
        "redness": _sheet(
            sheet,
            "Redness",
            "Inside the dark lines, skin is redder than in most of this face.",
            redness,
            red,
            (),
        ),
    }


def _sheet(
    sheet: Sheet,
    title: str,
    line: str,
    labels: Mapping[str, str],
    red: np.ndarray | None,
    spots: Sequence[Spot],
) -> np.ndarray:
    canvas, zoom, origin = _place_face(sheet)
    smooth = {
        zone: _smooth(polygon * zoom + origin) for zone, polygon in zone_polygons(sheet.face.points).items()
    }
    quiet = bool(spots) or red is not None
    _draw_zones(canvas, [smooth[zone] for zone in labels], 0.55 if quiet else 1.0)
    if red is not None:
        _draw_region(canvas, red, zoom, origin)
    for spot in spots:
        centre = np.array([spot.x, spot.y]) * zoom + origin
        _ring(canvas, centre, max(7.0, spot.radius_px * zoom * 1.4 + 3))
    bar = _scale_bar(canvas, sheet, zoom)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 30), title, INK, _font("Bold", 44))
    draw.text((MARGIN, 86), line, SOFT_INK, _font("Regular", 24))
    _draw_labels(draw, labels, smooth)
    _draw_caption(draw, sheet, bar, canvas.shape[0])
    return np.asarray(image)


def _place_face(sheet: Sheet) -> tuple[np.ndarray, float, np.ndarray]:
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


def _fade(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """1 on the face, 0 away from it, and at the edges of the picture."""
    oval = outline(points, "face_oval")
    centre = oval.mean(0)
    wide = (oval - centre) * [1.16, 1.2] + centre - [0, 0.06 * np.ptp(oval[:, 1])]
    mask = polygon_mask(wide, shape)
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0
    soft = 0.05 * float(np.ptp(oval[:, 0]))
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return cv2.GaussianBlur(np.clip(distance / soft, 0, 1), (0, 0), soft / 6)


def _smooth(polygon: np.ndarray, rounds: int = 3) -> np.ndarray:
    """The polygon with its corners cut (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(polygon, -1, axis=0)
        polygon = np.stack([0.75 * polygon + 0.25 * after, 0.25 * polygon + 0.75 * after], 1).reshape(-1, 2)
    return polygon


def _halo_line(canvas: np.ndarray, polygon: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    points = [np.round(polygon * 16).astype(np.int32)]
    cv2.polylines(canvas, points, True, PAPER, width + 2, cv2.LINE_AA, shift=4)
    cv2.polylines(canvas, points, True, colour, width, cv2.LINE_AA, shift=4)


def _draw_zones(canvas: np.ndarray, polygons: Sequence[np.ndarray], weight: float) -> None:
    drawn = canvas.copy()
    for polygon in polygons:
        _halo_line(drawn, polygon, TEAL, 2)
    cv2.addWeighted(drawn, weight, canvas, 1 - weight, 0, dst=canvas)


def _ring(canvas: np.ndarray, centre: np.ndarray, radius: float) -> None:
    at = (round(float(centre[0]) * 16), round(float(centre[1]) * 16))
    cv2.circle(canvas, at, round(radius * 16), PAPER, 3, cv2.LINE_AA, shift=4)
    cv2.circle(canvas, at, round(radius * 16), INK, 1, cv2.LINE_AA, shift=4)


def _draw_region(canvas: np.ndarray, region: np.ndarray, zoom: float, origin: np.ndarray) -> None:
    """Contours of a region of the close-up, smoothed; specks are left out."""
    size = (round(region.shape[1] * zoom), round(region.shape[0] * zoom))
    grown = cv2.GaussianBlur(cv2.resize(region.astype(np.float32), size), (0, 0), 4)
    contours, _ = cv2.findContours((grown > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        if cv2.contourArea(contour) > 150:
            _halo_line(canvas, _smooth(contour[::4, 0].astype(float) + origin, 2), INK, 2)


def _scale_bar(canvas: np.ndarray, sheet: Sheet, zoom: float) -> int:
    """Draws the bar at the lower right; its left end."""
    left, right = WIDTH - MARGIN - round(BAR_MM / sheet.mm_per_px * zoom), WIDTH - MARGIN
    y = canvas.shape[0] - 40
    cv2.rectangle(canvas, (left, y), (right, y + 3), INK, -1)
    for x in (left, right):
        cv2.rectangle(canvas, (x - 1, y - 5), (x + 1, y + 8), INK, -1)
    return left


def _draw_caption(draw: ImageDraw.ImageDraw, sheet: Sheet, bar: int, height: int) -> None:
    font = _font("Regular", 22)
    draw.text((MARGIN, height - 88), sheet.caption, INK, font)
    draw.text((MARGIN, height - 54), "Your left is on the right of the picture.", SOFT_INK, font)
    text = f"{BAR_MM:.0f} mm" if sheet.calibrated else f"about {BAR_MM:.0f} mm"
    draw.text((bar - 14 - draw.textlength(text, font), height - 54), text, INK, font)


def _draw_labels(
    draw: ImageDraw.ImageDraw, labels: Mapping[str, str], polygons: Mapping[str, np.ndarray]
) -> None:
    """Two columns beside the face, each label level with its zone as far as there is room, with a leader."""
    columns: dict[bool, list[str]] = {False: [], True: []}
    for zone in labels:
        on_right = zone.startswith("left_") or zone in ("forehead", "chin")
        columns[on_right].append(zone)
    for on_right, zones in columns.items():
        bottom = -np.inf
        for zone in sorted(zones, key=lambda z: float(_anchor(polygons[z], on_right)[1])):
            anchor = _anchor(polygons[zone], on_right)
            y = max(float(anchor[1]), bottom + 92)
            bottom = y
            _draw_label(draw, ZONE_WORDS[zone], labels[zone], anchor, y, on_right)


def _anchor(polygon: np.ndarray, on_right: bool) -> np.ndarray:
    """Where the leader ends: the outermost place on that side, in the middle third of the zone's height."""
    top, height = polygon[:, 1].min(), np.ptp(polygon[:, 1])
    central = polygon[np.abs(polygon[:, 1] - top - height / 2) <= height / 6 + 1]
    return np.asarray(central[int(np.argmax(central[:, 0] * (1 if on_right else -1)))])


def _draw_label(
    draw: ImageDraw.ImageDraw, name: str, value: str, anchor: np.ndarray, y: float, on_right: bool
) -> None:
    bold, regular = _font("Bold", 24), _font("Regular", 24)
    width = max(draw.textlength(name, bold), draw.textlength(value, regular))
    x = WIDTH - MARGIN - width if on_right else MARGIN
    end = x - 12 if on_right else x + width + 12
    draw.line([(end, y), (float(anchor[0]), float(anchor[1]))], SOFT_INK, 1)
    radius = 4
    draw.ellipse(
        [anchor[0] - radius, anchor[1] - radius, anchor[0] + radius, anchor[1] + radius], SOFT_INK, PAPER
    )
    draw.text((x, y - 32), name, INK, bold)
    draw.text((x, y), value, SOFT_INK, regular)


@lru_cache(maxsize=8)
def _font(weight: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Noto Sans where the system has it, else the face that Pillow carries."""
    for pattern in _FONTS:
        path = Path(pattern.format(weight))
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)
