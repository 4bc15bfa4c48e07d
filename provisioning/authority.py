"""The clinic authority: the keys that say who belongs to the clinic."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from . import certificates, files
from .broker import write_broker

ROLE = re.compile(r"ingest-[1-9][0-9]?|auditor")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AuthorityRefused(Exception):
    """The authority cannot do what it is asked, or is not there."""

    exit_status = 2


@dataclass(frozen=True)
class Authority:
    """A clinic authority in its folder. Its root key may be taken off to another medium between uses."""

    folder: Path
    clinic: str
    root: x509.Certificate
    issuing: x509.Certificate

    @classmethod
    def create(cls, folder: Path, clinic: str) -> Authority:
        """A new authority; one that is there already is never overwritten."""
        if not 1 <= len(clinic.strip()) <= 64 or not clinic.isprintable():
            raise AuthorityRefused("The clinic's name must be 1 to 64 printable characters: choose another.")
        if (folder / "clinic.json").exists():
            raise AuthorityRefused(f"{folder} already holds an authority: choose another folder.")
        files.make_folder(folder)
        files.make_folder(folder / "kiosks")
        root_key = ed25519.Ed25519PrivateKey.generate()
        issuing_key = certificates.generate_tls_key()
        root = certificates.make_root(root_key, clinic)
        issuing = certificates.make_issuing(issuing_key, clinic, root_key, root)
        manifest_key = ed25519.Ed25519PrivateKey.generate()
        for name, key in (("root", root_key), ("issuing", issuing_key), ("manifest", manifest_key)):
            files.write(folder / f"{name}.key", certificates.private_pem(key), files.PRIVATE)
        files.write(folder / "root.crt", certificates.pem(root), files.PUBLIC)
        files.write(folder / "issuing.crt", certificates.pem(issuing), files.PUBLIC)
        # Written last: an authority with this file is complete.
        files.write(folder / "clinic.json", json.dumps({"clinic": clinic}) + "\n", files.PUBLIC)
        return cls(folder, clinic, root, issuing)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The authority in `folder`."""
        if not (folder / "clinic.json").exists():
            raise AuthorityRefused(
                f"{folder} holds no clinic authority: make one with "
                f"'dermakiosk provision authority --state {folder}'."
            )
        clinic = json.loads((folder / "clinic.json").read_text())["clinic"]
        root, issuing = (
            x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
            for name in ("root", "issuing")
        )
        return cls(folder, clinic, root, issuing)

    def make_broker(self, out: Path, port: int, hosts: tuple[str, ...] = ()) -> Path:
        """Write a broker's folder with a new server certificate, and return its mosquitto.conf."""
        key = certificates.generate_tls_key()
        server = certificates.make_server(
            key.public_key(), hosts or LOOPBACK, self._issuing_key(), self.issuing
        )
        return write_broker(
            out,
            port=port,
            root=certificates.pem(self.root),
            certificate=certificates.pem(server, self.issuing),
            key=certificates.private_pem(key),
        )

    def make_role(self, name: str, out: Path) -> None:
        """Write the TLS key and certificate of one of the clinic's own clients of the broker into `out`."""
        if not ROLE.fullmatch(name):
            raise AuthorityRefused(f"'{name}' is no role: choose ingest-1, ingest-2, … or auditor.")
        key = certificates.generate_tls_key()
        files.make_folder(out)
        files.write(out / "tls.key", certificates.private_pem(key), files.PRIVATE)
        self._write_client(key.public_key(), name, out)

    def certify(self, request: bytes, kiosk: UUID) -> x509.Certificate:
        """A client certificate for the key in a signing request (DER); the name is the kiosk's id."""
        key = certificates.requested_key(request)
        return certificates.make_client(key, str(kiosk), self._issuing_key(), self.issuing)

    def _write_client(self, key: ec.EllipticCurvePublicKey, name: str, out: Path) -> None:
        certificate = certificates.make_client(key, name, self._issuing_key(), self.issuing)
        files.write(out / "tls.crt", certificates.pem(certificate, self.issuing), files.PUBLIC)
        files.write(out / "ca.crt", certificates.pem(self.root), files.PUBLIC)

    def _issuing_key(self) -> certificates.TlsKey:
        key = self._key("issuing")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _key(self, name: str) -> object:
        path = self.folder / f"{name}.key"
        if not path.exists():
            raise AuthorityRefused(f"{path} is not there: bring the medium that holds the {name} key.")
        return serialization.load_pem_private_key(path.read_bytes(), None)
