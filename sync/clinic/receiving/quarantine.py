"""The quarantine: messages that need a person, and what a person does about them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from sync.clinic.audit.log import note
from sync.clinic.receiving.heartbeats import take_heartbeat
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.poison import claimed_topic
from sync.clinic.receiving.receipts import COMMAND, let_go
from sync.clinic.receiving.registry import STATUS
from sync.clinic.receiving.results import Key
from sync.clinic.receiving.sealed import has_key
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.failure import failed_itself
from sync.clinic.store.one_line import one_line
from sync.clinic.store.tables import (
    DISCARDED,
    ERASED,
    OPENED,
    QUARANTINED,
    RESEAL,
    STORED,
    Envelope,
    Kiosk,
    Poison,
)
from sync.wire import topics

Found = TypeVar("Found")

POLL_S = 0.1
# What becomes of a message that is tried again, as a person reads it.
_BECAME = {
    OPENED: "It was opened.",
    ERASED: "Its scan was withdrawn, so it was erased.",
    DISCARDED: "It was discarded meanwhile.",
    STORED: (
        "It waits for a 'clinic open' that has its key: none runs, or it has more to do; see 'clinic status'."
    ),
}
_TAKEN = {
    "held_back": (
        "its kiosk or the kiosk's key is not registered, or no 'clinic open' has run yet: see 'dermakiosk "
        "clinic status'"
    ),
    "reseal": "it is sealed to a key that was given up, and its kiosk is asked to seal it again",
}


@dataclass(frozen=True)
class Held:
    """One message in quarantine, as far as it may be shown: nothing in it is about a patient.

    `only_here` is True where its kiosk was told that the clinic has it, so it keeps no copy. Else it is None,
    for nobody here knows: the kiosk was to keep one, but its scan may be deleted, or its disk be lost.
    `id` is the message's own where its signature was good (an envelope), otherwise the payload's number here.
    """

    id: str
    kind: str
    kiosk: UUID
    name: str | None
    topic: str | None
    type: str | None
    reason: str
    received_at: datetime
    size: int
    sha256: bytes
    only_here: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "kiosk": str(self.kiosk),
            "name": self.name,
            "topic": self.topic,
            "type": self.type,
            "reason": self.reason,
            "received_at": self.received_at.isoformat(timespec="seconds"),
            "bytes": self.size,
            "sha256": self.sha256.hex(),
            "only_here": self.only_here,
        }


def held(session: Session) -> list[Held]:
    """Everything in quarantine, oldest first.

    Only columns of our own making are read: a kiosk's may be what is wrong with a row.
    """
    names: dict[UUID, str] = {kiosk: name for kiosk, name in session.execute(select(Kiosk.id, Kiosk.name))}
    envelopes = select(
        Envelope.message_id,
        Envelope.kiosk,
        Envelope.type,
        Envelope.reason,
        Envelope.received_at,
        func.length(Envelope.data),
        Envelope.sha256,
        let_go(),
    ).where(Envelope.state == QUARANTINED)
    payloads = select(
        Poison.id,
        Poison.kiosk,
        Poison.topic,
        Poison.reason,
        Poison.received_at,
        func.length(Poison.data),
        Poison.sha256,
    )
    found = [
        Held(
            str(row),
            "envelope",
            kiosk,
            names.get(kiosk),
            topics.up_kind(kind),
            kind,
            reason or "",
            received_at,
            size,
            sha256,
            only_here=True if has_let_go else None,
        )
        for row, kiosk, kind, reason, received_at, size, sha256, has_let_go in session.execute(envelopes)
    ] + [
        Held(str(row), "payload", kiosk, names.get(kiosk), topic, None, reason, *rest)
        for row, kiosk, topic, reason, *rest in session.execute(payloads)
    ]
    return sorted(found, key=lambda one: (one.received_at, one.id))


def find(session: Session, wanted: str, kiosk: UUID | None = None) -> Held:
    """The one message of this id. Raises ClinicUsageError."""
    found = [one for one in held(session) if one.id == wanted.lower() and kiosk in (None, one.kiosk)]
    if not found:
        raise ClinicUsageError(
            f"There is no message {wanted!r:.60} in quarantine: 'dermakiosk clinic quarantine list' "
            "shows those that are."
        )
    if len(found) > 1:
        raise ClinicUsageError(
            f"{len(found)} kiosks have a message {wanted} in quarantine: say which one with --kiosk."
        )
    return found[0]


def retry(database: Database, one: Held, actor: str, wait_s: float) -> tuple[bool, str]:
    """Try `one` again: whether it is out of quarantine, and a sentence about what became of it.

    The key that opens envelopes stays with the opener: this only hands the envelope back to it, and looks
    for up to `wait_s` what it makes of it.
    """
    if one.topic == STATUS:
        return _hear_again(database, one, actor)
    key = _take_again(database, one, actor) if one.kind == "payload" else _hand_back(database, one, actor)
    if key is None:
        database.scrub()
        return True, _BECAME[ERASED]
    if isinstance(key, str):
        return False, key
    deadline = time.monotonic() + wait_s
    while True:
        with database.reading() as session:
            found = session.execute(select(Envelope.state, Envelope.reason).where(has_key(key))).one()
        state, reason = found
        if state != STORED or time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    if state == QUARANTINED:
        return False, f"It is in quarantine again: {reason}."
    return True, _BECAME[state]


def discard(database: Database, one: Held, actor: str, reason: str) -> None:
    """Erase what `one` holds, for good; of an envelope the ids, the times and the SHA-256 stay.

    Its kiosk is told nothing of it; whether it has a copy nobody here knows, unless `one` is `only_here`.
    """
    with database.writing() as session:
        if one.kind == "payload":
            gone = session.execute(delete(Poison).where(Poison.id == int(one.id)).returning(Poison.id))
        else:
            quarantined = update(Envelope).where(has_key(_key(one)), Envelope.state == QUARANTINED)
            gone = session.execute(
                quarantined.values(data=b"", state=DISCARDED).returning(Envelope.message_id)
            )
        _require(gone.first())
        _note(session, actor, "quarantine_discarded", one, why=reason)
    database.scrub()


def _hand_back(database: Database, one: Held, actor: str) -> Key:
    with database.writing() as session:
        quarantined = update(Envelope).where(has_key(_key(one)), Envelope.state == QUARANTINED)
        again = quarantined.values(state=STORED, reason=None).returning(Envelope.message_id)
        _require(session.execute(again).first())
        _note(session, actor, "quarantine_retried", one)
    return _key(one)


def _hear_again(database: Database, one: Held, actor: str) -> tuple[bool, str]:
    with database.writing() as session:
        row = _claimed(session, one)
        _note(session, actor, "quarantine_retried", one)
        if take_heartbeat(session, row.kiosk, row.data, COMMAND, row.received_at) != "heartbeat":
            return False, f"It stays in quarantine: {one.reason}."
        session.delete(row)
    return True, "It was heard, as a heartbeat of its kiosk."


def _take_again(database: Database, one: Held, actor: str) -> Key | str | None:
    """Take a payload in as if it came now: the key of the envelope that it became, or why it became none.

    None where it was erased, because its kiosk has withdrawn it.
    """
    with database.writing() as session:
        _note(session, actor, "quarantine_retried", one)
    try:
        with database.writing() as session:
            row = _claimed(session, one)
            kiosk, data, sha256 = row.kiosk, row.data, row.sha256
            topic = row.topic or claimed_topic(data)
            outcome = take_envelope(session, kiosk, topic, data, COMMAND)
            if outcome == "withdrawn":
                session.delete(row)
                return None
            kept = (Envelope.kiosk == kiosk) & (Envelope.sha256 == sha256) & (Envelope.state != RESEAL)
            taken = session.scalars(select(Envelope.message_id).where(kept)).first()
            if taken is not None:
                session.execute(delete(Poison).where(Poison.id == row.id))
                return kiosk, taken
    except ClinicError:
        raise
    except Exception as error:
        # Whatever it is in the payload that made it poison, as for ingest.
        if failed_itself(error):
            raise
        return f"It stays in quarantine: it cannot be stored ({type(error).__name__})."
    return f"It stays in quarantine: {_TAKEN.get(outcome, one.reason)}."


def _claimed(session: Session, one: Held) -> Poison:
    """The row of a payload, to which nobody else sees meanwhile. SQLite has one writer."""
    return _require(session.get(Poison, int(one.id), with_for_update=True))


def _note(session: Session, actor: str, event: str, one: Held, **detail: str) -> None:
    note(
        session,
        actor,
        event,
        one.id,
        kiosk=str(one.kiosk),
        reason=one.reason,
        sha256=one.sha256.hex(),
        **detail,
    )


def _require(found: Found | None) -> Found:
    if found is None:
        raise ClinicError("It is not in quarantine any more: somebody else has seen to it.")
    return found


def _key(one: Held) -> Key:
    return one.kiosk, UUID(one.id)


def as_table(found: list[Held]) -> str:
    """The list as a person reads it."""
    rows = [("id", "kiosk", "topic", "received", "bytes", "reason")]
    rows += [
        (
            one.id,
            one.name or str(one.kiosk),
            one.type or one.topic or "-",
            one.received_at.isoformat(timespec="seconds"),
            str(one.size),
            one.reason,
        )
        for one in found
    ]
    lines = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_text(one: Held) -> str:
    """One message as a person reads it."""
    return "\n".join(
        f"{name:<13}{one_line(value)}" for name, value in one.as_json().items() if value is not None
    )
