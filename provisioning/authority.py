"""The clinic authority: the keys that say who belongs to the clinic."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from . import certificates, files
from .broker import write_broker

ROLE = re.compile(r"ingest-[1-9][0-9]?|auditor")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


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

    @property
    def broker(self) -> dict[str, Any]:
        """Where the clinic's broker is: `host`, `port`, and `share`, the group that its workers share.

        Mosquitto lets every client join every group, and what a client may not read is then lost to the
        group. So the group's name is a secret of the workers.
        """
        path = self.folder / "broker.json"
        if not path.exists():
            raise AuthorityRefused(
                "The clinic has no broker yet: make one with 'dermakiosk provision broker' first."
            )
        address: dict[str, Any] = json.loads(path.read_text())
        return address

    def make_broker(
        self, out: Path, port: int, hosts: Sequence[str] = LOOPBACK, listen: str = "127.0.0.1"
    ) -> Path:
        """Write a broker's folder with a new server certificate, and return its mosquitto.conf.

        The first of `hosts` is the name by which clients are told to reach it.
        """
        key = certificates.generate_tls_key()
        server = certificates.make_server(key.public_key(), hosts, self._issuing_key(), self.issuing)
        configuration = write_broker(
            out,
            port=port,
            address=listen,
            root=certificates.pem(self.root),
            certificate=certificates.pem(server, self.issuing),
            key=certificates.private_pem(key),
        )
        known = self.folder / "broker.json"
        share = self.broker["share"] if known.exists() else f"ingest-{secrets.token_hex(16)}"
        address = {"host": hosts[0], "port": port, "share": share}
        files.write(known, json.dumps(address) + "\n", files.PRIVATE)
        return configuration

    def make_role(self, name: str, out: Path) -> None:
        """Write the keys and the certificate of one of the clinic's own clients of the broker into `out`.

        `out` is a folder in the clinic's state; `broker.json`, which all its processes share, goes beside it.
        """
        if not ROLE.fullmatch(name):
            raise AuthorityRefused(f"'{name}' is no role: choose ingest-1, ingest-2, … or auditor.")
        address = self.broker
        key = certificates.generate_tls_key()
        files.make_folder(out)
        files.write(out.resolve().parent / "broker.json", json.dumps(address) + "\n", files.PRIVATE)
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
