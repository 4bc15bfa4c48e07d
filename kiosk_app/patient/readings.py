"""Findings in plain words for the patient: a few large numbers, each with what it means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flask_babel import LazyString, format_decimal, gettext, ngettext
from flask_babel import lazy_gettext as _

from sync.wire.findings import Finding

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
# Of each overlay: the measure whose numbers it shows, and how it writes them.
_SHOWN: dict[str, tuple[str, LazyString]] = {
    "zones": ("ita", _("colour %(value)s°")),
    "spots": ("spot_count", _("spots: %(value)s")),
    "redness": ("redness", _("%(value)s %% red")),
    "acne": ("acne_count", _("blemishes: %(value)s")),
}


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


def cards(findings: Iterable[Finding], quality: Collection[str]) -> list[Card]:
    """What the result page shows; measures that were not made are left out.

    By the flags in `quality`: colour as a number only from a calibrated camera, whose colours are those of
    the skin; and what is measured in millimetres without a calibrated scale is said to be about so much.
    """
    table: _Table = {(f.measure, f.zone): _Amount(f.value, f.low, f.high) for f in findings}
    made = (
        None if "uncalibrated_colour" in quality else _tone_card(table),
        _spots_card(table, "uncalibrated_scale" not in quality),
        _blemishes_card(table),
    )
    return [card for card in made if card is not None]


def numbers_on(overlay: str, findings: Iterable[Finding], quality: Collection[str]) -> list[str]:
    """What the overlay of this name has written on it of each zone, for who cannot see it."""
    measure, written = _SHOWN.get(overlay, ("", ""))
    if measure == "ita" and "uncalibrated_colour" in quality:
        return []
    values = {f.zone: f.value for f in findings if f.measure == measure}
    return [
        f"{word}: {str(written) % {'value': _number(values[zone])}}"
        for zone, word in ZONES.items()
        if zone in values
    ]


@dataclass(frozen=True)
class _Amount:
    """What was seen of a measure in a zone, and between which numbers it may be."""

    seen: float
    low: float
    high: float


_Table = Mapping[tuple[str, str], _Amount]


def _tone_card(table: _Table) -> Card | None:
    value = _whole_face(table, "ita")
    if value is None:
        return None
    return Card(gettext("Skin colour"), _number(value), "° ITA", str(tone(value)), _strips(table, "ita"))


def _spots_card(table: _Table, true_scale: bool) -> Card | None:
    count = _whole_count(table, "spot_count")
    if count is None:
        return None
    reading = gettext("None seen on the whole face")
    if count.seen:
        area = _whole_count(table, "spot_area")
        found = {
            "count": _number(count.seen),
            "area": _number(area.seen, 0 if area.seen >= 10 else 1) if area else "–",
        }
        if true_scale:
            reading = gettext("%(count)s seen on the whole face; together %(area)s mm²", **found)
        else:
            reading = gettext("%(count)s seen on the whole face; together about %(area)s mm²", **found)
    unit = ngettext("spot", "spots", _so_many(count))
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
    unit = ngettext("blemish", "blemishes", _so_many(count))
    return Card(gettext("Blemishes"), _range(count), unit, reading, _shares(table, "acne_count", count))


def _whole_count(table: _Table, measure: str) -> _Amount | None:
    """The whole face's count, else that of its zones together; None where nothing was counted."""
    whole = table.get((measure, "face"))
    zones = [table[measure, zone] for zone in ZONES if (measure, zone) in table]
    if whole is None and not zones:
        return None
    if whole is not None:
        return whole
    return _Amount(sum(f.seen for f in zones), sum(f.low for f in zones), sum(f.high for f in zones))


def _range(count: _Amount) -> str:
    """A count as it can be vouched for: a range wherever its interval is one."""
    low, high = _number(count.low), _number(count.high)
    return low if low == high else gettext("%(low)s to %(high)s", low=low, high=high)


def _so_many(count: _Amount) -> int:
    """For how many a noun stands after a count; a dual is for two, and not for what may be fewer."""
    low, high = round(count.low), round(count.high)
    return 100 if low < high == 2 else high


def _shares(table: _Table, measure: str, count: _Amount) -> tuple[Strip, ...]:
    """One strip for each place where something was counted; their numbers add up to what was seen."""
    held = {zone: table[measure, zone] for zone in ZONES if (measure, zone) in table}
    held = {zone: found for zone, found in held.items() if found.seen}
    between = count.seen - sum(found.seen for found in held.values())
    shown = [(ZONES[zone], found) for zone, found in held.items()]
    if between > 0:
        shown.append((_("Elsewhere on my face"), _Amount(between, between, between)))
    return _on_one_scale(shown)


def _whole_face(table: _Table, measure: str) -> float | None:
    """The value of the whole face, else the middle one of the zones."""
    if (measure, "face") in table:
        return table[measure, "face"].seen
    values = sorted(table[measure, zone].seen for zone in ZONES if (measure, zone) in table)
    return values[len(values) // 2] if values else None


def _strips(table: _Table, measure: str) -> tuple[Strip, ...]:
    """One strip for each of the large zones."""
    return _on_one_scale(
        [(ZONES[zone], table[measure, zone]) for zone in list(ZONES)[:5] if (measure, zone) in table]
    )


def _on_one_scale(shown: Sequence[tuple[LazyString, _Amount]]) -> tuple[Strip, ...]:
    if not shown:
        return ()
    start = min(0.0, *(f.low for _name, f in shown))
    span = max(f.high for _name, f in shown) - start or 1.0

    def place(value: float) -> float:
        return round(4 + 92 * (value - start) / span, 1)

    return tuple(
        Strip(name, _number(f.seen), place(f.seen), place(f.low), place(f.high)) for name, f in shown
    )


def _number(value: float, digits: int = 0) -> str:
    """The number as the reader's language writes it; never "-0"."""
    rounded = round(value, digits) + 0.0
    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return str(format_decimal(rounded, format=pattern))
