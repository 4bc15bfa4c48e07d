"""Enrolment: a bare kiosk makes its keys, the clinic authority vouches for them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import TypeAdapter, ValidationError

from hardware.board import load_board
from provisioning import certificates, files
from provisioning.authority import Authority
from provisioning.authority_files import AuthorityRefused
from sync.wire import keys as wire_keys
from sync.wire.bounds import Name

_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True)
class KioskRequest:
    """What a kiosk shows of itself to be enrolled: a signing request (DER), its public keys."""

    certificate_request: bytes
    result: Ed25519PublicKey
    status: Ed25519PublicKey
    opening: wire_keys.OpeningPublicKey


def make_keys(kiosk: Path) -> KioskRequest:
    """Make the private keys of the kiosk whose state is `kiosk`. They never leave that folder.

    What signs results is the application's, what speaks to the broker is the sync agent's.
    """
    app, sync = files.make_folder(kiosk / "app"), files.make_folder(kiosk / "sync")
    result, status = wire_keys.generate_signing_key(), wire_keys.generate_signing_key()
    opening = wire_keys.generate_opening_key()
    tls = certificates.generate_tls_key()
    files.write(app / "result.key", wire_keys.dump_signing_key(result), files.PRIVATE)
    files.write(app / "opening.key", wire_keys.dump_opening_keys([opening]), files.PRIVATE)
    files.write(sync / "status.key", wire_keys.dump_signing_key(status), files.PRIVATE)
    files.write(sync / "tls.key", certificates.private_pem(tls), files.PRIVATE)
    request = certificates.make_request(tls)
    return KioskRequest(request, result.public_key(), status.public_key(), opening.public)


def enrol(
    authority: Authority,
    kiosk: Path,
    *,
    board: Path,
    name: str = "kiosk",
    host: str | None = None,
    port: int | None = None,
) -> dict[str, Any]:
    """Enrol the kiosk whose state is `kiosk`, and return the entry that the authority keeps of it.

    The entry (`AUTHORITY/kiosks/<id>.json`) has `kiosk`, `name`, `clinic`, `epoch`, `board`, `enrolled_at`,
    `certificate_until`, `certificate` (PEM) and `keys`: of each public key the `purpose` (`result`, `status`
    or `opening`), the `suite`, and in hex the `kid` and the `public` key.
    """
    if (kiosk / "identity.json").exists():
        raise AuthorityRefused(f"{kiosk} is enrolled already: choose another folder.")
    if (kiosk / "clinic.json").exists():
        raise AuthorityRefused(
            f"{kiosk} holds a clinic's keys, which no kiosk may have: choose another folder."
        )
    try:
        _NAME.validate_python(name if name.strip() else "")
    except ValidationError as error:
        raise AuthorityRefused(
            "A kiosk's name must be 1 to 120 printable characters: choose another."
        ) from error
    profile = load_board(board)
    try:
        board_path = os.fsencode(board.resolve()).decode()
    except UnicodeDecodeError as error:
        raise AuthorityRefused(
            f"{board} has a name that no text can hold: rename it, or its folder."
        ) from error
    clinic_keys, manifest_public = authority.signed_keys(), authority.manifest_public
    address = {"host": host or authority.broker["host"], "port": port or authority.broker["port"]}

    # One that was cut short is begun again under the same id: the clinic would take both for kiosks.
    identity, now = _begun(kiosk) or uuid4(), datetime.now(timezone.utc)
    # Greater than any that a kiosk of this id had before, so that its messages can be put in order.
    epoch = int(now.timestamp())
    request = make_keys(kiosk)
    certificate = authority.certify(request.certificate_request, identity)
    entry = {
        "kiosk": str(identity),
        "name": name,
        "clinic": authority.clinic,
        "epoch": epoch,
        "board": profile.name,
        "enrolled_at": now.isoformat(timespec="seconds"),
        "certificate_until": certificate.not_valid_after_utc.isoformat(timespec="seconds"),
        "keys": [
            _signing_key("result", request.result),
            _signing_key("status", request.status),
            {
                "purpose": "opening",
                "suite": request.opening.suite,
                "kid": request.opening.kid.hex(),
                "public": request.opening.public.hex(),
            },
        ],
        "certificate": certificates.pem(certificate).decode(),
    }
    files.write(kiosk / "sync" / "tls.crt", certificates.pem(certificate, authority.issuing), files.PUBLIC)
    files.write(kiosk / "sync" / "ca.crt", certificates.pem(authority.root), files.PUBLIC)
    files.write(
        kiosk / "clinic-root.pub", wire_keys.public_bytes(authority.root_public).hex() + "\n", files.PUBLIC
    )
    files.write(kiosk / "clinic-keys.cose", clinic_keys, files.PUBLIC)
    files.write(kiosk / "clinic-manifest.pub", manifest_public + "\n", files.PUBLIC)
    facts = {
        "kiosk": str(identity),
        "clinic": authority.clinic,
        "epoch": epoch,
        "broker": address,
        "board": board_path,
    }
    authority.register(entry)
    # Written last: a kiosk with this file is enrolled.
    files.write(kiosk / "identity.json", json.dumps(facts, indent=2) + "\n", files.PUBLIC)
    return entry


def _begun(kiosk: Path) -> UUID | None:
    """The id in the certificate that an enrolment which was cut short has left."""
    try:
        return UUID(certificates.holder(kiosk / "sync" / "tls.crt"))
    except (OSError, ValueError, certificates.CertificateRefused):
        return None


def _signing_key(purpose: str, key: Ed25519PublicKey) -> dict[str, str]:
    kid, public = wire_keys.signing_kid(key).hex(), wire_keys.public_bytes(key).hex()
    return {"purpose": purpose, "suite": "Ed25519", "kid": kid, "public": public}
