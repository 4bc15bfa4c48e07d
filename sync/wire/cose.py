"""COSE_Sign1 (RFC 9052) with Ed25519, in the one strict form that crosses this wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sync.wire.errors import PlainError

SIGN1_TAG = 18
ALGORITHM, KEY_ID, TYPE = 1, 4, 16  # header labels: alg, kid, typ (RFC 9596)
EDDSA = -8

MAX_PROTECTED = 1024
_MAX_DEPTH = 4
_OPENING = b"\xd2\x84"  # tag 18, array of four
_EMPTY_MAP = b"\xa0"  # nothing is ever unprotected


class CoseError(PlainError, ValueError):
    """These bytes are not a COSE_Sign1 in our form, or its signature is not good."""

    exit_status = 2


class Sign1(NamedTuple):
    """A parsed COSE_Sign1 whose signature has not been checked."""

    protected: bytes
    header: dict[int | str, Any]
    payload: bytes
    signature: bytes

    @property
    def kid(self) -> bytes:
        return bytes(self.header[KEY_ID])


def encode_header(typ: str, kid: bytes, extra: Mapping[str, object] | None = None) -> bytes:
    """The protected header: deterministic CBOR (RFC 8949, 4.2) of algorithm, key id, type and `extra`."""
    header: dict[int | str, object] = {ALGORITHM: EDDSA, KEY_ID: kid, TYPE: typ}
    header.update(extra or {})
    encoded = cbor2.dumps(header, canonical=True)
    if len(encoded) > MAX_PROTECTED:
        raise CoseError(f"The protected header has {len(encoded)} bytes; {MAX_PROTECTED} are permitted.")
    return encoded


def sign(protected: bytes, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The COSE_Sign1 of `payload` under a header made by `encode_header`."""
    signature = key.sign(_to_be_signed(protected, payload))
    return cbor2.dumps(cbor2.CBORTag(SIGN1_TAG, [protected, {}, payload, signature]), canonical=True)


def parse(data: bytes, typ: str) -> Sign1:
    """Take a COSE_Sign1 of the type `typ` apart, without trusting anything in it.

    Only the one encoding that `sign` writes is read: there are no two byte strings with one meaning.
    """
    if not data.startswith(_OPENING):
        raise CoseError("This is not a tagged COSE_Sign1.")
    protected, at = _read_bytes(data, len(_OPENING))
    if data[at : at + 1] != _EMPTY_MAP:
        raise CoseError("There is an unprotected header.")
    payload, at = _read_bytes(data, at + 1)
    signature, at = _read_bytes(data, at)
    if at != len(data):
        raise CoseError("There are bytes behind the signature.")
    header = _read_header(protected)
    if header.get(ALGORITHM) != EDDSA or header.get(TYPE) != typ:
        raise CoseError(f"This is not a '{typ}' signed with Ed25519.")
    if not isinstance(header.get(KEY_ID), bytes):
        raise CoseError("The header names no signing key.")
    return Sign1(protected, header, payload, signature)


def check_signature(parsed: Sign1, key: Ed25519PublicKey) -> None:
    """Raise CoseError unless `key` signed this."""
    try:
        key.verify(parsed.signature, _to_be_signed(parsed.protected, parsed.payload))
    except InvalidSignature as error:
        raise CoseError("The signature is not good.") from error


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", protected, b"", payload], canonical=True)


def _read_header(protected: bytes) -> dict[int | str, Any]:
    if len(protected) > MAX_PROTECTED:
        raise CoseError(f"The protected header has {len(protected)} bytes; {MAX_PROTECTED} are permitted.")
    if _skip_item(protected, 0, 0) != len(protected):
        raise CoseError("There are bytes behind the protected header.")
    try:
        header = cbor2.loads(protected)
        written_again = cbor2.dumps(header, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise CoseError("The protected header is not CBOR.") from error
    if not isinstance(header, dict) or written_again != protected:
        raise CoseError("The protected header is not a map in deterministic CBOR.")
    return header


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument, and where the next byte is; only shortest, definite forms."""
    if at >= len(data):
        raise CoseError("The CBOR is cut short.")
    major, low = data[at] >> 5, data[at] & 31
    if low < 24:
        return major, low, at + 1
    if low > 27:
        raise CoseError("An indefinite length is not permitted.")
    size = 1 << (low - 24)
    argument = data[at + 1 : at + 1 + size]
    if len(argument) < size:
        raise CoseError("The CBOR is cut short.")
    value = int.from_bytes(argument, "big")
    if value < (24 if size == 1 else 1 << (4 * size)):
        raise CoseError("A CBOR head is longer than it needs to be.")
    return major, value, at + 1 + size


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    major, length, at = _read_head(data, at)
    if major != 2 or at + length > len(data):
        raise CoseError("A byte string is missing.")
    return data[at : at + length], at + length


def _skip_item(data: bytes, at: int, depth: int) -> int:
    """Walk over one item of integers, strings, arrays and maps; all else is refused.

    A general CBOR decoder builds objects (regular expressions, decimals, shared references) as the bytes ask
    for them. Bytes that nobody vouches for yet do not reach it with any of these.
    """
    major, argument, at = _read_head(data, at)
    if major in (0, 1):
        return at
    if major in (2, 3):
        if at + argument > len(data):
            raise CoseError("The CBOR is cut short.")
        return at + argument
    if major in (4, 5) and depth < _MAX_DEPTH and argument <= len(data):
        for _ in range(argument * (major - 3)):
            at = _skip_item(data, at, depth + 1)
        return at
    raise CoseError("The header holds a kind of value that it never needs.")
