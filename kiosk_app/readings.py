"""Findings in plain words for the patient: a few large numbers, each with what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask_babel import LazyString, format_decimal, gettext, ngettext
from flask_babel import lazy_gettext as _

ZONES: dict[str, LazyString] = {
    "forehead": _("Forehead"),
    "left_cheek": _("Left cheek"),
    "right_cheek": _("Right cheek"),
    "nose": _("Nose"),
    "chin": _("Chin"),
    "left_periorbital": _("Around left eye"),
    "right_periorbital": _("Around right eye"),
}
# Bounds of the individual typology angle (Chardon 1991); below the last, "dark".
_TONES: tuple[tuple[float, LazyString], ...] = (
    (55, _("Very light")),
    (41, _("Light")),
    (28, _("Medium light")),
    (10, _("Medium")),
    (-30, _("Brown")),
)


@dataclass(frozen=True)
class Strip:
    """One zone's value on the scale of its card: `dot`, `low`, `high` in 0…100 of the width."""

    zone: LazyString
    value: str
    dot: float
    low: float
    high: float


@dataclass(frozen=True)
class Card:
    """One number, its unit, its reading, with a strip for each zone."""

    name: str
    value: str
    unit: str
    reading: str
    strips: tuple[Strip, ...]


def tone(ita_deg: float) -> LazyString:
    """The word for an individual typology angle in degrees."""
    return next((word for bound, word in _TONES if ita_deg > bound), _("Dark"))


def cards(findings: Iterable[Mapping[str, Any]], true_colour: bool) -> list[Card]:
    """What the result page shows; measures that were not made are left out.

    Colour as a number only from a calibrated camera (`true_colour`), whose colours are those of the skin.
    """
    table = {(f["measure"], f["zone"]): f for f in findings}
    made = (_tone_card(table) if true_colour else None, _spots_card(table), _blemishes_card(table))
    return [card for card in made if card is not None]


_Table = Mapping[tuple[str, str], Mapping[str, Any]]


def _tone_card(table: _Table) -> Card | None:
    value = _whole_face(table, "ita")
    if value is None:
        return None
    return Card(gettext("Skin colour"), _number(value), "° ITA", str(tone(value)), _strips(table, "ita"))


def _spots_card(table: _Table) -> Card | None:
    count = _whole_count(table, "spot_count")
    if count is None:
        return None
    reading = gettext("None seen on the whole face")
    if count.seen:
        area = _whole_count(table, "spot_area")
        reading = gettext(
            "%(count)s seen on the whole face; together %(area)s mm²",
            count=_number(count.seen),
            area=_number(area.seen, 0 if area.seen >= 10 else 1) if area else "–",
        )
    unit = ngettext("spot", "spots", round(count.high))
    return Card(gettext("Darker spots"), _range(count), unit, reading, _shares(table, "spot_count", count))


def _blemishes_card(table: _Table) -> Card | None:
    """The count of acne lesions without that name, and without its severity: both are the clinician's."""
    count = _whole_count(table, "acne_count")
    if count is None:
        return None
    reading = gettext("None seen on the whole face")
    if count.seen:
        reading = gettext(
            "%(count)s seen on the whole face, as far as a picture can tell", count=_number(count.seen)
        )
    unit = ngettext("blemish", "blemishes", round(count.high))
    return Card(gettext("Blemishes"), _range(count), unit, reading, _shares(table, "acne_count", count))


@dataclass(frozen=True)
class _Count:
    """What was seen on the whole face, and between which numbers it may be."""

    seen: float
    low: float
    high: float


def _whole_count(table: _Table, measure: str) -> _Count | None:
    """The whole face's count, else that of its zones together; None where nothing was counted."""
    whole = table.get((measure, "face"))
    zones = [table[measure, zone] for zone in ZONES if (measure, zone) in table]
    if whole is None and not zones:
        return None
    counted = [whole] if whole is not None else zones
    return _Count(*(float(sum(f[end] for f in counted)) for end in ("value", "low", "high")))


def _range(count: _Count) -> str:
    """A count as it can be vouched for: a range wherever its interval is one."""
    low, high = _number(count.low), _number(count.high)
    return low if low == high else gettext("%(low)s to %(high)s", low=low, high=high)


def _shares(table: _Table, measure: str, count: _Count) -> tuple[Strip, ...]:
    """One strip for each place where something was counted; their numbers add up to what was seen."""
    held = {zone: table[measure, zone] for zone in ZONES if (measure, zone) in table}
    held = {zone: found for zone, found in held.items() if found["value"]}
    between = count.seen - sum(float(found["value"]) for found in held.values())
    shown = [(ZONES[zone], found) for zone, found in held.items()]
    if between > 0:
        shown.append((_("Elsewhere on my face"), dict.fromkeys(("value", "low", "high"), between)))
    return _on_one_scale(shown)


def _whole_face(table: _Table, measure: str) -> float | None:
    """The value of the whole face, else the middle one of the zones."""
    if (measure, "face") in table:
        return float(table[measure, "face"]["value"])
    values = sorted(float(table[measure, zone]["value"]) for zone in ZONES if (measure, zone) in table)
    return values[len(values) // 2] if values else None


def _strips(table: _Table, measure: str) -> tuple[Strip, ...]:
    """One strip for each of the large zones."""
    return _on_one_scale(
        [(ZONES[zone], table[measure, zone]) for zone in list(ZONES)[:5] if (measure, zone) in table]
    )


def _on_one_scale(shown: Sequence[tuple[LazyString, Mapping[str, Any]]]) -> tuple[Strip, ...]:
    if not shown:
        return ()
    start = min(0.0, *(float(f["low"]) for _name, f in shown))
    span = max(float(f["high"]) for _name, f in shown) - start or 1.0

    def place(value: float) -> float:
        return round(4 + 92 * (value - start) / span, 1)

    return tuple(
        Strip(name, _number(f["value"]), place(f["value"]), place(f["low"]), place(f["high"]))
        for name, f in shown
    )


def _number(value: float, digits: int = 0) -> str:
    """The number as the reader's language writes it; never "-0"."""
    rounded = round(value, digits) + 0.0
    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return str(format_decimal(rounded, format=pattern))
