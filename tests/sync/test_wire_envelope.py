"""Envelopes: who can make, move, change or read one."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from uuid import uuid4

import cbor2
import cwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.wire import cose, messages
from sync.wire.bounds import END_OF_MOMENTS, FIRST_MOMENT, MAX_MARKS
from sync.wire.envelope import (
    MAX_ENVELOPE,
    PAD_STEP,
    TYPE,
    EnvelopeError,
    open_envelope,
    read_header,
    seal,
    verify,
)
from sync.wire.findings import Geometry, Mark
from sync.wire.keys import generate_opening_key, generate_signing_key, signing_kid
from sync.wire.messages import ReminderDue, Withdraw
from sync.wire.receipt import Receipt, ReceiptError
from tests.support.wire import NOON, Party, a_result

PARTY = Party()
RESULT = a_result()
HEADER = PARTY.header(RESULT)
ENVELOPE = seal(RESULT, HEADER, PARTY.signing, PARTY.opening.public)
END_MS = (END_OF_MOMENTS - FIRST_MOMENT) // timedelta(milliseconds=1)


def refusal(data: bytes, party: Party = PARTY) -> str | None:
    """Why `data` is refused on its way from ingest to opener; None if it is opened."""
    try:
        open_envelope(verify(data, party.find_key, party.kiosk), [party.opening])
    except EnvelopeError as error:
        return error.reason
    return None


def signed_anew(party: Party, protected: bytes, ciphertext: bytes) -> bytes:
    """What a kiosk with a good key, but other software, could send."""
    return cose.sign(protected, ciphertext, party.signing)


@pytest.mark.parametrize(
    "message",
    [
        RESULT,
        Withdraw(scan=uuid4(), at=NOON, reason="patient"),
        ReminderDue(reminder=uuid4(), patient_reference="p-1", rule="yearly", due_on=NOON.date()),
    ],
    ids=lambda message: message.kind,
)
@pytest.mark.parametrize("suite", ["X-Wing", "X25519"])
def test_the_clinic_reads_what_the_kiosk_sealed(message, suite) -> None:
    party = Party(opening=generate_opening_key(suite))
    header = party.header(message)
    envelope = seal(message, header, party.signing, party.opening.public)
    verified = verify(envelope, party.find_key, party.kiosk)
    # The wire has milliseconds.
    in_ms = timedelta(microseconds=header.created_at.microsecond % 1000)
    assert verified.header == dataclasses.replace(header, created_at=header.created_at - in_ms)
    assert verified.sha256 == hashlib.sha256(envelope).digest()
    assert open_envelope(verified, [generate_opening_key(), party.opening]) == message


def test_nothing_of_the_message_is_readable_on_the_wire() -> None:
    for secret in (RESULT.scan.bytes, str(RESULT.scan).encode(), b"demo-7f3a", b"measure_", b"findings"):
        assert secret not in ENVELOPE


def test_any_changed_byte_is_refused() -> None:
    for position in range(len(ENVELOPE)):
        changed = bytearray(ENVELOPE)
        changed[position] ^= 1 << (position % 8)
        assert refusal(bytes(changed)) in ("malformed", "wrong_kiosk", "unknown_signer", "bad_signature")


@given(data=st.data())
@settings(max_examples=300)
def test_any_edit_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ENVELOPE)))
    removed = data.draw(st.integers(0, len(ENVELOPE) - start))
    edited = ENVELOPE[:start] + data.draw(st.binary(max_size=40)) + ENVELOPE[start + removed :]
    if edited != ENVELOPE:
        assert refusal(edited) in ("malformed", "wrong_kiosk", "unknown_signer", "bad_signature")


@given(data=st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda tail: b"\xd2\x84" + tail)))
@settings(max_examples=300)
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    assert refusal(data) == "malformed"


def test_an_independent_implementation_verifies_the_signature() -> None:
    pem = PARTY.signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = cwt.COSEKey.from_pem(pem, kid=signing_kid(PARTY.signing))
    reader = cwt.COSE.new()
    protected, unprotected, payload = reader.decode_with_headers(ENVELOPE, [key])
    assert protected[1] == cwt.COSEAlgs.EDDSA
    assert unprotected == {}
    assert payload == verify(ENVELOPE, PARTY.find_key).ciphertext
    spoiled = ENVELOPE[:-1] + bytes([ENVELOPE[-1] ^ 1])
    with pytest.raises(cwt.VerifyError):
        reader.decode(spoiled, [key])


def test_an_independent_implementation_signs_the_same_bytes() -> None:
    """Ed25519 and the encoding are deterministic: two right implementations write one COSE_Sign1."""
    pem = PARTY.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = cwt.COSEKey.from_pem(pem, kid=signing_kid(PARTY.signing))
    protected = HEADER.encode()
    theirs = cwt.COSE.new().encode_and_sign(b"ciphertext", key, protected=cbor2.loads(protected))
    assert theirs == signed_anew(PARTY, protected, b"ciphertext")


@pytest.mark.parametrize(
    "change",
    [
        {"kiosk": uuid4()},
        {"type": "withdraw"},
        {"schema_version": 2},
        {"message_id": uuid4()},
        {"epoch": 2},
        {"sequence": HEADER.sequence + 1},
        {"created_at": HEADER.created_at + timedelta(seconds=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_ciphertext_cannot_be_moved_under_another_header(change) -> None:
    """Not even by the kiosk itself, which can sign whatever header it likes."""
    ciphertext = verify(ENVELOPE, PARTY.find_key).ciphertext
    header = dataclasses.replace(HEADER, **change)
    moved = verify(signed_anew(PARTY, header.encode(), ciphertext), lambda *_: PARTY.signing.public_key())
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(moved, [PARTY.opening])
    assert caught.value.reason == "cannot_open"


def test_a_ciphertext_cannot_be_moved_to_another_signer() -> None:
    thief = Party(kiosk=PARTY.kiosk, opening=PARTY.opening)
    header = dataclasses.replace(HEADER, signer=signing_kid(thief.signing))
    stolen = signed_anew(thief, header.encode(), verify(ENVELOPE, PARTY.find_key).ciphertext)
    assert refusal(stolen) == "unknown_signer"
    assert refusal(stolen, thief) == "cannot_open"


def test_a_key_registered_for_one_kiosk_does_not_sign_for_another() -> None:
    other = uuid4()
    _, forged = PARTY.envelope(kiosk=other)
    assert refusal(forged) == "wrong_kiosk"
    with pytest.raises(EnvelopeError) as caught:
        verify(forged, PARTY.find_key, other)
    assert caught.value.reason == "unknown_signer"


def test_the_length_says_nothing_of_what_is_inside() -> None:
    few, more, many = (len(PARTY.envelope(a_result(findings=n))[1]) for n in (0, 12, 60))
    assert few == more
    assert many > more
    assert (many - more) % PAD_STEP == 0


def test_a_message_that_does_not_fit_a_packet_is_refused_before_it_is_sent() -> None:
    marks = (Mark(kind="spot", zone="nose", x=0.1234, y=0.1234, radius=0.1234),) * MAX_MARKS
    plain = a_result()
    crowded = plain.model_copy(
        update={"findings": plain.findings.model_copy(update={"geometry": Geometry(marks=marks)})}
    )
    with pytest.raises(EnvelopeError) as caught:
        PARTY.envelope(crowded)
    assert caught.value.reason == "too_big"


def test_what_is_too_big_is_refused_unread() -> None:
    assert refusal(ENVELOPE + bytes(MAX_ENVELOPE)) == "too_big"


def test_a_message_sealed_to_a_key_that_is_gone_says_so() -> None:
    verified = verify(ENVELOPE, PARTY.find_key)
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(verified, [generate_opening_key()])
    assert caught.value.reason == "unknown_recipient"


def test_a_newer_message_is_told_from_a_broken_one() -> None:
    newer = dataclasses.replace(HEADER, schema_version=7)
    info = newer.encode()
    envelope = signed_anew(PARTY, info, PARTY.opening.public.seal(b'{"new": true}', info))
    assert refusal(envelope) == "unknown_schema"
    info = HEADER.encode()
    envelope = signed_anew(PARTY, info, PARTY.opening.public.seal(b'{"kind": "result"}', info))
    assert refusal(envelope) == "invalid_message"


def test_a_broken_message_is_not_quoted_in_the_error() -> None:
    info = HEADER.encode()
    text = messages.dump_message(RESULT).replace(b"demo-7f3a", b"Jane Doe!")
    envelope = signed_anew(PARTY, info, PARTY.opening.public.seal(text, info))
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(verify(envelope, PARTY.find_key), [PARTY.opening])
    error: BaseException | None = caught.value
    while error is not None:
        assert "Jane" not in str(error)
        error = error.__cause__ or error.__context__


def test_a_header_made_for_another_message_is_not_used() -> None:
    withdraw = Withdraw(scan=uuid4(), at=NOON, reason="staff")
    for message, key, recipient in (
        (withdraw, PARTY.signing, PARTY.opening),
        (RESULT, generate_signing_key(), PARTY.opening),
        (RESULT, PARTY.signing, generate_opening_key()),
    ):
        with pytest.raises(ValueError, match="another message"):
            seal(message, HEADER, key, recipient.public)


def test_the_header_is_readable_without_any_key() -> None:
    assert read_header(ENVELOPE).message_id == HEADER.message_id


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kiosk": b"short"},
        {"sequence": True},
        {"type": ""},
        {"schema": "1"},
        {"surplus": 1},
        {"recipient": bytes(15)},
        {cose.TYPE: "dermakiosk-receipt"},
        {cose.ALGORITHM: -7},
        {cose.KEY_ID: "text"},
    ],
    ids=str,
)
def test_a_header_that_is_not_ours_is_refused(header) -> None:
    fields = cbor2.loads(HEADER.encode())
    fields.update(header)
    if not header:
        del fields["epoch"]
    assert refusal(signed_anew(PARTY, cbor2.dumps(fields, canonical=True), b"")) == "malformed"


@pytest.mark.parametrize(
    ("name", "last", "beyond"),
    [
        ("epoch", 0, -1),
        ("epoch", 2**63 - 1, 2**63),
        ("sequence", 2**63 - 1, 2**63),
        ("schema", 2**31 - 1, 2**31),
        ("created_ms", 0, -1),
        ("created_ms", END_MS - 1, END_MS),
        ("type", "x" * 32, "x" * 33),
    ],
)
def test_a_field_of_the_header_is_taken_at_its_bound_and_refused_just_beyond_it(name, last, beyond) -> None:
    fields = cbor2.loads(HEADER.encode())
    refused = [
        refusal(signed_anew(PARTY, cbor2.dumps(fields | {name: value}, canonical=True), b""))
        for value in (last, beyond)
    ]
    assert refused == ["cannot_open", "malformed"]


@pytest.mark.parametrize(
    "protected",
    [
        cbor2.dumps({1: -8, 4: b"k", 16: TYPE, "x": cbor2.CBORTag(35, "(a+)+$")}),
        cbor2.dumps({1: -8, 4: b"k", 16: TYPE, "x": cbor2.CBORTag(4, [10**9, 1])}),
        cbor2.dumps({1: -8, 4: b"k", 16: 1.5}),
        b"\x81" * 500,
        b"\xa1\x00" * 500,
        b"\x9f" * 500,
        b"\xbf\xff",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"",
    ],
    ids=lambda protected: protected[-8:].hex() or "empty",
)
def test_a_hostile_header_never_reaches_the_general_decoder(
    protected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags build objects, nesting fills the stack, lengths ask for memory: none of it is followed."""
    monkeypatch.setattr(cose.cbor2, "loads", lambda data: pytest.fail("it was decoded"))
    assert refusal(signed_anew(PARTY, protected, b"")) == "malformed"


