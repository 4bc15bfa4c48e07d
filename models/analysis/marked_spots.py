"""Marked spots: what the lesion networks say of each close-up of a Capture, or why they say nothing."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np

from hardware.arrays import UInt8Array
from hardware.capture import Capture, Frame, Spot
from models.analysis.abcd import abcd
from models.analysis.colour import linear, to_srgb8
from models.analysis.lesion import NETWORK, FoundLesion, find_lesion
from models.analysis.opaque import opaque_lesion
from models.analysis.outline import NETWORK as OUTLINE
from models.analysis.refusal import Refused
from models.networks.lesion_views import CLASSES
from models.networks.manifest import load_manifest
from sync.wire.findings import LESION_CLASSES, Abcd, Lesion, MarkedSpot, Zone

NETWORKS = (NETWORK, OUTLINE)


def marked_spots(capture: Capture, engine: str) -> tuple[MarkedSpot, ...]:
    """Every spot of `capture`, in the order in which they were marked. Raises ModelsError."""
    return tuple(
        _marked(name, capture.frame(name), capture.spots.get(name, Spot()), engine) for name in capture.marked
    )


def require_lesion(frame: Frame, engine: str) -> None:
    """Raises Refused where nothing can be said of a close-up ("not_skin", "no_lesion", …), ModelsError."""
    find_lesion(_picture(frame), engine)


def _marked(name: str, frame: Frame | None, spot: Spot, engine: str) -> MarkedSpot:
    zone: Zone = spot.zone if spot.zone in get_args(Zone) else "face"  # type: ignore[assignment]
    lesion, reason = None, spot.not_taken
    if frame is not None:
        picture, reason = _picture(frame), None
        try:
            found = opaque_lesion(find_lesion(picture, engine), frame.shown)
            lesion = _described(picture, found, spot.mm_per_px)
        except Refused as refused:
            reason = refused.code
    return MarkedSpot(frame=name, zone=zone, x=spot.x, y=spot.y, lesion=lesion, refused=reason)


def _described(picture: UInt8Array, found: FoundLesion, mm_per_px: float | None) -> Lesion:
    manifest = load_manifest()
    shape = abcd(picture, found.mask)
    across = shape["diameter_px"]
    area_px = cv2.countNonZero(found.mask)
    return Lesion(
        classes={name: round(float(found.chances[CLASSES.index(name)]), 6) for name in LESION_CLASSES},
        melanoma=round(found.melanoma, 6),
        melanoma_like=found.melanoma_like,
        abcd=Abcd(
            asymmetry=shape["asymmetry"],
            border=shape["border"],
            colour_spread=shape["colour_spread"],
            colours=tuple(shape["colours"]),
            diameter_mm=None if mm_per_px is None or across is None else round(across * mm_per_px, 2),
        ),
        area_mm2=None if mm_per_px is None else round(area_px * mm_per_px**2, 2),
        model=manifest.entry(NETWORK).reference,
        outline_model=manifest.entry(OUTLINE).reference,
        flags=found.flags,
    )


def _picture(frame: Frame) -> UInt8Array:
    """H×W×3 uint8 sRGB."""
    if frame.pixels.dtype == np.uint8 and frame.colour == "srgb":
        return np.ascontiguousarray(frame.pixels)
    return to_srgb8(linear(frame.pixels, frame.colour))
