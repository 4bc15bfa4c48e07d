"""Findings in plain words for the patient: a few large numbers, each with what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def cards(findings: Iterable[Mapping[str, Any]]) -> list[Card]:
    """What the result page shows; measures that were not made are left out."""
    table = {(f["measure"], f["zone"]): f for f in findings}
    made = (_tone_card(table), _redness_card(table), _spots_card(table), _blemishes_card(table))
    return [card for card in made if card is not None]


_Table = Mapping[tuple[str, str], Mapping[str, Any]]


def _tone_card(table: _Table) -> Card | None:
    value = _whole_face(table, "ita")
    if value is None:
        return None
    return Card(gettext("Skin colour"), _number(value), "° ITA", str(tone(value)), _strips(table, "ita"))


def _redness_card(table: _Table) -> Card | None:
    value = _whole_face(table, "erythema_index")
    if value is None:
        return None
    return Card(
        gettext("Redness"),
        _number(value, 1),
        gettext("erythema index"),
        _compare_cheeks(table, "erythema_index"),
        _strips(table, "erythema_index", 1),
    )


def _spots_card(table: _Table) -> Card | None:
    counts = [table[key]["value"] for key in table if key[0] == "spot_count" and key[1] in ZONES]
    whole = table.get(("spot_count", "face"))
    if not counts and whole is None:
        return None
    count = round(whole["value"] if whole else sum(counts))
    areas = [table[key]["value"] for key in table if key[0] == "spot_area" and key[1] in ZONES]
    area = table[("spot_area", "face")]["value"] if ("spot_area", "face") in table else sum(areas)
    if count == 0:
        reading = gettext("No darker spots seen")
    else:
        reading = gettext(
            "On the whole face; together %(area)s mm²", area=_number(area, 0 if area >= 10 else 1)
        )
    unit = ngettext("spot", "spots", count)
    return Card(gettext("Darker spots"), _number(count), unit, reading, _strips(table, "spot_count"))


def _blemishes_card(table: _Table) -> Card | None:
    """The count of acne lesions without that name, and without its severity: both are the clinician's."""
    whole = table.get(("acne_count", "face"))
    if whole is None:
        return None
    count, low, high = (round(whole[key]) for key in ("value", "low", "high"))
    if low == 0:
        reading = gettext(
            "None to %(high)s on the whole face, as far as a picture can tell", high=_number(high)
        )
    else:
        reading = gettext(
            "Between %(low)s and %(high)s on the whole face", low=_number(low), high=_number(high)
        )
    unit = ngettext("blemish", "blemishes", count)
    return Card(gettext("Blemishes"), _number(count), unit, reading, _strips(table, "acne_count"))


def _whole_face(table: _Table, measure: str) -> float | None:
    """The value of the whole face, else the middle one of the zones."""
    if (measure, "face") in table:
        return float(table[measure, "face"]["value"])
    values = sorted(float(table[measure, zone]["value"]) for zone in ZONES if (measure, zone) in table)
    return values[len(values) // 2] if values else None


def _compare_cheeks(table: _Table, measure: str) -> str:
    """Which cheek shows more; a difference inside the confidence intervals is no difference."""
    left, right = table.get((measure, "left_cheek")), table.get((measure, "right_cheek"))
    if left is None or right is None:
        return ""
    if left["low"] > right["high"]:
        return str(gettext("More on your left cheek than on your right"))
    if right["low"] > left["high"]:
        return str(gettext("More on your right cheek than on your left"))
    return str(gettext("About the same on both cheeks"))


def _strips(table: _Table, measure: str, digits: int = 0) -> tuple[Strip, ...]:
    """One strip for each of the large zones, all on one scale; the whole face is more than they are."""
    shown = [(zone, table[measure, zone]) for zone in list(ZONES)[:5] if (measure, zone) in table]
    if not shown:
        return ()
    start = min(0.0, *(float(f["low"]) for _zone, f in shown))
    span = max(float(f["high"]) for _zone, f in shown) - start or 1.0

    def place(value: float) -> float:
        return round(4 + 92 * (value - start) / span, 1)

    return tuple(
        Strip(ZONES[zone], _number(f["value"], digits), place(f["value"]), place(f["low"]), place(f["high"]))
        for zone, f in shown
    )


def _number(value: float, digits: int = 0) -> str:
    """The number as the reader's language writes it; never "-0"."""
    rounded = round(value, digits) + 0.0
    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return str(format_decimal(rounded, format=pattern))
