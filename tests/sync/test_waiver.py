"""A clinic's waiver: what is signed is what is read, and nothing else is believed."""

from __future__ import annotations

from datetime import date
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sync.wire.clinic_keys import TYPE as KEY_SET
from sync.wire.keys import generate_signing_key
from sync.wire.statement import StatementError, sign_statement
from sync.wire.waiver import ResearchWaiver
from tests.support.wire import NOON

KEY = generate_signing_key()
WAIVER = ResearchWaiver(
    kiosk=uuid4(),
    networks={"acne": bytes(32), "parsing": bytes(range(32))},
    by="Dr. Example",
    reason="vote 7/2026",
    at=NOON,
    until=date(2027, 1, 31),
)
SIGNED = WAIVER.sign(KEY)


def test_a_waiver_says_what_was_signed() -> None:
    assert ResearchWaiver.verify(SIGNED, KEY.public_key()) == WAIVER


def test_any_changed_byte_of_a_waiver_is_refused() -> None:
    for position in range(len(SIGNED)):
        for bit in range(8):
            changed = bytearray(SIGNED)
            changed[position] ^= 1 << bit
            with pytest.raises(StatementError):
                ResearchWaiver.verify(bytes(changed), KEY.public_key())


@given(st.binary(max_size=300))
def test_any_bytes_are_no_waiver(data: bytes) -> None:
    with pytest.raises(StatementError):
        ResearchWaiver.verify(data, KEY.public_key())


def test_a_waiver_of_another_key_or_another_statement_of_this_one_is_refused() -> None:
    with pytest.raises(StatementError):
        ResearchWaiver.verify(WAIVER.sign(generate_signing_key()), KEY.public_key())
    with pytest.raises(StatementError):
        ResearchWaiver.verify(sign_statement(WAIVER, KEY_SET, KEY), KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"networks": {}},
        {"networks": {"acne": b"short"}},
        {"by": ""},
        {"reason": "two\nlines"},
        {"until": "never"},
    ],
    ids=str,
)
def test_a_waiver_without_networks_a_name_a_reason_or_an_end_is_none(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ResearchWaiver.model_validate(WAIVER.model_dump() | change)
