"""Bounds: each moment, number, text and list of the wire is taken up to its bound, and refused beyond it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from sync.wire.clinic_keys import TYPE as KEY_SET
from sync.wire.clinic_keys import _KeySet
from sync.wire.document import read_document
from sync.wire.messages import _KINDS
from sync.wire.receipt import TYPE as RECEIPT
from sync.wire.receipt import Receipt
from sync.wire.statement import Statement
from sync.wire.status import TYPE as STATUS
from sync.wire.status import Status
from sync.wire.waiver import TYPE as WAIVER
from sync.wire.waiver import ResearchWaiver
from tests.support.wire_documents import DOCUMENTS, Document, Place, with_other

STATEMENTS: dict[str, type[Statement]] = {
    KEY_SET: _KeySet,
    RECEIPT: Receipt,
    STATUS: Status,
    WAIVER: ResearchWaiver,
}
MODELS: tuple[type[BaseModel], ...] = (*_KINDS, *STATEMENTS.values())
MOMENTS: dict[str, tuple[type[date], timedelta]] = {
    "date-time": (datetime, timedelta(microseconds=1)),
    "date": (date, timedelta(days=1)),
}
INTERVAL = ("low", "value", "high")
# What pydantic calls it where only the bound is passed: the form of what stands there is as it must be.
BEYOND = {
    *(f"{side}_than{equal}" for side in ("greater", "less") for equal in ("", "_equal")),
    *(f"{kind}too_{side}" for kind in ("", "string_", "bytes_") for side in ("long", "short")),
    "finite_number",
}
Schema = dict[str, Any]


def model_of(document: Document) -> type[BaseModel]:
    if document.type in STATEMENTS:
        return STATEMENTS[document.type]
    return next(
        kind for kind in _KINDS if (document.type, document.data["schema"]) == (kind.KIND, kind.VERSION)
    )


class Field(NamedTuple):
    """A field by the name of its model, such as "Finding.value", with its schema; "[]" is any item of it."""

    name: str
    schema: Schema
    place: Place = ()
    value: Any = None


def fields_of(model: type[BaseModel]) -> Iterator[Field]:
    """Every field of `model` and of what is in it."""
    whole = model.model_json_schema()

    def within(field: Field) -> Iterator[Field]:
        for _, inner in parts_of(whole, field):
            yield inner
            yield from within(inner)

    yield from within(Field(model.__name__, whole))


def fields_in(document: Document) -> dict[str, Field]:
    """The first of each field that stands in the document."""
    whole = model_of(document).model_json_schema()
    found: dict[str, Field] = {}

    def look(field: Field) -> None:
        for name, inner in parts_of(whole, field):
            places = places_in(field.value) if name is None else [name]
            for place in places:
                if (value := inside(field.value, place)) not in (None, [], {}):
                    here = inner._replace(place=(*field.place, place), value=value)
                    found.setdefault(here.name, here)
                    look(here)

    look(Field(model_of(document).__name__, whole, (), document.data))
    return found


def parts_of(whole: Schema, field: Field) -> Iterator[tuple[str | None, Field]]:
    """What is in a field, by its name in there; None where any may stand there."""
    schema = field.schema
    for name, part in schema.get("properties", {}).items():
        yield name, Field(f"{schema['title']}.{name}", read(whole, part))
    anys = [schema.get("items"), schema.get("additionalProperties")]
    anys += schema.get("patternProperties", {}).values()
    yield from ((None, Field(f"{field.name}[]", read(whole, part))) for part in anys if part)


def read(whole: Schema, part: Schema) -> Schema:
    """A schema itself: not where it stands, and not that null may be there instead."""
    for each in part.get("anyOf", ()):
        if each != {"type": "null"}:
            part = each
    if "$ref" in part:
        part = whole["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def places_in(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def inside(value: Any, place: Any) -> Any:
    return value.get(place) if isinstance(value, dict) else value[place]


def unbounded(schema: Schema) -> bool:
    """Whether anything of its type may stand there, however large."""
    if {"enum", "const"} & set(schema) or schema.get("format") == "uuid":
        return False
    match schema["type"]:
        case "number" | "integer":
            sides = ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"})
            return not all(side & set(schema) for side in sides)
        case "string" if schema.get("format") in ("date", "date-time"):
            return not {"ge", "lt"} <= set(schema)
        case "string":
            # A text without a length is one of a pattern that repeats nothing without end.
            pattern = schema.get("pattern", ".*")
            return "maxLength" not in schema and any(sign in pattern for sign in ("*", "+", ",}"))
        case "array":
            return "maxItems" not in schema
        case "object" if "properties" not in schema:
            names = schema.get("propertyNames", {})
            return "enum" not in names and not ("maxProperties" in schema and "maxLength" in names)
    return False


def edges_of(field: Field) -> Iterator[tuple[Any, Any]]:
    """At each bound the last that may stand there, and the first that may not."""
    schema, value = field.schema, field.value
    if schema["type"] in ("number", "integer"):
        yield from number_edges(schema, value)
    elif "lt" in schema:
        kind, step = MOMENTS[schema["format"]]
        first, end = (kind.fromisoformat(schema[side].replace("Z", "+00:00")) for side in ("ge", "lt"))
        yield first.isoformat(), (first - step).isoformat()
        yield (end - step).isoformat(), end.isoformat()
    sizes = {"string": "Length", "array": "Items", "object": "Properties"}
    size = sizes.get(schema["type"], "")
    if (least := schema.get(f"min{size}")) is not None:
        yield sized(field, least), sized(field, least - 1)
    if (most := schema.get(f"max{size}")) is not None:
        yield sized(field, most), sized(field, most + 1)
    if (longest := schema.get("propertyNames", {}).get("maxLength")) is not None:
        yield {"n" * longest: value[next(iter(value))]}, {"n" * (longest + 1): value[next(iter(value))]}


def number_edges(schema: Schema, value: Any) -> Iterator[tuple[Any, Any]]:
    def beside(bound: Any, direction: int) -> Any:
        whole = schema["type"] == "integer"
        return bound + direction if whole else math.nextafter(bound, direction * math.inf)

    for name, outward in (("minimum", -1), ("maximum", 1)):
        if name in schema:
            yield schema[name], beside(schema[name], outward)
        if (bound := schema.get(f"exclusive{name.capitalize()}")) is not None:
            yield beside(bound, -outward), bound
    if schema["type"] == "number":
        yield from ((value, odd) for odd in (math.inf, -math.inf, math.nan))


def sized(field: Field, size: int) -> Any:
    """What stands in the field, or is like it, of this size."""
    value = field.value
    if field.schema.get("format") == "binary":
        return bytes(size).hex()
    if isinstance(value, str):
        more = "-latnlatn" if field.name == "Consent.language" else value[-1]
        return (value + size * more)[:size]
    if isinstance(value, dict):
        return {f"n{number}": value[next(iter(value))] for number in range(size)}
    return [another(field.name, value[0], number) for number in range(size)]


def another(name: str, item: Any, number: int) -> Any:
    """An item that is like this one, and no other's twin."""
    match name:
        case "WithdrawMessages.messages":
            return str(UUID(int=number))
        case "_KeySet.receipt":
            return number.to_bytes(32, "big").hex()
        case "_KeySet.opening":
            return item | {"public": number.to_bytes(32, "big").hex()}
        case "Findings.findings":
            return item | {"measure": f"measure_{number}"}
        case "Findings.spots":
            return item | {"frame": f"closeup{number}"}
    return f"{item}_{number}" if isinstance(item, str) else item


