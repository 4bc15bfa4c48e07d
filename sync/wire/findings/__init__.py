"""Findings: every measurement of a Capture, each with value, unit, confidence interval and model hash."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[1] = 1
# Since marked spots; Findings without any are still written as version 1, which every clinic reads.
SCHEMA_WITH_SPOTS: Literal[2] = 2

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
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Finding(_Strict):
    """One measurement in one zone. `low` and `high` bound the 95 % confidence interval, in `unit` (UCUM)."""

    measure: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
    zone: Zone
    value: float
    unit: Annotated[str, Field(max_length=32)]
    low: float
    high: float
    model: Annotated[str, Field(max_length=128)]

    @model_validator(mode="after")
    def _interval_holds_value(self) -> Finding:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.measure} in {self.zone}: {self.value} is outside {self.low}…{self.high}")
        return self


class Mark(_Strict):
    """One marked place on the face: centre and radius in canonical face-mesh coordinates."""

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
    zone: Zone
    x: Fraction
    y: Fraction
    radius: Annotated[float, Field(gt=0, le=1.0)]
    area_mm2: Annotated[float, Field(ge=0)] | None = None


class Geometry(_Strict):
    """Places on the canonical face (x right and y down, in half face widths, origin between the eyes)."""

    frame: Literal["canonical-face-1"] = "canonical-face-1"
    marks: tuple[Mark, ...] = ()


Chance = Annotated[float, Field(ge=0, le=1)]
LesionClass = Literal["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
LESION_CLASSES: tuple[LesionClass, ...] = get_args(LesionClass)


class Abcd(_Strict):
    """Asymmetry (0…1), border (0 a circle, to 1), colours, diameter; null where it was not measurable."""

    asymmetry: Chance | None
    border: Chance | None
    colour_spread: Annotated[float, Field(ge=0)] | None
    colours: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=8)] = ()
    diameter_mm: Annotated[float, Field(ge=0)] | None = None


class Lesion(_Strict):
    """What the networks say of one close-up: decision support, never a diagnosis.

    `melanoma_like` lesions are never to be called benign, whatever the likeliest class is. Areas and lengths
    are there only where the close-up's scale is known.
    """

    classes: dict[LesionClass, Chance]
    melanoma: Chance
    melanoma_like: bool
    abcd: Abcd
    area_mm2: Annotated[float, Field(ge=0)] | None = None
    model: Annotated[str, Field(max_length=128)]
    outline_model: Annotated[str, Field(max_length=128)]

    @model_validator(mode="after")
    def _has_every_class(self) -> Lesion:
        if set(self.classes) != set(LESION_CLASSES):
            raise ValueError("a lesion has a score for each of the seven classes")
        return self


class MarkedSpot(_Strict):
    """One spot that was marked for the clinician: where, and its Lesion or why there is none.

    `x`, `y` are canonical face-mesh coordinates; without them only the zone was named.
    """

    frame: Annotated[str, Field(pattern=r"^closeup[0-9]{0,2}$")]
    zone: Zone
    x: Fraction | None = None
    y: Fraction | None = None
    lesion: Lesion | None = None
    refused: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> MarkedSpot:
        if (self.lesion is None) == (self.refused is None):
            raise ValueError("a marked spot has a lesion, or the reason why it has none")
        return self


class Findings(_Strict):
    """What one scan measured, and which models, calibration and software measured it."""

    # pydantic reserves the plain name; on the wire and in findings.json the key is "schema".
    schema_version: Annotated[Literal[1, 2], Field(alias="schema")] = SCHEMA_VERSION
    scan: UUID
    measured_at: datetime
    models: dict[str, str]
    calibration: str | None
    software: str
    quality: tuple[str, ...] = ()
    findings: tuple[Finding, ...]
    geometry: Geometry = Geometry()
    spots: Annotated[tuple[MarkedSpot, ...], Field(max_length=16, exclude_if=lambda spots: not spots)] = ()

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )

    @model_validator(mode="after")
    def _version_knows_its_spots(self) -> Findings:
        if self.spots and self.schema_version < SCHEMA_WITH_SPOTS:
            raise ValueError(f"marked spots need schema {SCHEMA_WITH_SPOTS}")
        return self
