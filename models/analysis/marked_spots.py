"""Marked spots: what the lesion networks say of each close-up of a Capture, or why they say nothing."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np

from hardware.capture import Capture, Frame, Spot
from models.analysis.abcd import abcd
from models.analysis.colour import linear, to_srgb8
from models.analysis.lesion import CLASSES, NETWORK, find_lesion
from models.analysis.lesion import Lesion as Found
from models.analysis.opaque import opaque_lesion
from models.analysis.outline import NETWORK as OUTLINE
from models.analysis.refusal import Refused
from models.manifest import load_manifest
from sync.wire.findings import Abcd, Lesion, MarkedSpot, Zone

NETWORKS = (NETWORK, OUTLINE)


def marked_spots(capture: Capture, engine: str) -> tuple[MarkedSpot, ...]:
    """Every spot of `capture`, in the order in which they were marked. Raises ModelsError."""
    return tuple(
        _marked(name, capture.frame(name), capture.spots.get(name, Spot()), engine) for name in capture.marked
    )


def why_refused(frame: Frame, engine: str) -> str | None:
    """Why nothing can be said of a close-up ("not_skin", "no_lesion", …), or None. Raises ModelsError."""
    try:
        find_lesion(_picture(frame), engine)
    except Refused as refused:
        return refused.reason
    return None


def _marked(name: str, frame: Frame | None, spot: Spot, engine: str) -> MarkedSpot:
    zone: Zone = spot.zone if spot.zone in get_args(Zone) else "face"  # type: ignore[assignment]
    lesion, reason = None, spot.not_taken
    if frame is not None:
        picture, reason = _picture(frame), None
        try:
            found = opaque_lesion(find_lesion(picture, engine), frame.shown)
            lesion = _described(picture, found, spot.mm_per_px)
        except Refused as refused:
            reason = refused.reason
    return MarkedSpot(frame=name, zone=zone, x=spot.x, y=spot.y, lesion=lesion, refused=reason)


def _described(picture: np.ndarray, found: Found, mm_per_px: float | None) -> Lesion:
    manifest = load_manifest()
    shape = abcd(picture, found.mask)
    diameter_px = shape.pop("diameter_px")
    if mm_per_px is not None and isinstance(diameter_px, float):
        shape["diameter_mm"] = round(diameter_px * mm_per_px, 2)
    area_px = cv2.countNonZero(found.mask)
    return Lesion(
        classes={name: round(float(p), 6) for name, p in zip(CLASSES, found.chances, strict=True)},
        melanoma=round(found.melanoma, 6),
        melanoma_like=found.melanoma_like,
        abcd=Abcd.model_validate(shape),
        area_mm2=None if mm_per_px is None else round(area_px * mm_per_px**2, 2),
        model=manifest.entry(NETWORK).reference,
        outline_model=manifest.entry(OUTLINE).reference,
        flags=found.flags,
    )


def _picture(frame: Frame) -> np.ndarray:
    """H×W×3 uint8 sRGB."""
    if frame.pixels.dtype == np.uint8 and frame.colour == "srgb":
        return np.ascontiguousarray(frame.pixels)
    return to_srgb8(linear(frame.pixels, frame.colour))
