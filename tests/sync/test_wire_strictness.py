"""Strictness: what stands in a document of the wire has one form, and two readers read it alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sync.wire.envelope import EnvelopeError, open_envelope, seal, verify
from sync.wire.messages import InvalidMessage, dump_message, parse_message
from tests.support.wire import NOON, a_result
from tests.support.wire_documents import DOCUMENTS, PARTY, Document, Place, with_other

UUID_FORM = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ARABIC = {ord(str(digit)): chr(0x660 + digit) for digit in range(10)}
by_kind = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.type)


def values_of(data: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything that stands in `data`, each with its place."""
    yield place, data
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in inner:
        yield from values_of(value, (*place, name))


def forms_of(value: Any) -> Iterator[Any]:
    """What means the same as `value` to a reader who is not strict, in another form."""
    if isinstance(value, bool):
        yield from (int(value), str(value).lower(), "yes" if value else "no")
    elif isinstance(value, int | float):
        yield from (str(value), bool(value))
        if isinstance(value, int):
            yield float(value)
    elif value == "2026-03-04T12:00:00Z":
        seconds = int(NOON.timestamp())
        yield from (seconds, float(seconds), 1000 * seconds, str(seconds), f"{seconds}.0", "2026-03-04")
        yield from ("2026-03-04T12:00:00", "2026-03-04 12:00:00Z", "2026-03-04T12:00Z", "20260304T120000Z")
        yield from ("2026-03-04T12:00:00+0000", "2026-03-04T12:00:00z", " 2026-03-04T12:00:00Z")
        yield from ("2026-03-04T12:00:00.0000001Z", "2026-03-04T12:00:00Z\n", "\u0662026-03-04T12:00:00Z")
    elif value == "2026-03-04":
        yield from (20516, 1772582400, "1772582400", "2026-03-04T00:00:00Z", "2026-3-4", "20260304")
    elif isinstance(value, str) and UUID_FORM.fullmatch(value):
        plain = value.replace("-", "")
        yield from (plain, value.upper(), f"{{{value}}}", f"urn:uuid:{value}", f"{value}\n", f" {value}")
        yield from (f"{plain[:16]}-{plain[16:]}", value.translate(ARABIC))


@by_kind
def test_a_moment_a_number_a_truth_and_a_uuid_have_one_form(document: Document) -> None:
    # A number that may have a fraction has none where it is a whole one.
    fractions = ("value", "low", "high", "x", "y", "radius", "area_mm2", "fill", "diameter_mm")
    assert document.is_read()
    taken = [
        (place, other)
        for place, value in values_of(document.data)
        for other in forms_of(value)
        if not (isinstance(other, float) and place[-1] in fractions)
        if document.is_read(with_other(document.data, place, other))
    ]
    assert taken == []


@pytest.mark.parametrize("text", ["2026-03-04T12:00:00.5Z", "2026-03-04T13:00:00.000000+01:00"])
def test_a_moment_may_have_a_fraction_and_a_zone_of_its_own(text: str) -> None:
    document = DOCUMENTS[0]
    assert document.is_read(with_other(document.data, ("captured_at",), text))


@by_kind
def test_nothing_that_is_listed_stands_there_twice(document: Document) -> None:
    lists = [(place, value) for place, value in values_of(document.data) if isinstance(value, list) and value]
    # Two spots of the face can look alike.
    doubled = {place: [*value, value[-1]] for place, value in lists if place[-1] != "marks"}
    assert [
        place for place, value in doubled.items() if document.is_read(with_other(document.data, place, value))
    ] == []


@by_kind
def test_no_field_of_an_object_stands_there_twice(document: Document) -> None:
    text = json.dumps(document.data)
    objects = [value for _, value in values_of(document.data) if isinstance(value, dict) and value]
    for each in map(json.dumps, objects):
        name, _, _ = each.partition(":")
        assert text.count(each) >= 1
        assert not document.is_read(text.replace(each, f"{name}: 0, {each[1:]}", 1)), name


def test_a_message_as_a_kiosk_writes_it_is_read_once_and_with_a_field_twice_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is padded is so too."""
    message = a_result()
    text = dump_message(message)
    with monkeypatch.context() as patch:
        patch.setattr("sync.wire.document.json.loads", None)
        assert parse_message(message.KIND, message.VERSION, text + b"  ") == message
    for name in (b'"scan"', b'"measure"'):
        value = text.partition(name)[2].partition(b",")[0]
        twice = text.replace(name + value, name + value + b"," + name + value, 1)
        with pytest.raises(InvalidMessage, match="twice"):
            parse_message(message.KIND, message.VERSION, twice)


def test_a_measure_has_one_value_in_a_zone() -> None:
    document = DOCUMENTS[0]
    findings = document.data["findings"]["findings"]
    again = findings[0] | {"value": 0.5, "low": 0.0, "high": 1.0}
    place = ("findings", "findings")
    assert not document.is_read(with_other(document.data, place, [*findings, again]))
    assert document.is_read(with_other(document.data, place, [*findings, again | {"zone": "chin"}]))


def test_what_is_refused_is_an_invalid_message_that_says_where_and_not_what() -> None:
    message = a_result()
    twice = message.model_copy(
        update={
            "findings": message.findings.model_copy(update={"findings": message.findings.findings[:1] * 2})
        }
    )
    header = PARTY.header(message)
    verified = verify(seal(twice, header, PARTY.signing, PARTY.opening.public), PARTY.find_key)
    with pytest.raises(EnvelopeError) as refused:
        open_envelope(verified, [PARTY.opening])
    assert refused.value.reason == "invalid_message"
    assert str(refused.value) == "A message 'result' does not follow its schema, at: findings.findings."
