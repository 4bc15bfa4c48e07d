"""The clinic authority: the keys that say who belongs to the clinic."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from provisioning import certificates, files
from provisioning.authority_files import (
    AuthorityRefused,
    Broker,
    Clinic,
    Entry,
    KeysListed,
    read_certificate,
    read_json,
    read_public_key,
    read_signing_key,
    read_tls_key,
    whole,
)
from provisioning.broker import AUDITOR, INGEST_WORKERS, write_broker
from sync.wire import keys as wire_keys
from sync.wire.clinic_keys import MOST_KEYS, ClinicKeys

_KEY_FILE_BYTES = 1 << 20  # more than any; it may be a file that another account put there
Key = TypeVar("Key", Ed25519PrivateKey, certificates.TlsKey)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Authority:
    """A clinic authority in its folder.

    `root.key` may be kept on another medium; it is needed when the clinic's key set changes, and to renew the
    issuing certificate.
    """

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
        _refuse_what_was_used(folder)
        files.make_folder(folder)
        files.make_folder(folder / "kiosks")
        root_key, manifest_key = wire_keys.generate_signing_key(), wire_keys.generate_signing_key()
        issuing_key = certificates.generate_tls_key()
        root = certificates.make_root(root_key, clinic)
        issuing = certificates.make_issuing(issuing_key.public_key(), clinic, root_key, root)
        files.write(folder / "root.key", wire_keys.dump_signing_key(root_key), files.PRIVATE)
        files.write(folder / "manifest.key", wire_keys.dump_signing_key(manifest_key), files.PRIVATE)
        files.write(folder / "manifest.pub", wire_keys.public_bytes(manifest_key).hex() + "\n", files.PUBLIC)
        files.write(folder / "issuing.key", certificates.private_pem(issuing_key), files.PRIVATE)
        files.write(folder / "root.crt", certificates.pem(root), files.PUBLIC)
        files.write(folder / "issuing.crt", certificates.pem(issuing), files.PUBLIC)
        # Written last: an authority with this file is complete.
        files.write(folder / "clinic.json", json.dumps({"clinic": clinic}) + "\n", files.PUBLIC)
        return cls(folder, clinic, root, issuing)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The authority in `folder`."""
        if not (folder / "clinic.json").exists():
            _refuse_what_was_used(folder)
            raise AuthorityRefused(
                f"{folder} holds no clinic authority: make one with "
                f"'dermakiosk provision authority --state {folder}'."
            )
        clinic = read_json(folder / "clinic.json", Clinic)["clinic"]
        root, issuing = (read_certificate(folder / f"{name}.crt") for name in ("root", "issuing"))
        return cls(folder, clinic, root, issuing)

    def renew_issuing(self) -> Authority:
        """This authority with a new issuing certificate for the same key: what it issued stays good."""
        key = self.issuing.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise AuthorityRefused(f"{self.folder / 'issuing.crt'} is not one of ours: restore it.")
        issuing = certificates.make_issuing(key, self.clinic, self._root_key(), self.root)
        files.write(self.folder / "issuing.crt", certificates.pem(issuing), files.PUBLIC)
        return replace(self, issuing=issuing)

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
        return read_json(path, Broker)

    def make_broker(
        self,
        out: Path,
        port: int,
        hosts: Sequence[str] = LOOPBACK,
        listen: str = "127.0.0.1",
        user: str | None = None,
    ) -> Path:
        """Write a broker's folder with a new server certificate, and return its mosquitto.conf.

        The first of `hosts` is the name by which clients are told to reach it; `user` is the account
        that it runs as.
        """
        known = self.folder / "broker.json"
        share = self.broker["share"] if known.exists() else f"ingest-{secrets.token_hex(16)}"
        key = certificates.generate_tls_key()
        server = certificates.make_server(key.public_key(), hosts, self._issuing_key(), self.issuing)
        configuration = write_broker(
            out,
            port=port,
            address=listen,
            root=certificates.pem(self.root),
            certificate=certificates.pem(server, self.issuing),
            key=certificates.private_pem(key),
            user=user,
        )
        address = {"host": hosts[0], "port": port, "share": share}
        files.write(known, json.dumps(address) + "\n", files.PRIVATE)
        return configuration

    def make_role(self, name: str, out: Path) -> None:
        """Write the keys and the certificate of one of the clinic's own clients of the broker into `out`.

        `out` is a folder in the clinic's state; `broker.json`, which all its processes share, goes beside it.
        A second time, the TLS key and its certificate are new and an ingest worker's receipt key stays; what
        root writes belongs to whom the folder belongs.
        """
        if name not in (*INGEST_WORKERS, AUDITOR):
            raise AuthorityRefused(
                f"'{name}' is no role: choose {INGEST_WORKERS[0]} to {INGEST_WORKERS[-1]}, or {AUDITOR}."
            )
        if (out / "tls.crt").exists() and (holder := certificates.holder(out / "tls.crt")) != name:
            raise AuthorityRefused(f"{out} belongs to {holder}: choose another folder for {name}.")
        address, key = self.broker, certificates.generate_tls_key()
        certificate = certificates.make_client(key.public_key(), name, self._issuing_key(), self.issuing)
        folder = files.real_path(files.make_folder(out))
        owner, beside = files.owner_of(folder), folder.parent / "broker.json"
        if name in INGEST_WORKERS:
            self._list_receipt_key(out / "receipt.key")
        said = (json.dumps(address) + "\n").encode()
        if files.read(beside, len(said) + 1) != said:  # it may have been given to others than this role
            files.write(beside, said, files.PRIVATE, owner)
        files.write(out / "ca.crt", certificates.pem(self.root), files.PUBLIC, owner)
        files.write(out / "tls.key", certificates.private_pem(key), files.PRIVATE, owner)
        files.write(out / "tls.crt", certificates.pem(certificate, self.issuing), files.PUBLIC, owner)

    def make_opener(self, out: Path) -> Path:
        """Write a new opening key into `out`, list its public half, and return the file.

        A key that is there and not listed yet is listed; a listed one is never replaced.
        """
        path = files.make_folder(out) / "opening.key"
        key_file = files.read_own(path, _KEY_FILE_BYTES)
        if key_file is None:
            self._require_listable("opening", self._listed())
            key_file = wire_keys.dump_opening_keys([wire_keys.generate_opening_key()])
            files.write(path, key_file, files.PRIVATE, files.owner_of(path.parent))
        public = wire_keys.load_opening_keys(key_file)[-1].public
        listed = {"suite": public.suite, "public": public.public.hex()}
        if not self._list_key("opening", listed):
            raise AuthorityRefused(f"{path} is the clinic's opening key already: keep it.")
        return path

    def signed_keys(self) -> bytes:
        """The clinic's key set as the root signed it; it is checked before it is given to anybody."""
        path = self._signed
        if not path.exists():
            raise AuthorityRefused(
                "The clinic has no opening key or no receipt key yet: run 'dermakiosk provision opener' "
                "and 'dermakiosk provision role ingest-1' first."
            )
        data = files.read_regular_file(path)
        with whole(path):
            ClinicKeys.verify(data, self.root_public)
        return data

    @property
    def root_public(self) -> Ed25519PublicKey:
        """The public half of the clinic's root key."""
        key = self.root.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise AuthorityRefused(f"{self.folder / 'root.crt'} is not one of ours: restore it.")
        return key

    @property
    def manifest_public(self) -> str:
        """The public half of the key that signs the manifest of the networks, in hex."""
        path = self.folder / "manifest.pub"
        if not path.exists():
            raise AuthorityRefused(f"{path} is not there: restore it from a copy of the authority's folder.")
        return read_public_key(path)

    @property
    def manifest_key(self) -> Ed25519PrivateKey:
        """The key that signs what is about networks; it may be kept on another medium."""
        path = self._private("manifest")
        key = read_signing_key(path)
        return _of_this_clinic(
            path, "manifest.pub", key, wire_keys.public_bytes(key).hex() == self.manifest_public
        )

    def certify(self, request: bytes, kiosk: UUID) -> x509.Certificate:
        """A client certificate for the key in a signing request (DER); the name is the kiosk's id."""
        key = certificates.requested_key(request)
        return certificates.make_client(key, str(kiosk), self._issuing_key(), self.issuing)

    def register(self, entry: dict[str, Any]) -> None:
        """Keep the entry of an enrolled kiosk."""
        path = self.folder / "kiosks" / f"{entry['kiosk']}.json"
        files.write(path, json.dumps(entry, indent=2) + "\n", files.PUBLIC)

    def kiosks(self) -> list[dict[str, Any]]:
        """The entries of the enrolled kiosks, in the order of their enrolment."""
        entries = [read_json(path, Entry) for path in (self.folder / "kiosks").glob("*.json")]
        return sorted(entries, key=lambda entry: (entry["enrolled_at"], entry["kiosk"]))

    def _list_receipt_key(self, path: Path) -> None:
        key_file = files.read_own(path, _KEY_FILE_BYTES)
        if key_file is None:
            self._require_listable("receipt", self._listed())
            key_file = wire_keys.dump_signing_key(wire_keys.generate_signing_key())
            files.write(path, key_file, files.PRIVATE, files.owner_of(path.parent))
        self._list_key("receipt", wire_keys.public_bytes(wire_keys.load_signing_key(key_file)).hex())

    def _list_key(self, purpose: str, key: Any) -> bool:
        """List a public key as the newest of its purpose, in a new version of the set; False if it was."""
        with files.locked(self.folder):
            listed = self._listed()
            new = key not in listed[purpose]
            if new:
                self._require_listable(purpose, listed)
                listed[purpose].append(key)
                listed["version"] += 1
                files.write(self._list, json.dumps(listed, indent=2) + "\n", files.PUBLIC)
            if listed["opening"] and listed["receipt"]:
                self._sign(listed)
            return new

    @property
    def _list(self) -> Path:
        return self.folder / "clinic-keys.json"

    @property
    def _signed(self) -> Path:
        return self.folder / "clinic-keys.cose"

    def _listed(self) -> dict[str, Any]:
        """The public keys that are in the key set, or are to be. Raises AuthorityRefused."""
        listed: dict[str, Any] = {"version": 0, "opening": [], "receipt": []}
        if self._list.exists():
            listed = read_json(self._list, KeysListed)
        signed = self._key_set()
        if signed is not None and not _lists_all(listed, signed):
            raise AuthorityRefused(
                f"{self._list} is older than {self._signed}, and no key may be lost: bring back the newest "
                "copy of both."
            )
        return listed

    def _key_set(self) -> ClinicKeys | None:
        """What is signed; None where nothing is yet."""
        if not self._signed.exists():
            return None
        data = files.read_regular_file(self._signed)
        with whole(self._signed):
            return ClinicKeys.verify(data, self.root_public)

    def _require_listable(self, purpose: str, listed: Mapping[str, Any]) -> None:
        """Raises AuthorityRefused where a new key of this purpose could not be listed: then none is made."""
        self._root_key()
        if len(listed[purpose]) >= MOST_KEYS:
            raise AuthorityRefused(
                f"The clinic lists {MOST_KEYS} {purpose} keys, and kiosks take no more: put the {purpose}.key"
                " of a folder that nobody uses any more into the new one, then run this command again."
            )

    def _sign(self, listed: dict[str, Any]) -> None:
        """Sign what is listed, unless this version is signed already."""
        before = self._key_set()
        if before is not None and before.version == listed["version"]:
            return
        root_key = self._root_key()
        with whole(self._list):
            opening = (
                wire_keys.OpeningPublicKey(item["suite"], bytes.fromhex(item["public"]))
                for item in listed["opening"]
            )
            receipt = map(bytes.fromhex, listed["receipt"])
            now = datetime.now(timezone.utc)
            key_set = ClinicKeys(listed["version"], now, tuple(opening), tuple(receipt))
            signed = key_set.sign(root_key)
        files.write(self._signed, signed, files.PUBLIC)

    def _root_key(self) -> Ed25519PrivateKey:
        path = self._private("root")
        key = read_signing_key(path)
        return _of_this_clinic(path, "root.crt", key, key.public_key() == self.root.public_key())

    def _issuing_key(self) -> certificates.TlsKey:
        path = self._private("issuing")
        key = read_tls_key(path)
        return _of_this_clinic(path, "issuing.crt", key, key.public_key() == self.issuing.public_key())

    def _private(self, name: str) -> Path:
        """The file of one of the authority's own keys, which is there."""
        path = self.folder / f"{name}.key"
        if not path.exists():
            raise AuthorityRefused(f"{path} is not there: bring the medium that holds the {name} key.")
        return path


