"""The kiosks that the clinic knows, each with its public keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session

from sync.wire.keys import KeyRefused, load_public_key, signing_kid

from .audit import note
from .database import Database, insert_once, now
from .errors import ClinicUsageError
from .tables import Kiosk, KioskKey

RESULT, STATUS = "result", "status"
PURPOSES = (RESULT, STATUS)


class _PublicKey(BaseModel):
    model_config = ConfigDict(extra="ignore")

    purpose: str
    public: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=4096)]


class RegistryEntry(BaseModel):
    """What the clinic authority writes of a kiosk that it enrolled; other fields are not for us."""

    model_config = ConfigDict(extra="ignore")

    kiosk: UUID
    name: Annotated[str, Field(min_length=1, max_length=120)] = "Kiosk"
    keys: tuple[_PublicKey, ...]


def register_kiosk(database: Database, path: Path) -> UUID:
    """Take the kiosk of the authority's file `path` into the clinic's registry, or its new keys.

    Keys that it had stay: envelopes signed with them may still be on their way.
    """
    try:
        entry = RegistryEntry.model_validate(json.loads(path.read_bytes()))
        keys = [
            (key.purpose, load_public_key(bytes.fromhex(key.public)))
            for key in entry.keys
            if key.purpose in PURPOSES
        ]
        if {purpose for purpose, _ in keys} != set(PURPOSES):
            raise ValueError("a key is missing")
    except OSError as error:
        raise ClinicUsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, ValidationError, KeyRefused) as error:
        raise ClinicUsageError(
            f"{path} is no file of an enrolled kiosk: name one that the authority wrote, under kiosks/."
        ) from error
    moment = now()
    with database.writing() as session:
        if not insert_once(session, Kiosk(id=entry.kiosk, name=entry.name, registered_at=moment)):
            known = session.get(Kiosk, entry.kiosk)
            assert known is not None
            known.name = entry.name
        for purpose, key in keys:
            row = KioskKey(
                kiosk=entry.kiosk,
                kid=signing_kid(key),
                purpose=purpose,
                public=key.public_bytes_raw(),
                registered_at=moment,
            )
            if insert_once(session, row):
                note(session, "command", "kiosk-key-registered", entry.kiosk, purpose=purpose)
    return entry.kiosk


def key_finder(session: Session, purpose: str) -> Callable[[UUID, bytes], Ed25519PublicKey | None]:
    """The question `which public key is this?`, as verifying asks it."""

    def find(kiosk: UUID, kid: bytes) -> Ed25519PublicKey | None:
        row = session.get(KioskKey, (kiosk, kid))
        return load_public_key(row.public) if row is not None and row.purpose == purpose else None

    return find
