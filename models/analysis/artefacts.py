"""What lies over the skin in a close-up: hair, gel bubbles, a ruler, pen ink, a sticker.

Drawn and true ones were looked at to choose the rules; the card has how often each is found, and how often
where there is none.
"""

from __future__ import annotations

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float64Array, UInt8Array

# Every rule works at this many pixels across; lengths are in those, contrasts of 255, colours in CIELAB.
_WIDTH = 400
# Hair: contrast, least length and most breadth of one line, least length of all, and of all
# where there is gel, whose bubbles have dark sides.
_CONTRAST, _REACH, _BREADTH, _HAIR, _HAIR_IN_GEL = 20, 32, 12, 130.0, 350.0
# Gel: a rim's contrast, and the share of it that has that. Ruler: a strip's height, its mean contrast, and
# the share of its power in one rhythm.
_RIM, _ROUND, _STRIP, _TICKS, _REGULAR = 8, 0.6, 16, 3.0, 0.6
# Ink, stickers: how far from the skin's colour and from grey, least pixels, how deep no pen's stroke is.
_BLUER, _GREENER, _YELLOWER, _GREY, _PATCH, _STICKER = 18.0, 22.0, 38.0, 10.0, 70, 11.0
# Dark corners: the share of the picture's median that they do not reach.
_CORNER = 0.3


