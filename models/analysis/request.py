"""What the process that measures is asked: the scan that the pictures are of, the words of its overlays."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from models.analysis.words import ENGLISH, Words


class Request(BaseModel):
    """`model_dump_json` and `model_validate_json` carry it into another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scan: UUID
    words: Words = ENGLISH
