"""Receipts, heartbeats, the clinic's key set: what is signed and not sealed."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.wire import cose
from sync.wire.clinic_keys import TYPE as KEY_SET
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.keys import generate_opening_key, generate_signing_key, public_bytes, signing_kid
from sync.wire.receipt import TYPE as RECEIPT
from sync.wire.receipt import Receipt, ReceiptError
from sync.wire.statement import Statement, StatementError, sign_statement
from sync.wire.status import Status
from tests.support.wire import NOON, Party

PARTY = Party()
MESSAGE_ID = uuid4()
SIGNED = PARTY.receipt(MESSAGE_ID, b"envelope").sign(PARTY.receipts)
ROOT = generate_signing_key()
OPENING = generate_opening_key(), generate_opening_key("X25519")
KEYS = ClinicKeys(3, NOON, tuple(key.public for key in OPENING), (public_bytes(PARTY.receipts),))


def test_a_receipt_says_what_was_signed() -> None:
    assert Receipt.verify(SIGNED, PARTY.find_receipt_key) == PARTY.receipt(MESSAGE_ID, b"envelope")


def test_any_changed_byte_of_a_receipt_is_refused() -> None:
    for position in range(len(SIGNED)):
        for bit in range(8):
            changed = bytearray(SIGNED)
            changed[position] ^= 1 << bit
            with pytest.raises(ReceiptError):
                Receipt.verify(bytes(changed), PARTY.find_receipt_key)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_receipt(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        Receipt.verify(data, PARTY.find_receipt_key)


def test_a_receipt_of_another_key_is_refused() -> None:
    thief = generate_signing_key()
    forged = PARTY.receipt(MESSAGE_ID, b"envelope").sign(thief)
    with pytest.raises(ReceiptError, match="not known"):
        Receipt.verify(forged, PARTY.find_receipt_key)
    # The thief names the clinic's key and signs with another.
    header = cose.encode_header(RECEIPT, signing_kid(PARTY.receipts))
    forged = cose.sign(header, PARTY.receipt(MESSAGE_ID, b"").model_dump_json().encode(), thief)
    with pytest.raises(ReceiptError, match="signature"):
        Receipt.verify(forged, PARTY.find_receipt_key)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"status": "stored"}', b"\xff"])
def test_a_well_signed_receipt_that_says_nothing_is_refused(payload: bytes) -> None:
    signed = cose.sign(cose.encode_header(RECEIPT, signing_kid(PARTY.receipts)), payload, PARTY.receipts)
    with pytest.raises(ReceiptError, match="does not say"):
        Receipt.verify(signed, PARTY.find_receipt_key)


def test_a_heartbeat_of_counts_is_signed() -> None:
    key = generate_signing_key()
    status = Status(
        kiosk=uuid4(), epoch=1, counter=9, at=NOON, started_at=NOON, online=True, software="0.1.0",
        clinic_keys=3, waiting=2, sent=1, quarantined=0, reseal=0, fill=0.01,
    )  # fmt: skip
    signed = status.sign(key)
    assert Status.verify(signed, lambda kid: key.public_key()) == status
    with pytest.raises(StatementError):
        Receipt.verify(signed, lambda kid: key.public_key())


def test_a_key_set_is_believed_when_the_root_signed_it() -> None:
    read = ClinicKeys.verify(KEYS.sign(ROOT), ROOT.public_key())
    assert (read.version, read.opening, read.receipt) == (KEYS.version, KEYS.opening, KEYS.receipt)
    with pytest.raises(StatementError):
        ClinicKeys.verify(KEYS.sign(generate_signing_key()), ROOT.public_key())


def test_the_last_opening_key_is_the_one_to_seal_to() -> None:
    assert KEYS.seal_to == OPENING[-1].public
    assert KEYS.opening_key(OPENING[0].kid) == OPENING[0].public
    assert KEYS.opening_key(generate_opening_key().kid) is None


def test_a_receipt_key_is_found_by_its_id() -> None:
    found = KEYS.receipt_key(signing_kid(PARTY.receipts))
    assert found is not None
    assert public_bytes(found) == public_bytes(PARTY.receipts)
    assert KEYS.receipt_key(bytes(16)) is None


@pytest.mark.parametrize("here", [3, 4])
def test_an_old_key_set_does_not_come_back(here: int) -> None:
    with pytest.raises(StatementError, match=f"version {here} is here"):
        ClinicKeys.verify(KEYS.sign(ROOT), ROOT.public_key(), newer_than=here)


def test_a_key_set_that_holds_no_key_is_refused() -> None:
    class Anything(Statement):
        version: int = 4
        issued_at: str = NOON.isoformat()
        opening: tuple[dict[str, str], ...] = ()
        receipt: tuple[bytes, ...] = (bytes(32),)

    short = {"suite": "X25519", "public": bytes(33).hex()}
    for broken in (Anything(), Anything(opening=(short,)), Anything(opening=(short,), receipt=(bytes(40),))):
        with pytest.raises(StatementError):
            ClinicKeys.verify(sign_statement(broken, KEY_SET, ROOT), ROOT.public_key())