def artefacts(picture: UInt8Array, mask: UInt8Array) -> tuple[str, ...]:
    """What covers the skin in `picture` (H×W×3 uint8 sRGB), of NAMES; `mask` (H×W uint8) is the lesion's."""
    scale = _WIDTH / max(picture.shape[:2])
    size = (max(16, round(picture.shape[1] * scale)), max(16, round(picture.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    lesion = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0
    blurred = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (0, 0), 0.8)
    grey = np.asarray(blurred, np.uint8)
    lit = _lit(grey)
    rims, ticks = _rims(grey), _ticks(grey, lit & ~_grown(lesion, 9))
    pens, stickers = _foreign(small, lit & ~_grown(lesion, 7), lesion)
    # A rim, a tick and a pen's stroke are lines too.
    bare = lit & ~_grown(rims | ticks | pens | stickers, 11)
    found = {"gel": rims, "ruler": ticks, "ink": pens, "sticker": stickers}
    # Of rims that were not found the fair parts are left, so that only dark hairs are told from them.
    methods = (cv2.MORPH_BLACKHAT,) if rims.any() else (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT)
    length = max(_line_length(grey, bare, method) for method in methods)
    hairy = length > (_HAIR_IN_GEL if rims.any() else _HAIR)
    return tuple(name for name in NAMES if (hairy if name == "hair" else found[name].any()))


def _grown(places: BoolArray, reach: int) -> BoolArray:
    return cv2.dilate(places.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0


def _lit(grey: UInt8Array) -> BoolArray:
    """(h, w) bool: within the tube's dark corners and a little inside of their edge."""
    soft = cv2.GaussianBlur(grey, (0, 0), 4)
    dark = soft < _CORNER * np.quantile(grey, 0.75)
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return ~_grown(np.isin(labels, rim[rim > 0]), 25)


def _line_length(grey: UInt8Array, bare: BoolArray, method: int) -> float:
    """Of thin lines, darker (black hat) or fairer (top hat) than their sides, that go straight a while."""
    hat = cv2.morphologyEx(grey, method, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    thin = ((hat > _CONTRAST) & bare).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    # A mole's net or a scale is short or broad; hairs that cross are one long part.
    reach = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    long = (reach > _REACH) & (stats[:, cv2.CC_STAT_AREA] < reach * _BREADTH)
    long[0] = False
    lines = cv2.HoughLinesP(long[labels].astype(np.uint8), 1, np.pi / 90, 25, None, _REACH, 2)
    drawn = np.zeros(thin.shape, np.uint8)
    for x0, y0, x1, y1 in [] if lines is None else lines.reshape(-1, 4).tolist():
        cv2.line(drawn, (x0, y0), (x1, y1), (1,), 5)
    return float(drawn.sum()) / 5


def _rims(grey: UInt8Array) -> BoolArray:
    """(h, w) bool: round rims, brighter than what they enclose and than what encloses them; two or none."""
    circles = cv2.HoughCircles(grey, cv2.HOUGH_GRADIENT, 1, 6, None, 80, 12, 4, 42)
    places, found = np.zeros(grey.shape, np.uint8), 0
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    way = np.stack([np.cos(turns), np.sin(turns)], 1)
    for x, y, radius in [] if circles is None else circles.reshape(-1, 3)[:200].tolist():
        step = max(3.0, 0.3 * radius)
        reaches = (radius - step, radius + step, radius - 1.5, radius, radius + 1.5)
        points = np.array([np.array([x, y]) + way * reach for reach in reaches], np.float32)
        inner, outer, *near = cv2.remap(
            grey, points[..., 0], points[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).astype(int)
        higher = np.max(near, axis=0) - np.maximum(inner, outer)
        if (higher > _RIM).mean() > _ROUND:
            found += 1
            cv2.circle(places, (round(x), round(y)), round(radius), (1,), 3)
    return places > 0 if found >= 2 else np.zeros(grey.shape, bool)


def _ticks(grey: UInt8Array, free: BoolArray) -> BoolArray:
    """(h, w) bool: the strips, level or upright, in which dark ticks stand at one distance."""
    places = np.zeros(grey.shape, bool)
    for turned in (False, True):
        lying = grey.T if turned else grey
        open_, marked = (free.T, places.T) if turned else (free, places)
        hat = np.where(open_, cv2.morphologyEx(lying, cv2.MORPH_BLACKHAT, np.ones((1, 13), np.uint8)), 0)
        for top in range(0, hat.shape[0] - _STRIP + 1, _STRIP // 2):
            if _regular(np.minimum(hat[top : top + _STRIP].mean(axis=0), 80.0)):
                marked[top : top + _STRIP] = True
    return places


def _regular(profile: Float64Array) -> bool:
    """Whether most of a profile's power is in one rhythm and its overtones."""
    if profile.mean() < _TICKS:
        return False
    power = np.abs(np.fft.rfft((profile - profile.mean()) * np.hanning(len(profile)))) ** 2
    low, high = len(profile) // 26, len(profile) // 6 + 1
    peak = max(2, low + int(power[low:high].argmax()))
    tones = [power[k * peak - 1 : k * peak + 2].sum() for k in (1, 2, 3) if k * peak + 2 < len(power)]
    return bool(sum(tones) > _REGULAR * power[1:].sum())


def _foreign(picture: UInt8Array, free: BoolArray, lesion: BoolArray) -> tuple[BoolArray, BoolArray]:
    """(h, w) bool each: strokes and patches bluer, greener or yellower than any skin."""
    soft = cv2.GaussianBlur(picture, (0, 0), 1).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(soft, cv2.COLOR_RGB2LAB), np.float32)
    strokes, patches = np.zeros(free.shape, bool), np.zeros(free.shape, bool)
    if not (free & ~lesion).any():
        return strokes, patches
    red, yellow = np.moveaxis(lab[..., 1:] - np.median(lab[free & ~lesion][:, 1:], axis=0), -1, 0)
    blue = (yellow < -_BLUER) | ((red < -_GREENER) & (yellow < 0))
    other = blue | (red < -_GREENER) | (yellow > _YELLOWER)
    # Grey hair on red skin is greener than that, but it is grey.
    other &= np.linalg.norm(lab[..., 1:], axis=2) > _GREY
    count, labels, stats, _ = cv2.connectedComponentsWithStats((other & free).astype(np.uint8))
    for number in range(1, count):
        if stats[number, cv2.CC_STAT_AREA] < _PATCH:
            continue
        part = labels == number
        depth = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 3).max()
        if depth > _STICKER:
            patches[part] = True
        elif blue[part].mean() > 0.5:
            # Fair hair is yellower than the skin; no pen is.
            strokes[part] = True
    return strokes, patches


NAMES = ("hair", "gel", "ruler", "ink", "sticker")