def with_edge(document: Document, field: Field, edge: Any) -> dict[str, Any]:
    """The document with `edge` in the field; an interval and its value go together."""
    data, (*above, last) = with_other(document.data, field.place, edge), field.place
    for other in INTERVAL if field.name.startswith("Finding.") and last in INTERVAL else ():
        data = with_other(data, (*above, other), edge)
    return data


def refusals(document: Document, data: dict[str, Any]) -> list[tuple[Place, str]]:
    """Where `data` is refused, and as what."""
    try:
        read_document(model_of(document), json.dumps(data).encode())
    except ValidationError as error:
        return [(each["loc"], each["type"]) for each in error.errors(include_url=False)]
    return []


def test_no_moment_number_text_or_list_of_the_wire_is_without_a_bound() -> None:
    fields = {field.name: field.schema for model in MODELS for field in fields_of(model)}
    assert len(fields) > 90
    assert [name for name, schema in fields.items() if unbounded(schema)] == []


def test_every_field_of_the_wire_stands_in_one_of_the_documents() -> None:
    assert {kind.__name__ for kind in Statement.__subclasses__()} == {
        kind.__name__ for kind in STATEMENTS.values()
    }
    fields = {field.name for model in MODELS for field in fields_of(model)}
    assert fields - {name for document in DOCUMENTS for name in fields_in(document)} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: model_of(each).__name__)
def test_each_field_is_taken_at_its_bound_and_refused_just_beyond_it(document: Document) -> None:
    assert refusals(document, document.data) == []
    wrong, tried = [], 0
    for field in fields_in(document).values():
        for last, beyond in edges_of(field):
            tried += 1
            if refused := refusals(document, with_edge(document, field, last)):
                wrong.append(f"{field.name} is refused at its bound, {last!r:.60}: {refused}")
            refused = refusals(document, with_other(document.data, field.place, beyond))
            places = {place[: len(field.place)] for place, _ in refused}
            if places != {field.place} or not {kind for _, kind in refused} <= BEYOND:
                wrong.append(f"{field.name} is not refused for {beyond!r:.60} alone: {refused}")
    assert tried > 1
    assert wrong == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number"},
        {"type": "number", "minimum": 0},
        {"type": "integer", "exclusiveMaximum": 9},
        {"type": "string"},
        {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"},
        {"type": "string", "format": "date-time", "ge": "1970-01-01T00:00:00Z"},
        {"type": "array", "items": {"type": "boolean"}},
        {"type": "object", "additionalProperties": {"type": "boolean"}, "propertyNames": {"maxLength": 9}},
    ],
    ids=json.dumps,
)
def test_a_field_without_a_bound_would_be_found(schema: Schema) -> None:
    assert unbounded(schema)