@pytest.mark.parametrize(
    "protected",
    [cbor2.dumps([1, 2, 3]), cbor2.dumps({(1, 2): 3}), b"\xa1\x80\x01", b"\xa1\x61\xff\x01", b"\x01"],
)
def test_a_header_that_is_no_map_of_names_is_refused(protected: bytes) -> None:
    assert refusal(signed_anew(PARTY, protected, b"")) == "malformed"


def test_there_is_one_encoding_only() -> None:
    tag = cbor2.loads(ENVELOPE)
    protected, unprotected, payload, signature = tag.value
    header = cbor2.loads(protected)
    unsorted = cbor2.dumps(dict(reversed(list(header.items()))))
    for other in (
        ENVELOPE[1:],
        ENVELOPE + b"\x00",
        cbor2.dumps(cbor2.CBORTag(98, tag.value)),
        cbor2.dumps(cbor2.CBORTag(18, [protected, {"x": 1}, payload, signature])),
        cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected, payload, signature, b""])),
        b"\xd2\x84" + b"\x59\x00\x01\x00" + ENVELOPE[2:],
        signed_anew(PARTY, unsorted, payload),
    ):
        assert refusal(other) == "malformed"


def test_a_signature_has_one_form_only() -> None:
    """With the group's order added to its second half, lax verifiers take it too (RFC 8032, 8.4)."""
    order = 2**252 + 27742317777372353535851937790883648493
    half = int.from_bytes(ENVELOPE[-32:], "little") + order
    assert refusal(ENVELOPE[:-32] + half.to_bytes(32, "little")) == "bad_signature"


def test_a_receipt_is_no_envelope_and_an_envelope_no_receipt() -> None:
    """Even where one key signs both."""
    receipt = PARTY.receipt(HEADER.message_id, ENVELOPE).sign(PARTY.signing)
    assert refusal(receipt) == "malformed"
    with pytest.raises(ReceiptError):
        Receipt.verify(ENVELOPE, lambda kid: PARTY.signing.public_key())
