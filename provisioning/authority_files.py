"""What is in the files of an authority's folder; one that is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, Field

from hardware.host.errors import PlainError
from provisioning import certificates, files
from sync.wire import keys as wire_keys

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$")]


class AuthorityRefused(PlainError):
    """The authority cannot do what it is asked, or is not there."""

    exit_status = 2


class Clinic(BaseModel):
    """`clinic.json`."""

    clinic: str


class Broker(BaseModel):
    """`broker.json`."""

    host: str
    port: int
    share: str


class _OpeningKey(BaseModel):
    suite: wire_keys.SuiteName
    public: Hex


class KeysListed(BaseModel):
    """`clinic-keys.json`."""

    version: int
    opening: list[_OpeningKey]
    receipt: list[Hex]


class Entry(BaseModel):
    """A file of `kiosks/`, as far as it is listed."""

    kiosk: str
    name: str
    board: str
    enrolled_at: str
    certificate_until: str


def read_json(path: Path, form: type[BaseModel]) -> dict[str, Any]:
    """All that is in `path`, which holds a `form` at least. Raises AuthorityRefused, or OSError."""
    data = files.read_regular_file(path)
    with whole(path):
        form.model_validate_json(data)
        found: dict[str, Any] = json.loads(data)
        return found


def read_certificate(path: Path) -> x509.Certificate:
    data = files.read_regular_file(path)
    with whole(path):
        return x509.load_pem_x509_certificate(data)


def read_tls_key(path: Path) -> certificates.TlsKey:
    data = files.read_regular_file(path)
    with whole(path):
        return certificates.load_private(data)


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    data = files.read_regular_file(path)
    with whole(path):
        return wire_keys.load_signing_key(data)


def read_public_key(path: Path) -> str:
    """The public signing key in `path`, in hex."""
    data = files.read_regular_file(path)
    with whole(path):
        return wire_keys.public_bytes(wire_keys.load_public_key(bytes.fromhex(data.decode()))).hex()


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Raises AuthorityRefused where what is made of `path` within shows that it is not as it was."""
    try:
        yield
    except (ValueError, certificates.CertificateRefused):
        # What is said of it may quote the file, and a piece of a key must not end in a traceback.
        raise AuthorityRefused(
            f"{path} is damaged, or another clinic's: restore it from a copy of the authority's folder."
        ) from None
