"""TLS as both ends of the wire speak it: 1.3 only, each with a certificate of the clinic's authority."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from sync.wire.errors import PlainError
from sync.wire.regular_file import read_regular_file

# How OpenSSL says that a key is another certificate's: of the same kind, or of another one.
_ANOTHERS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class TlsRefused(PlainError):
    """One of the TLS files cannot be used: the message says which, and why, in a sentence."""

    exit_status = 2


def client_context(folder: Path) -> ssl.SSLContext:
    """What connects with tls.key and tls.crt of this folder to a server that ca.crt vouches for.

    Raises TlsRefused where a file is missing or is not what its name says.
    """
    authority, certificate, key = folder / "ca.crt", folder / "tls.crt", folder / "tls.key"
    # OpenSSL says of none of them which it was, waits for a pipe, and asks the terminal for a password.
    for path in (authority, certificate):
        _require(path, x509.load_pem_x509_certificates, "certificate")
    _require(key, _load_key, "private key that can be used without a password")
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except ssl.SSLError as error:
        raise TlsRefused(f"{authority} cannot be used ({_why(error)}).") from error
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if error.reason in _ANOTHERS_KEY:
            raise TlsRefused(f"{key} is not the key of {certificate}.") from error
        raise TlsRefused(f"{certificate} cannot be used ({_why(error)}).") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _require(path: Path, load: Callable[[bytes], object], what: str) -> None:
    try:
        load(read_regular_file(path))
    except OSError as error:
        raise TlsRefused(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says may quote the file, and a piece of a key must not end in a traceback.
        raise TlsRefused(f"{path} holds no {what}.") from None


def _load_key(data: bytes) -> object:
    return serialization.load_pem_private_key(data, None)


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's word for it, such as "ee key too small"."""
    return (error.reason or "unknown").replace("_", " ").lower()
