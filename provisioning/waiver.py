"""Waiving: the clinic lets one kiosk measure patients with networks that are meant for research."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from provisioning import files
from provisioning.authority import Authority
from provisioning.authority_files import AuthorityRefused
from sync.wire.statement import StatementError
from sync.wire.waiver import FILE, OTHERS, ResearchWaiver

# Research has an end: whoever wants more signs again.
LONGEST = timedelta(days=366)


def waive(
    authority: Authority, kiosk: Path, networks: Mapping[str, str], *, by: str, reason: str, until: date
) -> Path:
    """Sign a waiver for the kiosk whose state is `kiosk`, and return the file written there.

    The one before stays beside it unless that is for the same networks; of those that fit a kiosk's networks
    the newest decides.
    `networks` are the names of the networks that are for research, each with the SHA-256 of its file in hex.
    Raises AuthorityRefused.
    """
    if not networks:
        raise AuthorityRefused(
            "Every network of this software may be used for patients: no waiver is needed."
        )
    now = datetime.now(timezone.utc)
    if not now.date() <= until <= now.date() + LONGEST:
        raise AuthorityRefused(
            f"A waiver ends between today and {now.date() + LONGEST}, not on {until}: choose another day."
        )
    try:
        waiver = ResearchWaiver(
            kiosk=_kiosk_of(kiosk, authority),
            networks={name: bytes.fromhex(sha256) for name, sha256 in networks.items()},
            by=by.strip(),
            reason=reason.strip(),
            at=now,
            until=until,
        )
    except ValidationError:
        raise AuthorityRefused(
            "Who signs and why are a line of 1 to 128 characters each: write them."
        ) from None
    path, key = kiosk / FILE, authority.manifest_key
    _keep_beside(path, key.public_key(), waiver)
    files.write(path, waiver.sign(key), files.PUBLIC)
    _drop_beside(path, key.public_key(), waiver)
    return path


def _keep_beside(path: Path, key: Ed25519PublicKey, new: ResearchWaiver) -> None:
    """Keep a waiver for other networks, or for more: the kiosk has those until it is updated, or gets them
    back.
    """
    try:
        data = files.read_regular_file(path)
        old = ResearchWaiver.verify(data, key)
    except (FileNotFoundError, StatementError):
        return
    if not _takes_the_place_of(new, old):
        files.write(path.with_name(old.name_beside), data, files.PUBLIC)


def _drop_beside(path: Path, key: Ed25519PublicKey, new: ResearchWaiver) -> None:
    """Nobody needs what the new one has ended."""
    for beside in path.parent.glob(OTHERS):
        with contextlib.suppress(StatementError):
            if _takes_the_place_of(new, ResearchWaiver.verify(files.read_regular_file(beside), key)):
                beside.unlink()


def _takes_the_place_of(new: ResearchWaiver, old: ResearchWaiver) -> bool:
    return old.kiosk == new.kiosk and new.networks == old.networks


def _kiosk_of(kiosk: Path, authority: Authority) -> UUID:
    try:
        identity = UUID(json.loads(files.read_regular_text(kiosk / "identity.json"))["kiosk"])
        belongs_to = files.read_regular_text(kiosk / "clinic-manifest.pub").strip()
    except FileNotFoundError as error:
        raise AuthorityRefused(
            f"{kiosk} is not an enrolled kiosk's: run 'dermakiosk provision enrol' first."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuthorityRefused(
            f"What enrolment wrote in {kiosk} is damaged: enrol the kiosk again."
        ) from error
    if belongs_to != authority.manifest_public:
        raise AuthorityRefused(
            f"{kiosk} belongs to another clinic than {authority.folder}: name the authority that enrolled it."
        )
    return identity
