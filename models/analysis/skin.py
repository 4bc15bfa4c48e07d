"""The skin masks: all the skin of a picture, and that of one face which is measured."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hardware.arrays import UInt8Array
from models.analysis.face import Face
from models.analysis.zones import outline, polygon_mask
from models.networks.parsing_classes import NOSE, SKIN
from sync.wire.findings.canonical_face import MIRROR

# The landmarks end below the hairline; a face may reach this share of brow-to-top beyond them.
_FOREHEAD_GROWTH = 0.9
_NOSTRIL = (98, 235, 166, 79, 239, 60, 99, 240)
_NOSTRIL_MARGIN = 0.014
_HOLE_RADIUS = 0.05
_EYE_MARGIN, _BROW_MARGIN, _LIP_MARGIN = 0.035, 0.018, 0.012


def skin_mask(labels: UInt8Array, faces: Sequence[Face]) -> UInt8Array:
    """H×W uint8, 255 = skin with noses, ears, necks and hands, without hair, brows, eyes and lips.

    `labels` is H×W as `parse` gives it, `faces` in its pixels.
    """
    shape = (labels.shape[0], labels.shape[1])
    skin = np.where((labels == SKIN) | (labels == NOSE), np.uint8(255), np.uint8(0))
    for face in faces:
        for name in ("left_eye", "right_eye", "lips_inner"):
            skin &= ~polygon_mask(outline(face.points, name), shape)
    return skin


def facial_skin(labels: UInt8Array, face: Face) -> UInt8Array:
    """H×W uint8, 255 = the skin of `face` that is measured: up to the hairline, ears and neck left out.

    Eyes, brows, lips and nostrils go with a margin, for lashes, stray hairs and shadows are no skin.
    """
    shape = (labels.shape[0], labels.shape[1])
    removed = _features(face, shape)
    mask = skin_mask(labels, [face]) & _reach(face, shape) & ~removed
    return _without_holes(mask, removed, face) & ~removed


def _reach(face: Face, shape: tuple[int, int]) -> UInt8Array:
    """The face oval, stretched upwards to where the hairline may be."""
    points = face.points
    oval = outline(points, "face_oval")
    brow, top = points[9], points[10]
    lift = (top - brow) * _FOREHEAD_GROWTH
    up = (top - brow) / (np.linalg.norm(top - brow) + 1e-9)
    height = (oval - brow) @ up / (np.linalg.norm(top - brow) + 1e-9)
    return polygon_mask(oval + np.clip(height, 0, 1)[:, None] * lift, shape)


def _features(face: Face, shape: tuple[int, int]) -> UInt8Array:
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


def _without_holes(mask: UInt8Array, removed: UInt8Array, face: Face) -> UInt8Array:
    """The mask with small islands of another colour filled in: moles are skin."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.bitwise_not(mask | removed), connectivity=4)
    largest = np.pi * (_HOLE_RADIUS * face.width) ** 2
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < largest)
    return np.where(np.isin(labels, small[small > 0]), np.uint8(255), mask)


def _disc(radius: float) -> UInt8Array:
    r = max(1, round(radius))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)), np.uint8)
