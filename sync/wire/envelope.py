"""Envelopes: one message, sealed to the clinic under a header that the kiosk signs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sync.wire import cose
from sync.wire.bounds import END_OF_MOMENTS, FIRST_MOMENT, MAX_PACKET_BYTES
from sync.wire.errors import PlainError
from sync.wire.keys import KID_BYTES, CannotOpen, OpeningKey, OpeningPublicKey, signing_kid
from sync.wire.messages import InvalidMessage, Message, UnknownSchema, dump_message, parse_message

TYPE = "dermakiosk-envelope"
PAD_STEP = 4096
# A packet less its MQTT part: the fixed header, a topic of 61 bytes, properties.
MAX_ENVELOPE = MAX_PACKET_BYTES - 1024

_MAX_INTEGER = 2**63 - 1  # what a database column holds
_MAX_SCHEMA = 2**31 - 1
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_UNIX = FIRST_MOMENT
_LAST_MS = (END_OF_MOMENTS - _UNIX) // timedelta(milliseconds=1) - 1

Reason = Literal[
    "too_big",  # more than MAX_ENVELOPE
    "malformed",  # not our COSE_Sign1, or its header is not ours
    "wrong_kiosk",  # the header names another kiosk than the topic
    "unknown_signer",  # no such key is registered for this kiosk
    "bad_signature",
    "unknown_recipient",  # sealed to a key that is not held here: ask for it to be sealed again
    "cannot_open",  # signed well, but the ciphertext does not open
    "unknown_schema",  # a newer kiosk's message: keep it
    "invalid_message",  # opened, but what is inside does not follow its schema
]


class EnvelopeError(PlainError, ValueError):
    """An envelope that is refused; `reason` says why in one word for programs."""

    exit_status = 2

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """What is known of an envelope without opening it. All of it is signed, and bound to the ciphertext."""

    kiosk: UUID
    type: str
    schema_version: int
    message_id: UUID
    epoch: int
    sequence: int
    signer: bytes
    recipient: bytes
    created_at: datetime

    @classmethod
    def of(
        cls,
        message: Message,
        *,
        kiosk: UUID,
        epoch: int,
        sequence: int,
        signer: Ed25519PrivateKey | Ed25519PublicKey,
        recipient: OpeningPublicKey,
        message_id: UUID | None = None,
        created_at: datetime | None = None,
    ) -> Header:
        """The header for `message`; without them, a new random id and the time now."""
        return cls(
            kiosk=kiosk,
            type=message.KIND,
            schema_version=message.VERSION,
            message_id=message_id or uuid4(),
            epoch=epoch,
            sequence=sequence,
            signer=signing_kid(signer),
            recipient=recipient.kid,
            created_at=created_at or datetime.now(timezone.utc),
        )

    def encode(self) -> bytes:
        """The protected header of the COSE_Sign1, which is the HPKE info too; times to the millisecond."""
        return cose.encode_header(
            TYPE,
            self.signer,
            {
                "kiosk": self.kiosk.bytes,
                "type": self.type,
                "schema": self.schema_version,
                "id": self.message_id.bytes,
                "epoch": self.epoch,
                "sequence": self.sequence,
                "recipient": self.recipient,
                "created_ms": (self.created_at - _UNIX) // timedelta(milliseconds=1),
            },
        )


@dataclass(frozen=True)
class Verified:
    """An envelope whose signature is good; it is still sealed. `info` is what the ciphertext is bound to."""

    header: Header
    ciphertext: bytes
    info: bytes
    sha256: bytes


def seal(
    message: Message, header: Header, signing_key: Ed25519PrivateKey, recipient: OpeningPublicKey
) -> bytes:
    """The envelope of `message`: padded, sealed to `recipient`, signed with `signing_key`.

    Raises EnvelopeError (too_big), or ValueError when the header was made for something else.
    """
    made_for = (header.type, header.schema_version, header.signer, header.recipient)
    if made_for != (message.KIND, message.VERSION, signing_kid(signing_key), recipient.kid):
        raise ValueError("The header was made for another message, signer or recipient.")
    info = header.encode()
    envelope = cose.sign(info, recipient.seal(_pad(dump_message(message)), info), signing_key)
    if len(envelope) > MAX_ENVELOPE:
        raise EnvelopeError(
            "too_big",
            f"The message seals to {len(envelope)} bytes; {MAX_ENVELOPE} can be sent: make it smaller.",
        )
    return envelope


def verify(
    data: bytes,
    find_key: Callable[[UUID, bytes], Ed25519PublicKey | None],
    kiosk: UUID | None = None,
) -> Verified:
    """Check who sealed an envelope, without opening it.

    `find_key(kiosk, kid)` gives the public result-signing key that is registered for that kiosk under that
    id, or None. `kiosk` is the one that the topic names. Raises EnvelopeError.
    """
    parsed, header = _parse(data)
    if kiosk is not None and header.kiosk != kiosk:
        raise EnvelopeError("wrong_kiosk", "The envelope is another kiosk's than the topic it came on.")
    key = find_key(header.kiosk, header.signer)
    if key is None:
        raise EnvelopeError("unknown_signer", "The envelope is signed with a key that is not registered.")
    try:
        cose.check_signature(parsed, key)
    except cose.CoseError as error:
        raise EnvelopeError("bad_signature", "The envelope's signature is not good.") from error
    return Verified(header, parsed.payload, parsed.protected, hashlib.sha256(data).digest())


def read_header(data: bytes) -> Header:
    """What an envelope says of itself, without checking who signed it. Raises EnvelopeError."""
    return _parse(data)[1]


def open_envelope(verified: Verified, opening_keys: Iterable[OpeningKey]) -> Message:
    """The message in a verified envelope; raises EnvelopeError."""
    header = verified.header
    key = next((key for key in opening_keys if key.kid == header.recipient), None)
    if key is None:
        raise EnvelopeError("unknown_recipient", "The envelope is sealed to a key that is not held here.")
    try:
        plaintext = key.open(verified.ciphertext, verified.info)
        return parse_message(header.type, header.schema_version, plaintext)
    except CannotOpen as error:
        raise EnvelopeError("cannot_open", str(error)) from error
    except UnknownSchema as error:
        raise EnvelopeError("unknown_schema", str(error)) from error
    except InvalidMessage as error:
        raise EnvelopeError("invalid_message", str(error)) from error


def _parse(data: bytes) -> tuple[cose.Sign1, Header]:
    if len(data) > MAX_ENVELOPE:
        raise EnvelopeError("too_big", f"The envelope has {len(data)} bytes; {MAX_ENVELOPE} are permitted.")
    try:
        parsed = cose.parse(data, TYPE)
        return parsed, _read_header(parsed.header)
    except cose.CoseError as error:
        raise EnvelopeError("malformed", f"The envelope is not one of ours: {error}") from error


def _pad(text: bytes) -> bytes:
    """Fill up with spaces, which mean nothing behind a JSON value, to a multiple of PAD_STEP."""
    return text.ljust(-(-len(text) // PAD_STEP) * PAD_STEP)


def _read_header(fields: dict[int | str, Any]) -> Header:
    names = {"kiosk", "type", "schema", "id", "epoch", "sequence", "recipient", "created_ms"}
    if set(fields) != names | {cose.ALGORITHM, cose.KEY_ID, cose.TYPE}:
        raise cose.CoseError("The header has other fields than it must.")
    kind = fields["type"]
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise cose.CoseError("The header's type is not a short word.")
    return Header(
        kiosk=UUID(bytes=_bytes(fields["kiosk"], 16)),
        type=kind,
        schema_version=_integer(fields["schema"], _MAX_SCHEMA),
        message_id=UUID(bytes=_bytes(fields["id"], 16)),
        epoch=_integer(fields["epoch"]),
        sequence=_integer(fields["sequence"]),
        signer=_bytes(fields[cose.KEY_ID], KID_BYTES),
        recipient=_bytes(fields["recipient"], KID_BYTES),
        created_at=_UNIX + timedelta(milliseconds=_integer(fields["created_ms"], _LAST_MS)),
    )


def _bytes(value: object, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise cose.CoseError(f"A field of the header does not have its {length} bytes.")
    return value


def _integer(value: object, largest: int = _MAX_INTEGER) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise cose.CoseError("A number in the header is out of range.")
    return value
