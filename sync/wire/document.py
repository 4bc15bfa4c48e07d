"""Documents: the JSON inside messages and statements, in the one form that every reader reads alike."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel

Document = TypeVar("Document", bound=BaseModel)


class FieldTwice(ValueError):
    """An object has two fields of one name: some readers take the first, some the last."""


def read_document(model: type[Document], data: bytes) -> Document:
    """The `model` that `data` (JSON) holds. Raises FieldTwice, or pydantic's ValidationError.

    Numbers, truths, texts and moments are taken as what they are written as, and for nothing that is like it.
    """
    document = model.model_validate_json(data, strict=True)
    # What stands there as it would be written again has no field twice; that is told in a third of the time.
    if document.model_dump_json().encode() != data.rstrip(b" "):
        # Only now: what follows the schema is not nested so deep that this reader fails.
        json.loads(data, object_pairs_hook=_once)
    return document


def _once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(fields)
    if len(found) < len(fields):
        raise FieldTwice("a field stands here twice")
    return found
