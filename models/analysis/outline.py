"""The outline of the lesion in a close-up of skin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array, UInt8Array
from models.networks.lesion_views import NATIVE
from models.networks.runtime import DEFAULT_ENGINE, network

NETWORK = "lesion-outline"
# A part this many short sides of the picture from its middle counts half as much as one in the middle.
_CENTRAL = 0.35
# A lesion that takes up less of a finer picture than this is looked at again in this many times its bounds.
_SMALL, _CLOSER = 0.3, 2.2


@dataclass(frozen=True)
class LesionOutline:
    """`mask` H×W uint8, 255 = lesion, at the picture's size; empty where there is no lesion.

    `sureness` is the mean probability inside the mask, `doubt` the share of the picture between 0.2 and 0.8.
    """

    mask: UInt8Array
    sureness: float
    doubt: float


def find_outline(picture: UInt8Array, engine: str = DEFAULT_ENGINE) -> LesionOutline:
    """The lesion in `picture` (H×W×3 uint8 sRGB): of the parts that are found, the large and central one.

    The network sees the whole picture, lying, and its mirror images; then, where that shows more of it, the
    part about a small lesion. Raises ModelsError.
    """
    portrait = picture.shape[0] > picture.shape[1]
    lying = np.rot90(picture) if portrait else picture
    found = _found(lying, engine)
    if window := _closer(found.mask):
        part = _found(np.ascontiguousarray(lying[window]), engine).mask
        mask = np.zeros_like(found.mask)
        mask[window] = part
        # What the second look loses was there all the same.
        found = replace(found, mask=mask) if part.any() else found
    return replace(found, mask=np.ascontiguousarray(np.rot90(found.mask, -1))) if portrait else found


def _closer(mask: UInt8Array) -> tuple[slice, slice] | None:
    """The part of a lying picture about a small lesion, if it has more pixels there than the network saw."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask)
    if not w or max(w / width, h / height) > _SMALL or width <= NATIVE[1]:
        return None
    side = max(w, h * NATIVE[1] / NATIVE[0], width / 5) * _CLOSER
    size = np.minimum([height, width], [round(side * NATIVE[0] / NATIVE[1]), round(side)])
    top, left = np.clip([y + h / 2, x + w / 2] - size / 2, 0, [height, width] - size).astype(int).tolist()
    return slice(top, top + int(size[0])), slice(left, left + int(size[1]))


def _found(lying: UInt8Array, engine: str) -> LesionOutline:
    """The lesion as the network sees the whole of a lying picture."""
    chances = _chances(lying, engine)
    part = _main_part(chances > 0.5)
    inside = part > 0
    sureness = float(chances[inside].mean()) if inside.any() else 0.0
    # Holes are lesion, and what lies apart is not; just outside the part the slope of the chances is kept.
    rim = cv2.dilate(part, np.ones((3, 3), np.uint8))
    kept = np.where(inside, np.maximum(chances, 0.51), np.where(rim > 0, np.minimum(chances, 0.5), 0))
    grown = cv2.resize(kept, lying.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    mask = np.where(grown > 0.5, np.uint8(255), np.uint8(0))
    doubt = float(((chances > 0.2) & (chances < 0.8)).mean())
    return LesionOutline(mask, sureness, doubt)


def _chances(lying: UInt8Array, engine: str) -> Float32Array:
    """(h, w) float32 at the network's size: the mean over the picture and its mirror images."""
    net = network(NETWORK, engine)
    height, width = net.input_shape[1:3]
    small = lying
    if lying.shape[0] > NATIVE[0] or lying.shape[1] > NATIVE[1]:
        # As coarse as in training, where no finer pictures were to be had.
        small = np.asarray(cv2.resize(lying, NATIVE[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    seen = cv2.resize(small.astype(np.float32), (width, height)) / np.float32(127.5) - np.float32(1)
    total = np.zeros((height, width), np.float32)
    for flips in (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1, :], np.s_[::-1, ::-1]):
        [found] = net.run(np.ascontiguousarray(seen[flips])[None])
        total += found[0, :, :, 0][flips]
    return np.asarray(total / 4, np.float32)


def _main_part(found: BoolArray) -> UInt8Array:
    """The connected part of most area, weighed by its nearness to the middle, holes filled; uint8, 255."""
    count, labels, stats, centres = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    part = np.zeros(found.shape, np.uint8)
    if count < 2:
        return part
    middle = np.array(found.shape[::-1]) / 2
    away = np.linalg.norm(centres[1:] - middle, axis=1) / min(found.shape) / _CENTRAL
    best = 1 + int((stats[1:, cv2.CC_STAT_AREA] * np.exp2(-(away**2))).argmax())
    contours, _ = cv2.findContours(
        (labels == best).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(part, contours, -1, (255,), cv2.FILLED)
    return part
