"""Findings: every measurement of a Capture, each with value, unit, confidence interval and model hash."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[1] = 1

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


class Findings(_Strict):
    """What one scan measured, and which models, calibration and software measured it."""

    # pydantic reserves the plain name; on the wire and in findings.json the key is "schema".
    schema_version: Annotated[Literal[1], Field(alias="schema")] = SCHEMA_VERSION
    scan: UUID
    measured_at: datetime
    models: dict[str, str]
    calibration: str | None
    software: str
    quality: tuple[str, ...] = ()
    findings: tuple[Finding, ...]
    geometry: Geometry = Geometry()

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )
