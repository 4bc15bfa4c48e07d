"""Findings: what was measured in each zone, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hardware.arrays import BoolArray, Float32Array, FloatArray
from models.analysis import redness, spots
from models.analysis.colour import ita_degrees, plausible
from models.analysis.intervals import Grid, Sums, interval, replicated
from models.analysis.pigment import erythema_index, melanin_index
from models.analysis.spots import DarkSpot
from sync.wire.findings import Finding

COLOUR_VERSION = "colour-1"
MIN_ZONE_MM2 = 60.0
MIN_BLOCKS = 4


@dataclass(frozen=True)
class Field:
    """What `measure` looks at, all in the pixels of one close-up.

    `light` is H×W×3 linear light, `masks` H×W bool by zone, `network` names the landmark network by hash.
    """

    light: Float32Array
    masks: Mapping[str, BoolArray]
    mm_per_px: float
    network: str


def measure(
    field: Field, red: BoolArray | None, seen: Sequence[DarkSpot] | None
) -> tuple[list[Finding], list[str]]:
    """The Findings of every zone with enough skin in view, and a flag "…_hidden" for each of the others.

    Redness and spots only where they could be seen (not None); colour only where skin can have it, else the
    flag "implausible_colour".
    """
    findings, flags = [], []
    for zone, mask in field.masks.items():
        blocks = _blocks(field, mask, red, seen)
        if mask.sum() * field.mm_per_px**2 < MIN_ZONE_MM2 or len(blocks["pixels"]) < MIN_BLOCKS:
            flags.append(f"{zone}_hidden")
            continue
        made = _zone_findings(field, zone, blocks, red is not None, seen is not None)
        findings += made
        if not any(finding.measure == "ita" for finding in made) and "implausible_colour" not in flags:
            flags.append("implausible_colour")
    return findings, flags


def _blocks(field: Field, mask: BoolArray, red: BoolArray | None, seen: Sequence[DarkSpot] | None) -> Sums:
    """Sums over each block that holds skin of the zone: pixels, light (3), red pixels, spots, their area."""
    grid = Grid.over(mask, field.mm_per_px)
    ys, xs = np.nonzero(mask)
    block = grid.block(xs, ys)
    pixels = np.bincount(block, minlength=grid.count)
    light = np.stack([np.bincount(block, field.light[ys, xs, c], grid.count) for c in range(3)], axis=1)
    number, area = np.zeros(grid.count), np.zeros(grid.count)
    for spot in seen or ():
        x, y = round(spot.x), round(spot.y)
        if mask[y, x]:
            number[grid.block(x, y)] += 1
            area[grid.block(x, y)] += spot.area_mm2
    held = pixels > 0
    sums = {
        "pixels": pixels,
        "light": light,
        "red": np.zeros(grid.count) if red is None else np.bincount(block, red[ys, xs], grid.count),
        "spots": number,
        "spot_area": area,
    }
    return {name: values[held] for name, values in sums.items()}


def _zone_findings(field: Field, zone: str, blocks: Sums, red: bool, counted: bool) -> list[Finding]:
    sums = replicated(blocks)
    light = sums["light"] / sums["pixels"][:, None]
    made = []
    if plausible(light):
        made += [
            _finding(field, zone, "ita", "deg", ita_degrees(light), COLOUR_VERSION),
            _finding(field, zone, "melanin_index", "1", melanin_index(light), COLOUR_VERSION),
            _finding(field, zone, "erythema_index", "1", erythema_index(light), COLOUR_VERSION),
        ]
    if red:
        share_red = 100.0 * sums["red"] / sums["pixels"]
        made.append(_finding(field, zone, "redness", "%", share_red, redness.VERSION))
    if counted:
        # None seen in n independent places still allows three (rule of three, Hanley 1983).
        made += [
            _finding(field, zone, "spot_count", "1", sums["spots"], spots.VERSION, at_zero=3.0),
            _finding(field, zone, "spot_area", "mm2", sums["spot_area"], spots.VERSION, at_zero=3.0),
        ]
    return made


def _finding(
    field: Field, zone: str, measure: str, unit: str, values: FloatArray, version: str, at_zero: float = 0.0
) -> Finding:
    value, low, high = interval(values, at_zero)
    return Finding(
        measure=measure,
        zone=zone,  # type: ignore[arg-type]
        value=round(value, 3),
        unit=unit,
        low=round(low, 3),
        high=round(high, 3),
        model=f"{version}+{field.network}",
    )
