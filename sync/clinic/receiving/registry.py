"""The kiosks that the clinic knows, each with its public keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import Kiosk, KioskKey
from sync.wire.bounds import Counter, Name, unique
from sync.wire.document import read_document
from sync.wire.keys import KeyRefused, load_public_key, signing_kid
from sync.wire.regular_file import read_regular_file

RESULT, STATUS = "result", "status"
PURPOSES = (RESULT, STATUS)
KEY_S = 60.0


class _PublicKey(BaseModel):
    model_config = ConfigDict(extra="ignore")

    purpose: str
    public: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=4096)]


class RegistryEntry(BaseModel):
    """What the clinic authority writes of a kiosk that it enrolled; other fields are not for us."""

    model_config = ConfigDict(extra="ignore")

    kiosk: UUID
    name: Name = "Kiosk"
    epoch: Counter | None = None
    keys: Annotated[tuple[_PublicKey, ...], unique(lambda key: key.public)]


def register_kiosk(database: Database, path: Path) -> UUID:
    """Take the kiosk of the authority's file `path` into the clinic's registry, or its new keys.

    Keys that it had stay: envelopes signed with them may still be on their way.
    """
    try:
        entry = read_document(RegistryEntry, read_regular_file(path))
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
            session.get_one(Kiosk, entry.kiosk).name = entry.name
        _count_in(session, entry)
        for purpose, key in keys:
            row = KioskKey(
                kiosk=entry.kiosk,
                kid=signing_kid(key),
                purpose=purpose,
                public=key.public_bytes_raw(),
                registered_at=moment,
            )
            if insert_once(session, row):
                note(session, "command", "kiosk_key_registered", entry.kiosk, purpose=purpose)
    return entry.kiosk


def _count_in(session: Session, entry: RegistryEntry) -> None:
    """Have the heartbeats of a kiosk count in the epoch of its enrolment, and none of another."""
    if entry.epoch is None:
        return
    # One that is heard at this moment would otherwise be written over what is set here.
    known = session.get_one(Kiosk, entry.kiosk, with_for_update={"key_share": True}, populate_existing=True)
    known.epoch = entry.epoch
    if known.heartbeat_epoch not in (0, entry.epoch):
        known.heartbeat_epoch = known.heartbeat_counter = 0


class KioskKeys:
    """Which public key a kiosk signs with, looked up once in KEY_S, over a connection of its own.

    Keys are only ever added to the registry. One that somebody took out of the database by hand is believed
    for so long still; one that is not there is looked for each time.
    """

    def __init__(self, database: Database, purpose: str) -> None:
        self._database = database
        self._purpose = purpose
        self._known: dict[tuple[UUID, bytes], Ed25519PublicKey] = {}
        self._since = time.monotonic()

    def find(self, kiosk: UUID, kid: bytes) -> Ed25519PublicKey | None:
        if time.monotonic() - self._since >= KEY_S:
            self._known, self._since = {}, time.monotonic()
        known = self._known.get((kiosk, kid))
        if known is None:
            with self._database.reading() as session:
                known = key_finder(session, self._purpose)(kiosk, kid)
            if known is not None:
                self._known[kiosk, kid] = known
        return known


def key_finder(session: Session, purpose: str) -> Callable[[UUID, bytes], Ed25519PublicKey | None]:
    """The question `which public key is this?`, as verifying asks it."""

    def find(kiosk: UUID, kid: bytes) -> Ed25519PublicKey | None:
        row = session.get(KioskKey, (kiosk, kid))
        return load_public_key(row.public) if row is not None and row.purpose == purpose else None

    return find
