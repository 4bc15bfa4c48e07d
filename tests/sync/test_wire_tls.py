"""Which of the TLS files cannot be used, and why."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sync.wire.tls import TlsRefused, client_context
from tests.support.clinic import MOMENT

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def curve() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def files(folder: Path, certified: Key, key: Key) -> Path:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    made = (
        x509.CertificateBuilder(name, name, certified.public_key(), 1)
        .not_valid_before(MOMENT)
        .not_valid_after(MOMENT + timedelta(days=9000))
        .sign(certified, SHA256())
    )
    for file in ("ca.crt", "tls.crt"):
        (folder / file).write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


@pytest.mark.parametrize("key", [curve(), ed25519.Ed25519PrivateKey.generate()])
def test_a_key_of_another_certificate_is_called_that(tmp_path: Path, key: Key) -> None:
    with pytest.raises(TlsRefused, match=r"tls\.key is not the key of .*tls\.crt\.$"):
        client_context(files(tmp_path, curve(), key))


def test_a_certificate_that_openssl_takes_none_of_is_not_called_anothers(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    with pytest.raises(TlsRefused, match=r"tls\.crt cannot be used \(ee key too small\)\.$"):
        client_context(files(tmp_path, key, key))


def test_a_key_is_taken_with_its_certificate(tmp_path: Path) -> None:
    key = curve()
    assert client_context(files(tmp_path, key, key))
