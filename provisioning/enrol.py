"""Enrolment: a bare kiosk makes its keys, the clinic authority vouches for them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from uuid import UUID, uuid4

from . import certificates, files
from .authority import Authority, AuthorityRefused


def enrol(authority: Authority, kiosk: Path, *, board: str, host: str, port: int) -> UUID:
    """Enrol the kiosk whose state is `kiosk`, and return its new id.

    Its private keys are made in that folder and stay there; the authority sees a signing request.
    """
    if (kiosk / "identity.json").exists():
        raise AuthorityRefused(f"{kiosk} is enrolled already: choose another folder.")
    identity = uuid4()
    sync = files.make_folder(kiosk / "sync")
    tls_key = certificates.generate_tls_key()
    files.write(sync / "tls.key", certificates.private_pem(tls_key), files.PRIVATE)
    certificate = authority.certify(certificates.make_request(tls_key), identity)
    files.write(sync / "tls.crt", certificates.pem(certificate, authority.issuing), files.PUBLIC)
    files.write(sync / "ca.crt", certificates.pem(authority.root), files.PUBLIC)
    facts = {
        "kiosk": str(identity),
        "clinic": authority.clinic,
        "epoch": int(time.time()),
        "broker": {"host": host, "port": port},
        "board": board,
    }
    files.write(kiosk / "identity.json", json.dumps(facts, indent=2) + "\n", files.PUBLIC)
    return identity
