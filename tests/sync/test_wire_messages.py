"""Messages: their schemas, the topics they travel on."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sync.wire import topics
from sync.wire.messages import (
    InvalidMessage,
    ReminderDue,
    Result,
    ResultWithFlags,
    ResultWithSpots,
    UnknownSchema,
    Withdraw,
    dump_message,
    parse_message,
    result_kind,
)
from tests.support.wire import NOON, a_result
from tests.support.wire_documents import spotted

JSON = st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
KIOSK = UUID("0b9c0f6e-36f6-4f62-9b6c-0a8f2f7f2f11")


@pytest.mark.parametrize(
    "message",
    [
        a_result(supersedes=uuid4(), patient_reference=None),
        Withdraw(scan=uuid4(), at=NOON, reason="staff"),
        ReminderDue(reminder=uuid4(), patient_reference="p", rule="six-months", due_on=NOON.date()),
    ],
    ids=lambda message: message.kind,
)
def test_a_message_is_read_as_it_was_written(message) -> None:
    text = dump_message(message)
    assert parse_message(message.KIND, message.VERSION, text) == message
    named = json.loads(text)
    assert (named["kind"], named["schema"]) == (message.KIND, 1)


@pytest.mark.parametrize(("kind", "version"), [("result", 4), ("result", 0), ("status", 1), ("", 1)])
def test_an_unknown_schema_is_told_apart(kind: str, version: int) -> None:
    with pytest.raises(UnknownSchema):
        parse_message(kind, version, dump_message(a_result()))


def test_a_message_under_another_kind_is_invalid() -> None:
    with pytest.raises(InvalidMessage):
        parse_message("withdraw", 1, dump_message(a_result()))


@given(st.one_of(st.binary(max_size=200), JSON))
def test_any_bytes_are_an_invalid_message(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        parse_message("result", 1, data)


def test_a_result_holds_the_findings_of_its_own_scan() -> None:
    with pytest.raises(ValidationError, match="another scan"):
        Result(**{**dict(a_result()), "scan": uuid4()})


@pytest.mark.parametrize(
    "change",
    [
        {"captured_at": datetime(2026, 3, 4, 12, 0)},
        {"patient_reference": "Jane Doe"},
        {"patient_reference": ""},
        {"board": ""},
        {"name": "Jane"},
    ],
    ids=str,
)
def test_a_result_that_says_too_little_or_too_much_is_refused(change) -> None:
    with pytest.raises(ValidationError):
        Result(**{**a_result().model_dump(by_alias=False), **change})


def test_a_topic_is_read_as_it_was_made() -> None:
    assert topics.up(KIOSK, "result") == f"clinic/v1/{KIOSK}/up/result"
    assert topics.parse(topics.up(KIOSK, "status")) == (KIOSK, "up", "status")
    assert topics.parse(topics.down(KIOSK, "receipt")) == (KIOSK, "down", "receipt")
    assert topics.shared_up("g", "result") == "$share/g/clinic/v1/+/up/result"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "clinic/v1",
        f"clinic/v2/{KIOSK}/up/result",
        f"clinic/v1/{KIOSK}/up/receipt",
        f"clinic/v1/{KIOSK}/down/result",
        f"clinic/v1/{KIOSK}/sideways/result",
        f"clinic/v1/{KIOSK}/up/result/more",
        f"clinic/v1/{str(KIOSK).upper()}/up/result",
        f"clinic/v1/{KIOSK.hex}/up/result",
        "clinic/v1/+/up/result",
    ],
)
def test_a_topic_of_others_is_refused(topic: str) -> None:
    with pytest.raises(topics.TopicError):
        topics.parse(topic)


def test_a_withdrawal_travels_behind_its_result() -> None:
    assert topics.up_kind("withdraw") == topics.up_kind("result") == "result"
    assert topics.up_kind("reminder") == "reminder"


def test_a_result_with_spots_is_of_the_second_schema_and_one_without_reads_as_ever() -> None:
    plain = a_result()
    assert result_kind(plain.findings) is Result
    assert "spots" not in json.loads(dump_message(plain))["findings"]
    message = parse_message("result", 2, json.dumps(spotted()).encode())
    assert isinstance(message, ResultWithSpots)
    assert result_kind(message.findings) is ResultWithSpots
    assert parse_message("result", 2, dump_message(message)) == message


def test_spots_in_the_first_schema_are_no_result() -> None:
    old = spotted() | {"schema": 1}
    with pytest.raises(InvalidMessage):
        parse_message("result", 1, json.dumps(old).encode())
    old["findings"]["schema"] = 1
    with pytest.raises(InvalidMessage):
        parse_message("result", 1, json.dumps(old).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"lesion": None},
        {"refused": "no_lesion"},
        {"frame": "white"},
        {"zone": "elbow"},
        {"x": 9.0},
        {"refused": "No lesion!"},
    ],
)
def test_a_spot_that_says_two_things_or_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        parse_message("result", 2, json.dumps(spotted(**change)).encode())


def test_a_lesion_has_all_seven_scores() -> None:
    result = spotted()
    del result["findings"]["spots"][0]["lesion"]["classes"]["mel"]
    with pytest.raises(InvalidMessage):
        parse_message("result", 2, json.dumps(result).encode())


def test_a_result_with_flags_is_of_the_third_schema_and_no_older_one_holds_it() -> None:
    flagged = spotted()
    flagged["findings"]["spots"][0]["lesion"]["flags"] = ["unusual", "artefact:hair"]
    with pytest.raises(InvalidMessage):
        parse_message("result", 2, json.dumps(flagged).encode())
    newer = flagged | {"schema": 3, "findings": flagged["findings"] | {"schema": 3}}
    message = parse_message("result", 3, json.dumps(newer).encode())
    assert isinstance(message, ResultWithFlags)
    assert result_kind(message.findings) is ResultWithFlags
    assert parse_message("result", 3, dump_message(message)) == message


def test_a_lesion_without_flags_is_written_as_ever() -> None:
    message = parse_message("result", 2, json.dumps(spotted()).encode())
    assert "flags" not in json.loads(dump_message(message))["findings"]["spots"][0]["lesion"]
