"""The kiosk's identity as the sync agent knows it: public facts, its own TLS files, its status key."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hardware.host.errors import PlainError
from hardware.host.regular_file import read_regular_file
from sync.wire.bounds import Counter
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.keys import KeyRefused, load_public_key, load_signing_key
from sync.wire.statement import StatementError
from sync.wire.tls import TlsRefused, client_context


class EnrolmentUnusable(PlainError):
    """A file that enrolment writes is missing or damaged."""

    exit_status = 2


class _BrokerAddress(BaseModel):
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)


class AgentIdentity(BaseModel):
    """What `identity.json` says of this kiosk, as far as the agent needs it."""

    model_config = ConfigDict(frozen=True)

    kiosk: UUID
    epoch: Counter
    broker: _BrokerAddress

    @classmethod
    def load(cls, state: Path) -> AgentIdentity:
        path = state / "identity.json"
        try:
            return cls.model_validate_json(_read(path))
        except ValidationError as error:
            raise EnrolmentUnusable(f"{path} is damaged: enrol this kiosk anew.") from error


def load_status_key(state: Path) -> Ed25519PrivateKey:
    """The key that signs heartbeats and nothing else."""
    path = state / "sync" / "status.key"
    try:
        return load_signing_key(_read(path))
    except KeyRefused as error:
        raise EnrolmentUnusable(f"{path} is damaged: enrol this kiosk anew.") from error


def tls_context(state: Path) -> ssl.SSLContext:
    """TLS 1.3 with the kiosk's certificate, to a server whose certificate the clinic's authority made."""
    folder = state / "sync"
    try:
        return client_context(folder)
    except TlsRefused as error:
        raise EnrolmentUnusable(f"{error} Enrol this kiosk again.") from error


def certificate_ended(state: Path, moment: datetime) -> str | None:
    """What to do where the kiosk's certificate has ended by `moment`: brokers end a connection without it."""
    try:
        certificate = x509.load_pem_x509_certificate(_read(state / "sync" / "tls.crt"))
    except (EnrolmentUnusable, ValueError):  # whoever dials next says so
        return None
    until = certificate.not_valid_after_utc
    if moment < until:
        return None
    return f"The kiosk's certificate ended on {until.date()}: set this clock, or enrol it in a new folder."


class KeySet:
    """The clinic's key set as it lies in the kiosk's state; a newer one is taken up while running."""

    def __init__(self, state: Path) -> None:
        """Raises EnrolmentUnusable where there is no key set that the clinic's root signed."""
        self._path = state / "clinic-keys.cose"
        root_path = state / "clinic-root.pub"
        try:
            self._root = load_public_key(bytes.fromhex(_read(root_path).decode()))
            self._seen = self._stamp()
            self.current = ClinicKeys.verify(_read(self._path), self._root)
        except (KeyRefused, ValueError, OSError) as error:
            raise EnrolmentUnusable(
                f"{self._path} or {root_path} is damaged ({error}): enrol this kiosk."
            ) from error

    def reload(self) -> None:
        """Take up the file if it has changed and is newer; raises StatementError if it is not to be believed.

        A file that is refused is not read again until it changes; the set in use stays.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            data = read_regular_file(self._path)
        except OSError as error:
            raise StatementError(f"{self._path} cannot be read ({error}).") from error
        self._seen = stamp
        self.current = ClinicKeys.verify(data, self._root, newer_than=self.current.version)

    def receipt_key(self, kid: bytes) -> Ed25519PublicKey | None:
        return self.current.receipt_key(kid)

    def _stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path)
    except OSError as error:
        raise EnrolmentUnusable(
            f"{path} cannot be read ({error.strerror}): enrol this kiosk, or correct --state."
        ) from error
