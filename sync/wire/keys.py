"""The key types of the wire, as bytes in files and in messages."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from sync.wire.errors import PlainError

KID_BYTES = 16
SEED_BYTES = 32

SuiteName = Literal["X-Wing", "X25519"]
# The allow-list. A suite belongs to a key; it is never read from a message.
SUITES: dict[SuiteName, Suite] = {
    "X-Wing": Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    "X25519": Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}
DEFAULT_SUITE: SuiteName = "X-Wing"
_MLKEM_PUBLIC_BYTES = 1184
_PUBLIC_BYTES: dict[SuiteName, int] = {"X-Wing": _MLKEM_PUBLIC_BYTES + 32, "X25519": 32}


class KeyRefused(PlainError, ValueError):
    """A key that cannot be read, or must not be used."""

    exit_status = 2


class CannotOpen(PlainError, ValueError):
    """A ciphertext that was not sealed to this key, or not under this context, or was changed."""

    exit_status = 2


@dataclass(frozen=True)
class OpeningPublicKey:
    """What one seals to: 32 raw bytes for X25519; for X-Wing those of ML-KEM-768, then of X25519."""

    suite: SuiteName
    public: bytes

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise KeyRefused(f"'{self.suite}' is not a suite that is permitted: use X-Wing or X25519.")
        if len(self.public) != _PUBLIC_BYTES[self.suite]:
            raise KeyRefused(
                f"A {self.suite} key has {_PUBLIC_BYTES[self.suite]} bytes, not {len(self.public)}."
            )

    @property
    def kid(self) -> bytes:
        """The id of this key: the first 16 bytes of the SHA-256 of suite and key."""
        return _kid(self.suite, self.public)

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """HPKE (RFC 9180) in base mode, one message: the encapsulated key, then the ciphertext."""
        try:
            return SUITES[self.suite].encrypt(plaintext, self._key(), info)
        except ValueError as error:
            raise KeyRefused(f"Nothing can be sealed to the {self.suite} key {self.kid.hex()}.") from error

    def _key(self) -> X25519PublicKey | MLKEM768X25519PublicKey:
        if self.suite == "X25519":
            return X25519PublicKey.from_public_bytes(self.public)
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.public[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(self.public[_MLKEM_PUBLIC_BYTES:]),
        )


class OpeningKey:
    """The private half: opens what was sealed to `public`. Its repr never shows the seed."""

    def __init__(self, suite: SuiteName, seed: bytes) -> None:
        """`seed`: 32 bytes, the X25519 private key or the X-Wing decapsulation key."""
        if suite not in SUITES:
            raise KeyRefused(f"'{suite}' is not a suite that is permitted: use X-Wing or X25519.")
        if len(seed) != SEED_BYTES:
            raise KeyRefused(f"An opening key's seed has {SEED_BYTES} bytes, not {len(seed)}.")
        self.suite = suite
        self.seed = seed
        self._private: X25519PrivateKey | MLKEM768X25519PrivateKey
        if suite == "X25519":
            self._private = X25519PrivateKey.from_private_bytes(seed)
            public = self._private.public_key().public_bytes_raw()
        else:
            # expandDecapsulationKey of draft-connolly-cfrg-xwing-kem, section 5.2.
            expanded = hashlib.shake_256(seed).digest(96)
            mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
            x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
            self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
            public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.public = OpeningPublicKey(suite, public)

    @property
    def kid(self) -> bytes:
        return self.public.kid

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        """The plaintext that `OpeningPublicKey.seal` sealed under `info`; raises CannotOpen."""
        try:
            return SUITES[self.suite].decrypt(ciphertext, self._private, info)
        except (InvalidTag, ValueError) as error:
            raise CannotOpen(
                f"The ciphertext does not open with the key {self.kid.hex()}: it was sealed to another key, "
                "under another header, or was changed."
            ) from error

    def __repr__(self) -> str:
        return f"<OpeningKey {self.suite} {self.kid.hex()}>"


def generate_opening_key(suite: SuiteName = DEFAULT_SUITE) -> OpeningKey:
    """A new opening key."""
    return OpeningKey(suite, os.urandom(SEED_BYTES))


def dump_opening_keys(keys: Iterable[OpeningKey]) -> bytes:
    """The text of a key file that holds these keys, the newest last."""
    entries = [{"kid": key.kid.hex(), "suite": key.suite, "seed": key.seed.hex()} for key in keys]
    return json.dumps({"opening_keys": entries}, indent=2).encode() + b"\n"


def load_opening_keys(data: bytes) -> tuple[OpeningKey, ...]:
    """The keys of a key file, the newest last."""
    try:
        entries = json.loads(data)["opening_keys"]
        keys = tuple(OpeningKey(entry["suite"], bytes.fromhex(entry["seed"])) for entry in entries)
        named = [bytes.fromhex(entry["kid"]) for entry in entries]
    except KeyRefused:
        raise
    except (ValueError, KeyError, TypeError) as error:
        # The cause quotes what it could not read; a piece of a key must not end in a traceback.
        raise KeyRefused("This is not a file of opening keys: make or restore it.") from _without_text(error)
    if not keys or named != [key.kid for key in keys]:
        raise KeyRefused("The file of opening keys is empty or damaged: restore it.")
    return keys


def generate_signing_key() -> Ed25519PrivateKey:
    """A new key that signs: results, status, receipts or key sets."""
    return Ed25519PrivateKey.generate()


def signing_kid(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The id of a signing key: the first 16 bytes of the SHA-256 of `Ed25519` and the public key."""
    return _kid("Ed25519", public_bytes(key))


def public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The 32 raw bytes of the public key."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw()


def load_public_key(data: bytes) -> Ed25519PublicKey:
    """The signing key's public half, from its 32 raw bytes."""
    try:
        return Ed25519PublicKey.from_public_bytes(data)
    except ValueError as error:
        raise KeyRefused("This is not a public Ed25519 key of 32 bytes.") from error


def dump_signing_key(key: Ed25519PrivateKey) -> bytes:
    """The text of a key file: PKCS #8 PEM, protected only by the file's mode."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_signing_key(data: bytes) -> Ed25519PrivateKey:
    """The signing key of a key file."""
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise KeyRefused("This is not a signing key in PKCS #8: make or restore it.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused("This key file does not hold an Ed25519 key.")
    return key


def _kid(kind: str, public: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + b"\0" + public).digest()[:KID_BYTES]


def _without_text(error: Exception) -> ValueError:
    return ValueError(type(error).__name__)
