"""The skin mask: the face within its outline, up to the hairline, without eyes, brows, lips, hair."""

from __future__ import annotations

import cv2
import numpy as np

from models.analysis.blur import smooth_within
from models.analysis.face import Face
from models.analysis.zones import outline, polygon_mask, zone_polygons
from sync.wire.findings.canonical_face import MIRROR

# The landmarks end below the hairline; the mask may grow this share of brow-to-top beyond them, by colour.
_FOREHEAD_GROWTH = 0.9
_NOSTRIL = (98, 235, 166, 79, 239, 60, 99, 240)
_NOSTRIL_MARGIN = 0.014
_HOLE_RADIUS = 0.05
_EYE_MARGIN, _BROW_MARGIN, _LIP_MARGIN = 0.035, 0.018, 0.012


def skin_mask(picture: np.ndarray, face: Face) -> np.ndarray:
    """H×W uint8, 255 = facial skin with the nose; `picture` is H×W×3 uint8 sRGB, `face` in its pixels."""
    shape = (picture.shape[0], picture.shape[1])
    reach = _reach(face, shape)
    removed = _features(face, shape)
    core = np.zeros(shape, np.uint8)
    for name, polygon in zone_polygons(face.points).items():
        if "cheek" in name or name == "nose":
            core |= polygon_mask(polygon, shape)
    core &= ~removed
    if cv2.countNonZero(core) < 30:
        return core
    like = _like_the_core(picture, core, face)
    mask = reach & ~removed & like
    return _largest_parts(mask, core, removed, face)


def _reach(face: Face, shape: tuple[int, int]) -> np.ndarray:
    """The face oval, stretched upwards to where the hairline may be."""
    points = face.points
    oval = outline(points, "face_oval")
    brow, top = points[9], points[10]
    lift = (top - brow) * _FOREHEAD_GROWTH
    up = (top - brow) / (np.linalg.norm(top - brow) + 1e-9)
    height = (oval - brow) @ up / (np.linalg.norm(top - brow) + 1e-9)
    return polygon_mask(oval + np.clip(height, 0, 1)[:, None] * lift, shape)


def _features(face: Face, shape: tuple[int, int]) -> np.ndarray:
    """Eyes, brows, lips and nostrils, each with a margin in proportion to the face."""
    mask = np.zeros(shape, np.uint8)
    for names, margin in (
        (("left_eye", "right_eye"), _EYE_MARGIN),
        (("left_brow", "right_brow"), _BROW_MARGIN),
        (("lips_outer",), _LIP_MARGIN),
    ):
        part = np.zeros(shape, np.uint8)
        for name in names:
            part |= polygon_mask(outline(face.points, name), shape)
        mask |= np.asarray(cv2.dilate(part, _disc(margin * face.width)), np.uint8)
    for indices in (_NOSTRIL, tuple(MIRROR[n] for n in _NOSTRIL)):
        nostril = polygon_mask(face.points[list(indices)], shape)
        mask |= np.asarray(cv2.dilate(nostril, _disc(_NOSTRIL_MARGIN * face.width)), np.uint8)
    return mask


def _like_the_core(picture: np.ndarray, core: np.ndarray, face: Face) -> np.ndarray:
    """255 where the colour is one that the middle of this face has, for its height in the face.

    Chroma is compared with the whole core; lightness with a smooth map of the core's, so that a face lit from
    one side stays whole.
    """
    sigma = max(0.6, face.width / 300)
    lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), sigma).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    inside = lab[core > 0]
    middle = np.median(inside, axis=0)
    spread = 1.4826 * np.median(np.abs(inside - middle), axis=0)
    spread = np.maximum(spread, [6.0, 3.0, 3.0])
    chroma = np.abs(lab[..., 1:] - middle[1:]) / spread[1:]
    lightness = lab[..., 0] - smooth_within(lab[..., 0], core, face.width * 0.25)
    low = -max(2.6 * float(spread[0]), 0.30 * float(middle[0]))
    alike = (np.hypot(chroma[..., 0], chroma[..., 1]) < 5.0) & (lightness > low)
    return np.where(alike, np.uint8(255), np.uint8(0))


def _largest_parts(mask: np.ndarray, core: np.ndarray, removed: np.ndarray, face: Face) -> np.ndarray:
    """The mask without thin bridges, parts away from the middle of the face, and pinholes."""
    disc = _disc(0.012 * face.width)
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)
    count, labels = cv2.connectedComponents(opened)
    touching = np.bincount(labels[core > 0], minlength=count)
    touching[0] = 0
    kept = np.isin(labels, np.flatnonzero(touching > 0.02 * touching.sum()))
    closed = cv2.morphologyEx(np.where(kept, np.uint8(255), np.uint8(0)), cv2.MORPH_CLOSE, disc)
    return _without_holes(np.asarray(closed, np.uint8), removed, face) & ~removed


def _without_holes(mask: np.ndarray, removed: np.ndarray, face: Face) -> np.ndarray:
    """The mask with small islands of another colour filled in: moles are skin."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.bitwise_not(mask | removed), connectivity=4)
    largest = np.pi * (_HOLE_RADIUS * face.width) ** 2
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < largest)
    return np.where(np.isin(labels, small[small > 0]), np.uint8(255), mask)


def _disc(radius: float) -> np.ndarray:
    r = max(1, round(radius))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))
