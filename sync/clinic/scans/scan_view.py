"""What the page of one scan shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sync.clinic.scans.interval_plot import IntervalPlot
from sync.clinic.scans.records import ScanRecord
from sync.clinic.scans.spot_view import SpotsView
from sync.clinic.store.tables import FindingRow
from sync.clinic.web import words
from sync.clinic.web.drawn_face import DrawnFace

# Measures whose findings the geometry's marks of this kind show.
MARKED = {"spot_area": "spot", "spot_count": "spot", "acne_count": "acne", "acne_severity": "acne"}


@dataclass(frozen=True)
class Figure:
    """One measure in large: the whole face, or the span over its zones where there is no whole."""

    measure: str
    name: str
    heading: str
    value: str
    unit: str
    interval: str
    reading: str
    selected: bool


class ScanView:
    """One scan, with one of its measures drawn."""

    def __init__(self, record: ScanRecord, wanted: str | None) -> None:
        by_measure: dict[str, list[FindingRow]] = {}
        for row in record.findings:
            by_measure.setdefault(row.measure, []).append(row)
        order = list(words.MEASURES)
        self.measures = sorted(by_measure, key=lambda name: (name not in order, (order + [name]).index(name)))
        self.zones = [zone for zone in words.ZONES if any(row.zone == zone for row in record.findings)]
        self.selected = wanted if wanted in by_measure else next(iter(self.measures), None)
        self._cells = {(row.measure, row.zone): row for row in record.findings}
        self.figures = [_figure(by_measure[name], name == self.selected) for name in self.measures]
        self.spots = SpotsView(record.scan.spots)
        self.caveats = words.caveats(record.scan.quality)
        self.notes = [words.quality(flag) for flag in record.scan.quality if flag in words.HARMLESS]
        if self.selected is None:
            return
        self.measure = words.measure(self.selected)
        rows = [
            self._cells[self.selected, zone] for zone in self.zones if (self.selected, zone) in self._cells
        ]
        self.unit = words.unit(rows[0].unit)
        self.models = sorted({row.model for row in rows})
        # A whole face that adds up its zones would only squeeze them together.
        alone = [row for row in rows if row.zone != "face"] if self.selected in words.TOTALS else []
        self.plot = IntervalPlot(alone or rows)
        kind = MARKED.get(self.selected, self.selected)
        marks = [mark for mark in record.scan.geometry.marks if mark.kind == kind]
        self.face = DrawnFace(marks, [row.zone for row in rows])

    def cell(self, measure: str, zone: str) -> FindingRow | None:
        """The finding of a measure in a zone, or None where it was not measured."""
        return self._cells.get((measure, zone))

    def text(self, zone: str) -> str:
        """The number of the drawn measure in `zone`."""
        row = self._cells.get((self.selected or "", zone))
        return "" if row is None else words.with_unit(row.measure, row.value, row.unit)


def _figure(rows: Sequence[FindingRow], selected: bool) -> Figure:
    name, code = rows[0].measure, rows[0].unit
    whole = next((row for row in rows if row.zone == "face"), None)
    if whole is not None:
        value = words.number(name, whole.value)
        ends = words.interval(name, whole.low, whole.high)
        interval = f"{ends} (95 %)" if ends else ""
    else:
        span = [words.number(name, pick(row.value for row in rows)) for pick in (min, max)]
        value = span[0] if span[0] == span[1] else "\N{EN DASH}".join(span)
        interval = f"over {words.counted(len(rows), 'zone')}"
    title, unit = words.measure(name).name, words.unit(code)
    heading = f"{title}, {unit}" if unit else title
    if unit == "°":
        value, unit = value + unit, ""
    return Figure(name, title, heading, value, unit, interval, words.reading(rows), selected)
