"""The plain words of the clinic's pages: measures, units, readings, times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from sync.clinic.store.tables import FindingRow


@dataclass(frozen=True)
class Measure:
    """How one measure is written: its name, what it means, how many decimals."""

    name: str
    meaning: str
    decimals: int


MEASURES = {
    "ita": Measure(
        "Skin tone angle (ITA)", "Lightness against yellowness; a larger angle is lighter skin.", 1
    ),
    "melanin_index": Measure("Melanin index", "How much pigment darkens the skin; higher is more.", 1),
    "erythema_index": Measure("Erythema index", "How much blood reddens the skin; higher is more.", 1),
    "redness": Measure("Red area", "The part of the zone that is redder than the skin around it.", 1),
    "spot_area": Measure("Spot area", "All dark spots of the zone together.", 1),
    "spot_count": Measure("Spots", "Dark spots counted in the zone.", 0),
    "acne_count": Measure(
        "Acne lesions", "Counted by a network, whatever their kind; a few are counted on clear skin too.", 0
    ),
    "acne_severity": Measure(
        "Acne severity, 0 to 3",
        "By the lesions of every kind that one picture shows. Inflamed ones are not told apart, nor halves of"
        " the face, so this is not Hayashi's grade.",
        0,
    ),
}

# Measures that add up, so that the whole face has far more than any zone.
TOTALS = ("spot_area", "spot_count", "acne_count")

# What a picture of each severity shows.
ACNE_SEVERITIES = ("up to 5 lesions", "6 to 20 lesions", "21 to 50 lesions", "more than 50 lesions")

ZONES = {
    "face": "Whole face",
    "forehead": "Forehead",
    "right_periorbital": "Around the right eye",
    "left_periorbital": "Around the left eye",
    "nose": "Nose",
    "right_cheek": "Right cheek",
    "left_cheek": "Left cheek",
    "chin": "Chin",
}

# UCUM as people write it; a unit that is not here is shown as it came.
UNITS = {"deg": "°", "1": "", "mm2": "mm²", "mm": "mm", "cm2": "cm²", "%": "%", "{spots}": "", "{count}": ""}

QUALITY = {
    "uncalibrated_scale": "The scale is taken from the iris, not calibrated: areas are approximate.",
    "implausible_scale": "The scale of the picture does not fit the size of any face: it was not used.",
    "low_resolution": "The picture is coarse: small spots may be missing.",
    "soft_focus": "The picture is a little soft: small spots may be missing.",
    "overexposed": "Parts of the skin are overexposed: their colour is not reliable.",
    "uncalibrated_colour": "The colours are those of a camera that was not calibrated.",
    "implausible_colour": "Colours that skin cannot have: colour was not measured there.",
    "spots_not_counted": "The picture cannot show spots well enough to count them; there may be some.",
    "redness_not_measured": "Redness cannot be told from melanin on this skin yet, so it was not measured.",
    "acne_not_counted": "The face is too small in the picture to count acne lesions.",
    "acne_in_polarised_light": "Acne lesions were counted in polarised light, new to the network.",
    "no_cross_frame": "No picture without shine was taken: colours and spots are less sure.",
    "no_dark_frame": "The pictures were taken in the light of the room, which is in their colours.",
    "no_uv365_frame": "No picture under UV light was taken.",
    "clock_unsure": "Nothing vouched for the kiosk's clock: the time of the pictures may be wrong.",
}
# What is missing without harm to any number that is shown.
HARMLESS = ("no_uv365_frame", "acne_not_counted")

# Upper bounds of the ITA classes, after Del Bino (in degrees).
ITA_CLASSES = (
    (-30.0, "dark"),
    (10.0, "brown"),
    (28.0, "tan"),
    (41.0, "intermediate"),
    (55.0, "light"),
    (float("inf"), "very light"),
)


# How the highest of some zones is called, where not "highest".
_HIGHEST = {"ita": "lightest", "spot_count": "most", "acne_count": "most"}


def measure(name: str) -> Measure:
    """How `name` is written; a measure that this version does not know keeps its own name."""
    return MEASURES.get(name) or Measure(name.replace("_", " ").capitalize(), "", 2)


def zone(name: str) -> str:
    return ZONES.get(name) or name.replace("_", " ").capitalize()


def unit(code: str) -> str:
    return UNITS.get(code, code)


def quality(flag: str) -> str:
    """A quality flag as a sentence; one that this version does not know keeps its own name."""
    place = flag.removesuffix("_hidden")
    if place != flag and place in ZONES:
        return f"Too little skin to measure: {ZONES[place].lower()}."
    if flag.startswith("no_") and flag.endswith("_frame") and flag not in QUALITY:
        return f"No picture under the light '{flag[3:-6]}' was taken."
    return QUALITY.get(flag) or sentence(flag.replace("_", " ")) + "."


def caveats(flags: Sequence[str]) -> list[str]:
    """The flags that ask for care, as sentences."""
    return [quality(flag) for flag in flags if flag not in HARMLESS]


def number(name: str, value: float) -> str:
    """The value with the decimals of its measure, a true minus sign, and no minus zero."""
    decimals = measure(name).decimals
    text = f"{round(value, decimals) + 0.0:,.{decimals}f}"
    return text.replace(",", "\N{THIN SPACE}").replace("-", "\N{MINUS SIGN}")


def interval(name: str, low: float, high: float) -> str:
    """Both ends of an interval, of which the numbers hold all; empty where it has no width."""
    if low == high:
        return ""
    unit = Decimal(1).scaleb(-measure(name).decimals)
    ends = (Decimal(repr(low)).quantize(unit, ROUND_FLOOR), Decimal(repr(high)).quantize(unit, ROUND_CEILING))
    return " to ".join(number(name, float(end)) for end in ends)


def with_unit(name: str, value: float, code: str) -> str:
    """The number and its unit as one piece of text."""
    text, sign = number(name, value), unit(code)
    if not sign:
        return text
    return text + sign if sign == "°" else f"{text}\N{NO-BREAK SPACE}{sign}"


def reading(rows: Sequence[FindingRow]) -> str:
    """One measure in plain words: its class where one is published, else where on the face it is highest.

    Zones are told apart only where their confidence intervals do not meet. Where nothing was seen, or all of
    it in one zone, that is said as what it is, of what was seen: others may hold what nobody saw.
    """
    if not rows:
        return ""
    if rows[0].measure == "ita":
        whole = next((row for row in rows if row.zone == "face"), None)
        if whole is not None:
            classes = [_ita_class(whole.low), _ita_class(whole.high)]
            text = classes[0] if classes[0] == classes[1] else f"{classes[0]} to {classes[1]}"
            return text.capitalize()
    if rows[0].measure == "acne_severity":
        grade = min(max(0, round(rows[0].value)), len(ACNE_SEVERITIES) - 1)
        return sentence(ACNE_SEVERITIES[grade])
    zones = sorted((row for row in rows if row.zone != "face"), key=lambda row: row.value)
    if len(zones) < 2:
        return ""
    lowest, highest = zones[0], zones[-1]
    if highest.value == 0:
        return "None seen in any zone"
    if _is_only_in(highest, rows):
        return f"Seen only {_where(highest.zone)}"
    if lowest.high >= highest.low:
        return "No zone stands out"
    word = _HIGHEST.get(highest.measure, "highest")
    return f"{word.capitalize()} {_where(highest.zone)}"


def _is_only_in(place: FindingRow, rows: Sequence[FindingRow]) -> bool:
    """Whether all that was found on the face lies in this one zone (areas are rounded)."""
    others = [row.value for row in rows if row.zone not in ("face", place.zone)]
    face = next((row.value for row in rows if row.zone == "face"), place.value)
    return place.measure in TOTALS and not any(others) and face <= 1.01 * place.value


def when(moment: datetime, today: datetime) -> str:
    """The moment as people say it: "today 14:05", "yesterday 09:30", "3 Mar 14:05", "3 Mar 2024"."""
    local, current = _local(moment), _local(today)
    clock = f"{local:%H:%M}"
    days = (current.date() - local.date()) // timedelta(days=1)
    if days == 0:
        return f"today {clock}"
    if days == 1:
        return f"yesterday {clock}"
    if local.year == current.year:
        return f"{local.day} {local:%b} {clock}"
    return f"{local.day} {local:%b %Y}"


def sentence(text: str) -> str:
    """The text with a capital at its beginning, the rest as it is."""
    return text[:1].upper() + text[1:]


def full_time(moment: datetime) -> str:
    """The moment in full, in the clinic's time zone."""
    return f"{_local(moment):%Y-%m-%d %H:%M:%S UTC%z}"


def counted(count: int, thing: str) -> str:
    """The number and the noun, in the plural unless there is one: "1 zone", "3 zones"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _local(moment: datetime) -> datetime:
    """The moment in the clinic's time zone; at the ends of the calendar, which no zone reaches, as it is."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):
        return moment


def _ita_class(value: float) -> str:
    return next(name for bound, name in ITA_CLASSES if value <= bound)


def _where(name: str) -> str:
    text = zone(name)
    return text[0].lower() + text[1:] if text.startswith("Around") else f"on the {text.lower()}"
