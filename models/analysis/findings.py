"""Findings: what was measured in each zone, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from hardware.arrays import BoolArray, Float32Array, FloatArray, UInt8Array
from hardware.colour import lab
from models.analysis.canonical import to_canonical
from models.analysis.colour import ita_degrees
from models.analysis.face import Face
from models.analysis.pigment import erythema_index, melanin_index
from models.analysis.spots import VERSION as SPOTS_VERSION
from models.analysis.spots import Spot
from sync.wire.findings import Finding, Mark

COLOUR_VERSION = "colour-1"
REDNESS_VERSION = "redness-1"
# Blocks are larger than pores, hairs and most spots, so that they vary independently of each other.
BLOCK_MM = 5.0
MIN_ZONE_MM2 = 60.0
MIN_BLOCKS = 4
REPLICATES = 500
# On skin darker than this (ITA) the erythema index follows melanin, and misses what is red: on phantoms with
# redness in them at most one place in eight was found, on the darkest none.
REDNESS_LEAST_ITA = 10.0
# Erythema index above the median of the same face from which a place is called red.
RED_ABOVE_MEDIAN = 6.0
RED_SMOOTHING_MM = 0.8
# The sealed message is bounded: beyond this only the largest spots are drawn; all are counted.
MAX_MARKS = 300

# By name, over each block of a zone.
Sums = dict[str, npt.NDArray[np.float64 | np.int64]]


class Place(Protocol):
    """A round place in a close-up, in its pixels."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def radius_px(self) -> float: ...


@dataclass(frozen=True)
class Field:
    """What `measure` looks at, all in the pixels of one close-up.

    `light` is H×W×3 linear light, `masks` H×W bool by zone, `network` names the landmark network by hash.
    """

    light: Float32Array
    masks: Mapping[str, BoolArray]
    mm_per_px: float
    network: str


def red_places(light: Float32Array, skin: UInt8Array, mm_per_px: float) -> BoolArray:
    """H×W bool: skin whose erythema index is well above the median of this face."""
    weight = (skin > 0).astype(np.float32)
    index = erythema_index(light).astype(np.float32)
    middle = float(np.median(index[skin > 0]))
    sigma = max(0.5, RED_SMOOTHING_MM / mm_per_px)
    total = cv2.GaussianBlur((index - middle) * weight, (0, 0), sigma)
    smooth = total / (cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-3)
    return np.asarray((smooth > RED_ABOVE_MEDIAN) & (skin > 0))


def shows_redness(light: FloatArray, skin: UInt8Array) -> bool:
    """Whether redness can be told from melanin on this face: skin of a plausible colour, and not dark."""
    if not skin.any():
        return False
    mean = light[skin > 0].mean(axis=0)[None]
    return bool(_plausible(mean) and ita_degrees(mean)[0] >= REDNESS_LEAST_ITA)


def _plausible(light: FloatArray) -> bool:
    """Whether linear light (n, 3), a value and its replicates, has a colour that skin can have.

    Skin is yellower than grey (b* > 0) and reflects more red than green, whoever's it is (15,256 spectra of
    2,113 people, ISSA); else the picture's own colours are wrong.
    """
    yellow, red = lab(light)[:, 2], erythema_index(light)
    return bool(min(yellow[0], red[0], *np.percentile([yellow, red], 2.5, axis=1)) > 0)


def measure(
    field: Field, red: BoolArray | None, spots: Sequence[Spot] | None
) -> tuple[list[Finding], list[str]]:
    """The Findings of every zone with enough skin in view, and a flag "…_hidden" for each of the others.

    Redness and spots only where they could be seen (not None); colour only where skin can have it, else the
    flag "implausible_colour".

    95 % confidence intervals by bootstrap over blocks of 5 mm (percentile method; the seed is fixed, so that
    the same picture gives the same interval).
    """
    findings, flags = [], []
    for zone, mask in field.masks.items():
        blocks = _blocks(field, mask, red, spots)
        if mask.sum() * field.mm_per_px**2 < MIN_ZONE_MM2 or len(blocks["pixels"]) < MIN_BLOCKS:
            flags.append(f"{zone}_hidden")
            continue
        made = _zone_findings(field, zone, blocks, red is not None, spots is not None)
        findings += made
        if not any(finding.measure == "ita" for finding in made) and "implausible_colour" not in flags:
            flags.append("implausible_colour")
    return findings, flags


