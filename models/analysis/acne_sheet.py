"""The acne sheet, for a clinician: the picture with a box and a score for each counted lesion."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from hardware.arrays import Float64Array, UInt8Array
from models.analysis.acne import NETWORK, THRESHOLD, Acne
from models.analysis.acne_count import constants, interval
from models.analysis.pen import INK, PAPER, SOFT_INK, Pen, halo_line
from models.analysis.words import ENGLISH
from models.networks.manifest import load_manifest

WIDTH, MARGIN = 1200, 32
_TOP, _LINE, _SCORE_PX = 150, 36, 18
_MOST_HEIGHT, _MOST_ZOOM = 1300, 4.0
# Of the picture's side is shown at least this share, with a margin of a share around the boxes.
_LEAST_PART, _AROUND = 0.5, 0.15

Label = tuple[float, float, float, float]


def draw_acne(picture: UInt8Array, acne: Acne) -> UInt8Array:
    """H×1200×3 uint8 sRGB: the part of `picture` (H×W×3 uint8 sRGB) that holds the boxes above the threshold.

    A score is written where it hides neither another nor another's box.
    """
    x0, y0, x1, y1 = _part(picture.shape, acne.counted)
    part = picture[y0:y1, x0:x1]
    height, width = part.shape[:2]
    zoom = min((WIDTH - 2 * MARGIN) / width, _MOST_HEIGHT / height, _MOST_ZOOM)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    left = (WIDTH - size[0]) // 2
    caption = _caption()
    canvas = np.full((_TOP + size[1] + 24 + _LINE * len(caption) + MARGIN, WIDTH, 3), PAPER, np.uint8)
    canvas[_TOP : _TOP + size[1], left : left + size[0]] = small
    boxes = (acne.counted[:, :4] - [x0, y0, x0, y0]) * zoom + np.tile([left, _TOP], 2)
    for box in boxes:
        halo_line(canvas, box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2), INK, 1)
    image = Image.fromarray(canvas)
    pen = Pen(image, ENGLISH)
    taken = [tuple(box) for box in boxes.tolist()]
    for box, score in zip(boxes.tolist(), acne.counted[:, 4], strict=True):
        text = f"{score:.2f}"
        wide = pen.width(text, "Regular", _SCORE_PX)
        label = (box[0], box[1] - 1.4 * _SCORE_PX, box[0] + wide, box[1] - 2)
        if not any(_meet(label, other) for other in taken if other != tuple(box)):
            taken.append(label)
            pen.write(label[0], label[1], text, INK, "Regular", _SCORE_PX, halo=3)
    low, high = interval(len(boxes), constants()["face"])
    pen.write(MARGIN, 24, f"Acne lesions: {len(boxes)}", INK, "Bold", 48)
    line = f"95 % interval {low} to {high}."
    if acne.severity is not None:
        line += f" Severity {acne.severity} of 0 to 3, by lesions of every kind."
    pen.write(MARGIN, 92, line, SOFT_INK, "Regular", 30)
    for number, text in enumerate(caption):
        pen.write(MARGIN, _TOP + size[1] + 24 + _LINE * number, text, SOFT_INK, "Regular", 24)
    return np.asarray(image)


def _part(shape: tuple[int, ...], boxes: Float64Array) -> tuple[int, int, int, int]:
    """The window of the picture that is shown: about the boxes, or all of it where there is none."""
    height, width = shape[:2]
    if not len(boxes):
        return 0, 0, width, height
    edges = []
    for low, high, length in zip(boxes[:, :2].min(0), boxes[:, 2:4].max(0), (width, height), strict=True):
        reach = max((high - low) / 2 + _AROUND * length, _LEAST_PART * length / 2)
        reach = min(reach, length / 2)
        middle = float(np.clip((low + high) / 2, reach, length - reach))
        edges.append((round(middle - reach), round(middle + reach)))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def _meet(a: Label, b: Label) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _caption() -> list[str]:
    return [
        f"Each box: one counted lesion with its score, above {THRESHOLD:g}, where there is room for it.",
        "Moles and scars are sometimes taken for acne.",
        "The picture's own light; its date and scale are not known. Support for a decision, not a diagnosis.",
        f"By {load_manifest().entry(NETWORK).reference}.",
    ]
