"""Marks: places that were found in a close-up, on the canonical face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from hardware.arrays import BoolArray
from models.analysis.canonical import to_canonical
from models.analysis.face import Face
from models.analysis.spots import DarkSpot
from sync.wire.findings import Mark

# The sealed message is bounded: beyond this only the largest spots are drawn; all are counted.
MOST_SPOTS = 300


class RoundPlace(Protocol):
    """A round place in a close-up, in its pixels."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def radius_px(self) -> float: ...


def spot_marks(spots: Sequence[DarkSpot], masks: Mapping[str, BoolArray], face: Face) -> list[Mark]:
    """The spots as marks on the canonical face, largest first, at most MOST_SPOTS."""
    largest = sorted(spots, key=lambda spot: -spot.area_mm2)[:MOST_SPOTS]
    zones = [
        [name for name, mask in masks.items() if mask[round(s.y), round(s.x)]] or ["face"] for s in largest
    ]
    areas = [round(spot.area_mm2, 2) for spot in largest]
    return marks("spot", largest, [names[-1] for names in zones], face, areas)


def marks(
    kind: str,
    places: Sequence[RoundPlace],
    zones: Sequence[str],
    face: Face,
    areas_mm2: Sequence[float] | None = None,
) -> list[Mark]:
    """`places`, in the pixels of `face`, on the canonical face."""
    areas: Sequence[float | None] = areas_mm2 or [None] * len(places)
    centres = to_canonical(np.array([[place.x, place.y] for place in places]), face.points)
    return [
        Mark(
            kind=kind,
            zone=zone,  # type: ignore[arg-type]
            x=round(float(np.clip(x, -2, 2)), 4),
            y=round(float(np.clip(y, -2, 2)), 4),
            radius=round(min(1.0, max(1e-4, 2 * place.radius_px / face.width)), 4),
            area_mm2=area,
        )
        for place, zone, (x, y), area in zip(places, zones, centres, areas, strict=True)
    ]
