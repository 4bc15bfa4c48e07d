"""What the page of one scan shows of its marked spots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sync.clinic.web import words
from sync.clinic.web.drawn_face import MARGIN_X, DrawnFace, place
from sync.wire.findings import Lesion, LesionClass, MarkedSpot, canonical_face

# The lesion classes in plain words; none of them calls a lesion harmless.
CLASSES: dict[LesionClass, str] = {
    "mel": "Melanoma",
    "bcc": "Basal cell carcinoma",
    "akiec": "Actinic keratosis, Bowen's disease",
    "nv": "Melanocytic naevus",
    "bkl": "Keratosis-like (seborrhoeic, lentigo)",
    "df": "Dermatofibroma",
    "vasc": "Vascular lesion",
}
REFUSED = {
    "not_skin": "The close-up does not look like dermoscopy of skin.",
    "no_lesion": "No lesion stands out in the close-up.",
    "too_dark": "The close-up is too dark.",
    "too_small": "The close-up is too small.",
    "too_blurred": "The close-up is blurred.",
    "close_up_lost": "The close-up camera gave no picture.",
    "not_kept": "The kiosk could not keep the close-up.",
}
# What lies over the skin in the close-up, by the flags of its lesion.
ARTEFACTS = {
    "artefact:hair": "hair",
    "artefact:gel": "gel bubbles",
    "artefact:ruler": "a ruler",
    "artefact:ink": "pen ink",
    "artefact:sticker": "a sticker",
}
UNUSUAL = "unlike most pictures that these scores were tested on: trust them less"
BAR = 100.0
_SIDE = 16.0


@dataclass(frozen=True)
class Score:
    """One class with its score as text, and as the length of a bar."""

    name: str
    text: str
    bar: float
    leads: bool


@dataclass(frozen=True)
class SpotView:
    """One marked spot: `whole` where only its zone was named, `first` if it is to be looked at first.

    `refused` says why it is not measured, which is no reason not to look at it.
    """

    number: int
    place: str
    x: float
    y: float
    whole: bool
    first: bool
    scores: tuple[Score, ...]
    facts: tuple[tuple[str, str], ...]
    refused: str | None
    models: tuple[str, ...]


class SpotsView:
    """The marked spots of a scan: those to look at first, those not measured, then the others."""

    def __init__(self, spots: Sequence[MarkedSpot]) -> None:
        views = [_view(number, spot) for number, spot in enumerate(spots, 1)]
        self.spots = sorted(views, key=lambda view: (not view.first, not view.refused))
        self.first = sum(view.first for view in views)
        self.unmeasured = [view.number for view in views if view.refused]
        self.face = DrawnFace((), ())
        self.left, self.width = MARGIN_X - _SIDE, DrawnFace.width - 2 * (MARGIN_X - _SIDE)

    def __len__(self) -> int:
        return len(self.spots)


def _view(number: int, spot: MarkedSpot) -> SpotView:
    lesion, zone = spot.lesion, spot.zone
    pointed_at = None if spot.x is None or spot.y is None else (spot.x, spot.y)
    x, y = place(pointed_at or (canonical_face.inside(zone) if zone in canonical_face.ZONES else (0.0, 0.5)))
    return SpotView(
        number=number,
        place=words.zone(zone) if zone != "face" else "Between the named zones",
        x=x,
        y=y,
        whole=pointed_at is None,
        first=lesion is not None and lesion.melanoma_like,
        scores=_scores(lesion) if lesion else (),
        facts=_facts(lesion) if lesion else (),
        refused=None if lesion else REFUSED.get(str(spot.refused), "The close-up cannot be measured."),
        models=(lesion.model, lesion.outline_model) if lesion else (),
    )


def _scores(lesion: Lesion) -> tuple[Score, ...]:
    """The classes in their order; in a melanoma-like lesion none stands out but melanoma."""
    classes = lesion.classes
    best = classes["mel"] if lesion.melanoma_like else max(classes.values())
    return tuple(
        Score(name, f"{classes[code]:.2f}", round(BAR * classes[code], 1), classes[code] == best)
        for code, name in CLASSES.items()
    )


def _facts(lesion: Lesion) -> tuple[tuple[str, str], ...]:
    shape = lesion.abcd
    found = {
        "Asymmetry": (shape.asymmetry, "{:.2f} of 1"),
        "Border": (shape.border, "{:.2f} (0 is a circle, 1 ragged)"),
        "Colour spread": (shape.colour_spread, "{:.1f} CIELAB units"),
        "Diameter": (shape.diameter_mm, "{:.1f} mm"),
        "Area": (lesion.area_mm2, "{:.1f} mm²"),
    }
    facts = [("Picture", UNUSUAL)] if "unusual" in lesion.flags else []
    if covers := [words for flag, words in ARTEFACTS.items() if flag in lesion.flags]:
        facts.append(("Over the skin", ", ".join(covers)))
    facts += [(name, text.format(value)) for name, (value, text) in found.items() if value is not None]
    if lesion.area_mm2 is None:
        facts.append(("Size", "not measured: this kiosk's close-up camera has no scale"))
    if shape.colours:
        facts.append(("Colours", ", ".join(shape.colours)))
    return tuple(facts)
