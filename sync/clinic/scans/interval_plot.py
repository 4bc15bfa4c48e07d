"""A small plot of one measure: a row for each zone, its value as a dot, its interval as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sync.clinic.store.tables import FindingRow
from sync.clinic.web import words

WIDTH = 560
ROW_HEIGHT = 32
LEFT, RIGHT, TOP = 176, 96, 8
AXIS_HEIGHT = 32
# Of the numbers' own size (of one, where they are smaller): no axis shows less than this.
_FINEST = 1e-6


@dataclass(frozen=True)
class PlotRow:
    zone: str
    y: float
    low: float
    value: float
    high: float
    text: str


@dataclass(frozen=True)
class Tick:
    x: float
    text: str


class IntervalPlot:
    """Rows and axis in pixels; zones keep the order of the face, from top to bottom."""

    width = WIDTH

    def __init__(self, findings: Sequence[FindingRow]) -> None:
        start, stop, step = _axis(findings)
        self.height = TOP + ROW_HEIGHT * len(findings) + AXIS_HEIGHT
        self.bottom = TOP + ROW_HEIGHT * len(findings)

        def place(value: float) -> float:
            return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - start) / (stop - start), 1)

        self.rows = [
            PlotRow(
                words.zone(row.zone),
                TOP + ROW_HEIGHT * (index + 0.5),
                place(row.low),
                place(row.value),
                place(row.high),
                words.with_unit(row.measure, row.value, row.unit),
            )
            for index, row in enumerate(findings)
        ]
        decimals = max(0, -math.floor(math.log10(step)))
        count = round((stop - start) / step)
        self.ticks = [
            Tick(place(value), f"{value + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}"))
            for value in (round(start + step * index, 9) for index in range(count + 1))
        ]


def _axis(findings: Sequence[FindingRow]) -> tuple[float, float, float]:
    """First tick, last tick and the step between: 1, 2 or 5 times a power of ten, about five of them.

    No step is finer than the measure is written: nobody has half a lesion.
    """
    low, high = min(row.low for row in findings), max(row.high for row in findings)
    least = _FINEST * max(1.0, abs(low), abs(high))
    span = max((high - low) or abs(high) or 1.0, least)
    rough = max(span / 4, 10.0 ** -words.measure(findings[0].measure).decimals)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    start, stop = math.floor(low / step) * step, math.ceil(high / step) * step
    return start, stop if stop > start else start + step, step