def _blocks(field: Field, mask: BoolArray, red: BoolArray | None, spots: Sequence[Spot] | None) -> Sums:
    """Sums over each block that holds skin of the zone: pixels, light (3), red pixels, spots, their area."""
    side = max(1, round(BLOCK_MM / field.mm_per_px))
    height, width = mask.shape
    columns = -(-width // side)
    count = columns * -(-height // side)
    ys, xs = np.nonzero(mask)
    block = (ys // side) * columns + xs // side
    pixels = np.bincount(block, minlength=count)
    light = np.stack([np.bincount(block, field.light[ys, xs, c], count) for c in range(3)], axis=1)
    number, area = np.zeros(count), np.zeros(count)
    for spot in spots or ():
        x, y = round(spot.x), round(spot.y)
        if mask[y, x]:
            number[(y // side) * columns + x // side] += 1
            area[(y // side) * columns + x // side] += spot.area_mm2
    held = pixels > 0
    sums = {
        "pixels": pixels,
        "light": light,
        "red": np.zeros(count) if red is None else np.bincount(block, red[ys, xs], count),
        "spots": number,
        "spot_area": area,
    }
    return {name: values[held] for name, values in sums.items()}


def _zone_findings(field: Field, zone: str, blocks: Sums, redness: bool, spots: bool) -> list[Finding]:
    count = len(blocks["pixels"])
    # Row 0 takes every block once: the value itself. The others draw blocks with replacement.
    draws = np.random.default_rng(count).multinomial(count, np.full(count, 1 / count), REPLICATES)
    weights = np.vstack([np.ones(count), draws])
    sums = {name: np.asarray(weights @ values, np.float64) for name, values in blocks.items()}
    light = sums["light"] / sums["pixels"][:, None]
    made = []
    if _plausible(light):
        made += [
            _finding(field, zone, "ita", "deg", ita_degrees(light), COLOUR_VERSION),
            _finding(field, zone, "melanin_index", "1", melanin_index(light), COLOUR_VERSION),
            _finding(field, zone, "erythema_index", "1", erythema_index(light), COLOUR_VERSION),
        ]
    if redness:
        share_red = 100.0 * sums["red"] / sums["pixels"]
        made.append(_finding(field, zone, "redness", "%", share_red, REDNESS_VERSION))
    if spots:
        # None seen in n independent places still allows three (rule of three, Hanley 1983).
        made += [
            _finding(field, zone, "spot_count", "1", sums["spots"], SPOTS_VERSION, at_zero=3.0),
            _finding(field, zone, "spot_area", "mm2", sums["spot_area"], SPOTS_VERSION, at_zero=3.0),
        ]
    return made


def _finding(
    field: Field, zone: str, measure: str, unit: str, values: FloatArray, version: str, at_zero: float = 0.0
) -> Finding:
    value = float(values[0])
    low, high = (float(v) for v in np.percentile(values[1:], [2.5, 97.5]))
    if value == 0 and high == 0:
        high = at_zero
    return Finding(
        measure=measure,
        zone=zone,  # type: ignore[arg-type]
        value=round(value, 3),
        unit=unit,
        low=round(min(low, value), 3),
        high=round(max(high, value), 3),
        model=f"{version}+{field.network}",
    )


def spot_marks(spots: Sequence[Spot], masks: Mapping[str, BoolArray], face: Face) -> list[Mark]:
    """The spots as marks on the canonical face, largest first, at most MAX_MARKS."""
    largest = sorted(spots, key=lambda spot: -spot.area_mm2)[:MAX_MARKS]
    zones = [
        [name for name, mask in masks.items() if mask[round(s.y), round(s.x)]] or ["face"] for s in largest
    ]
    areas = [round(spot.area_mm2, 2) for spot in largest]
    return marks("spot", largest, [names[-1] for names in zones], face, areas)


def marks(
    kind: str,
    places: Sequence[Place],
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
