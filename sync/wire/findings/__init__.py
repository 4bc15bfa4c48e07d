"""Findings: every measurement of a Capture, each with value, unit, confidence interval and model hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sync.wire.bounds import (
    MAX_FINDINGS,
    MAX_MARKS,
    WHOLE,
    Amount,
    Id,
    Line,
    Moment,
    Number,
    ShortLine,
    Word,
    unique,
)

SCHEMA_VERSION: Literal[1] = 1
# Since marked spots; Findings without any are still written as version 1, which every clinic reads.
SCHEMA_WITH_SPOTS: Literal[2] = 2
# Since a lesion's flags; spots without any are still written as version 2.
SCHEMA_WITH_FLAGS: Literal[3] = 3
SchemaVersion = Annotated[Literal[1, 2, 3], WHOLE]

Zone = Literal[
    "face",
    "forehead",
    "left_cheek",
    "right_cheek",
    "nose",
    "chin",
    "left_periorbital",
    "right_periorbital",
]
Fraction = Annotated[float, Field(ge=-2.0, le=2.0)]


class _Strict(BaseModel):
    # What an error says ends in logs: it never quotes a measurement.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Finding(_Strict):
    """One measurement in one zone. `low` and `high` bound the 95 % confidence interval, in `unit` (UCUM)."""

    measure: Word
    zone: Zone
    value: Number
    unit: Annotated[ShortLine, Field(max_length=32)]
    low: Number
    high: Number
    model: Line

    @model_validator(mode="after")
    def _interval_holds_value(self) -> Finding:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.measure} in {self.zone} is outside its own interval")
        return self


class Mark(_Strict):
    """One marked place on the face: centre and radius in canonical face-mesh coordinates."""

    kind: Word
    zone: Zone
    x: Fraction
    y: Fraction
    radius: Annotated[float, Field(gt=0, le=1.0)]
    area_mm2: Amount | None = None


class Geometry(_Strict):
    """Places on the canonical face (x right and y down, in half face widths, origin between the eyes)."""

    frame: Literal["canonical-face-1"] = "canonical-face-1"
    marks: Annotated[tuple[Mark, ...], Field(max_length=MAX_MARKS)] = ()


Chance = Annotated[float, Field(ge=0, le=1)]
LesionClass = Literal["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
LESION_CLASSES: tuple[LesionClass, ...] = get_args(LesionClass)


# "unusual": the picture is like few of those that the scores were tested on; "artefact:hair" and the like:
# what lies over the skin in it.
LesionFlag = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(:[a-z][a-z0-9_]*)?$", max_length=64)]


class Abcd(_Strict):
    """Asymmetry (0…1), border (0 a circle, to 1), colours, diameter; null where it was not measurable."""

    asymmetry: Chance | None
    border: Chance | None
    colour_spread: Amount | None
    colours: Annotated[
        tuple[Annotated[ShortLine, Field(max_length=32)], ...], Field(max_length=8), unique()
    ] = ()
    diameter_mm: Amount | None = None


class Lesion(_Strict):
    """What the networks say of one close-up: decision support, never a diagnosis.

    `melanoma_like` lesions are never to be called benign, whatever the likeliest class is. Areas and lengths
    are there only where the close-up's scale is known.
    """

    classes: dict[LesionClass, Chance]
    melanoma: Chance
    melanoma_like: bool
    abcd: Abcd
    area_mm2: Amount | None = None
    model: Line
    outline_model: Line
    flags: Annotated[
        tuple[LesionFlag, ...], Field(max_length=16, exclude_if=lambda flags: not flags), unique()
    ] = ()

    @model_validator(mode="after")
    def _has_every_class(self) -> Lesion:
        if set(self.classes) != set(LESION_CLASSES):
            raise ValueError("a lesion has a score for each of the seven classes")
        return self


class MarkedSpot(_Strict):
    """One spot that was marked for the clinician: where, and its Lesion or why there is none.

    A spot of which no picture could be taken, or none that says anything, is here all the same. `x`, `y` are
    canonical face-mesh coordinates; without them only the zone was named.
    """

    frame: Annotated[str, Field(pattern=r"^closeup[0-9]{0,2}$")]
    zone: Zone
    x: Fraction | None = None
    y: Fraction | None = None
    lesion: Lesion | None = None
    refused: Word | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> MarkedSpot:
        if (self.lesion is None) == (self.refused is None):
            raise ValueError("a marked spot has a lesion, or the reason why it has none")
        return self


class Findings(_Strict):
    """What one scan measured, and which models, calibration and software measured it."""

    # pydantic reserves the plain name; on the wire and in findings.json the key is "schema".
    schema_version: Annotated[SchemaVersion, Field(alias="schema")] = SCHEMA_VERSION
    scan: Id
    measured_at: Moment
    models: Annotated[dict[ShortLine, Line], Field(max_length=64)]
    calibration: Line | None
    software: Line
    quality: Annotated[tuple[ShortLine, ...], Field(max_length=64), unique()] = ()
    findings: Annotated[
        tuple[Finding, ...], Field(max_length=MAX_FINDINGS), unique(lambda each: (each.measure, each.zone))
    ]
    geometry: Geometry = Geometry()
    spots: Annotated[
        tuple[MarkedSpot, ...],
        Field(max_length=16, exclude_if=lambda spots: not spots),
        unique(lambda spot: spot.frame),
    ] = ()

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="after")
    def _version_knows_its_spots(self) -> Findings:
        if self.schema_version < schema_of(self.spots):
            raise ValueError(f"such marked spots need schema {schema_of(self.spots)}")
        return self


def schema_of(spots: Iterable[MarkedSpot]) -> SchemaVersion:
    """The oldest version of Findings that holds `spots`."""
    known = list(spots)
    if any(spot.lesion is not None and spot.lesion.flags for spot in known):
        return SCHEMA_WITH_FLAGS
    return SCHEMA_WITH_SPOTS if known else SCHEMA_VERSION
