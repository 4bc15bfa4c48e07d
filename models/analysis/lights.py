"""The lights that the measures read: a kiosk lights these, and no other shines at a patient for nothing."""

from __future__ import annotations

from collections.abc import Mapping

_SHOWN = frozenset(("white",))
_SHOWN_AND_MEASURED = frozenset(("white", "cross"))

# Every measure made of a Capture, with the lights whose frames it reads. All of them have the face and
# its zones from white light. A stored folder that lacks one of these is read as well as it can be, with a
# flag; no kiosk lights another lamp to be that substitute.
READS: dict[str, frozenset[str]] = {
    "ita": _SHOWN_AND_MEASURED,
    "melanin_index": _SHOWN_AND_MEASURED,
    "erythema_index": _SHOWN_AND_MEASURED,
    "redness": _SHOWN_AND_MEASURED,
    "spot_count": _SHOWN_AND_MEASURED,
    "spot_area": _SHOWN_AND_MEASURED,
    "acne_count": _SHOWN,
    "acne_severity": _SHOWN,
}


def lights_read(measures: Mapping[str, frozenset[str]] = READS) -> frozenset[str]:
    """Every light that one of `measures` reads."""
    return frozenset[str]().union(*measures.values())