def _refuse_what_was_used(folder: Path) -> None:
    """Raises AuthorityRefused where a folder without clinic.json has more than a making that was cut leaves.

    New keys would take the place of those that kiosks believe.
    """
    made_later = [folder / name for name in ("broker.json", "clinic-keys.json", "clinic-keys.cose")]
    used = next((path for path in (*made_later, *(folder / "kiosks").glob("*.json")) if path.exists()), None)
    if used is not None:
        raise AuthorityRefused(
            f"{folder} holds {used.name} and no clinic.json: if it is an authority's, restore that from a "
            "copy of it; for a new authority choose another folder."
        )


def _of_this_clinic(path: Path, public: str, key: Key, is_its: bool) -> Key:
    """The private `key` of `path`. Raises AuthorityRefused where it is not that of the file named `public`.

    Nobody would believe what it signs, and what is signed takes the place of what was good.
    """
    if not is_its:
        raise AuthorityRefused(
            f"{path} is not the key of {path.with_name(public)}: one of them is another clinic's, so bring "
            "this clinic's own."
        )
    return key


def _lists_all(listed: Mapping[str, Any], signed: ClinicKeys) -> bool:
    """Whether the key set `signed` is what is `listed`, or a version before it."""
    if listed["version"] != signed.version:
        return bool(listed["version"] > signed.version)
    opening, receipt = [key.public.hex() for key in signed.opening], [key.hex() for key in signed.receipt]
    return ([key["public"] for key in listed["opening"]], listed["receipt"]) == (opening, receipt)
