"""Keys of the wire: suites, vectors, files."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from sync.wire.keys import (
    SUITES,
    CannotOpen,
    KeyRefused,
    OpeningKey,
    OpeningPublicKey,
    SuiteName,
    dump_opening_keys,
    dump_signing_key,
    generate_opening_key,
    generate_signing_key,
    load_opening_keys,
    load_public_key,
    load_signing_key,
    public_bytes,
    signing_kid,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "hpke.json").read_text())
BOTH: list[SuiteName] = ["X-Wing", "X25519"]


def vector(suite: SuiteName) -> dict[str, bytes]:
    fields = ("info", "private", "public", "enc", "aad", "ct", "pt")
    return {name: bytes.fromhex(VECTORS[suite][name]) for name in fields}


@pytest.mark.parametrize("suite", BOTH)
def test_a_published_private_key_has_the_published_public_key(suite: SuiteName) -> None:
    published = vector(suite)
    assert OpeningKey(suite, published["private"]).public.public == published["public"]


@pytest.mark.parametrize("suite", BOTH)
def test_a_published_ciphertext_opens(suite: SuiteName) -> None:
    published = vector(suite)
    key = OpeningKey(suite, published["private"])
    with_its_aead = (
        SUITES["X25519"]
        if suite == "X25519"
        # The published X-Wing vector uses ChaCha20-Poly1305; the KEM and the key schedule are ours.
        else Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    )
    plaintext = openssl.hpke._decrypt_with_aad(
        with_its_aead, published["enc"] + published["ct"], key._private, published["info"], published["aad"]
    )
    assert plaintext == published["pt"]


@pytest.mark.parametrize("suite", BOTH)
def test_what_is_sealed_to_a_key_opens_with_it_and_with_no_other(suite: SuiteName) -> None:
    key, other = generate_opening_key(suite), generate_opening_key(suite)
    sealed = key.public.seal(b"numbers", b"header")
    assert key.open(sealed, b"header") == b"numbers"
    for attempt in (lambda: other.open(sealed, b"header"), lambda: key.open(sealed, b"another header")):
        with pytest.raises(CannotOpen):
            attempt()


@pytest.mark.parametrize("suite", BOTH)
@given(data=st.binary(max_size=3000))
def test_bytes_that_were_never_sealed_do_not_open(suite: SuiteName, data: bytes) -> None:
    key = OpeningKey(suite, bytes(range(32)))
    with pytest.raises(CannotOpen):
        key.open(data, b"")


def test_the_default_suite_is_the_hybrid_one() -> None:
    assert generate_opening_key().suite == "X-Wing"


def test_a_suite_that_is_not_on_the_list_is_refused() -> None:
    with pytest.raises(KeyRefused):
        OpeningPublicKey("P256", bytes(65))  # type: ignore[arg-type]
    with pytest.raises(KeyRefused):
        OpeningKey("MLKEM768", bytes(32))  # type: ignore[arg-type]


def test_a_public_key_of_the_wrong_length_is_refused() -> None:
    x_wing = generate_opening_key("X-Wing").public
    for suite, public in (("X-Wing", x_wing.public[:-1]), ("X25519", x_wing.public), ("X25519", b"")):
        with pytest.raises(KeyRefused):
            OpeningPublicKey(suite, public)  # type: ignore[arg-type]


def test_a_public_key_that_is_no_point_is_refused_when_it_is_used() -> None:
    with pytest.raises(KeyRefused):
        OpeningPublicKey("X25519", bytes(32)).seal(b"numbers", b"")
    with pytest.raises(KeyRefused):
        OpeningPublicKey("X-Wing", b"\xff" * 1216).seal(b"numbers", b"")


def test_the_same_bytes_in_another_suite_are_another_key() -> None:
    one, two = generate_opening_key("X25519"), generate_opening_key("X25519")
    assert one.kid != two.kid
    signing = generate_signing_key()
    assert signing_kid(signing) != OpeningPublicKey("X25519", public_bytes(signing)).kid
    assert signing_kid(signing) == signing_kid(load_public_key(public_bytes(signing)))


def test_a_key_file_holds_several_keys_in_order() -> None:
    keys = [generate_opening_key("X25519"), generate_opening_key("X-Wing")]
    assert [key.kid for key in load_opening_keys(dump_opening_keys(keys))] == [key.kid for key in keys]


def test_a_damaged_key_file_is_refused_without_showing_a_key() -> None:
    key = generate_opening_key()
    text = dump_opening_keys([key]).decode()
    seed = key.seed.hex()
    other = "0" if seed[0] != "0" else "1"
    damaged = [text.replace(seed, other + seed[1:]), text.replace(seed, seed[:-1] + "x"), text[:-9], "", "[]"]
    damaged.append(dump_opening_keys([]).decode())
    for file in damaged:
        with pytest.raises(KeyRefused) as caught:
            load_opening_keys(file.encode())
        assert seed[8:40] not in "".join(traceback.format_exception(caught.value))


def test_a_private_key_does_not_show_itself() -> None:
    key = generate_opening_key()
    assert key.seed.hex() not in repr(key)


def test_a_signing_key_survives_its_file() -> None:
    key = generate_signing_key()
    assert public_bytes(load_signing_key(dump_signing_key(key))) == public_bytes(key)


def test_a_key_file_of_another_kind_is_no_signing_key() -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file in (elliptic, b"", b"-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(KeyRefused):
            load_signing_key(file)
    with pytest.raises(KeyRefused):
        load_public_key(bytes(31))
