"""Messages that the clinic set apart, and the command that sees to them."""

from __future__ import annotations

import json
from typing import Any, ClassVar
from uuid import UUID, uuid4

from click.testing import CliRunner, Result
from sqlalchemy import select, update

from sync.clinic.cli import clinic
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import AuditEvent, Envelope, Poison
from sync.wire.keys import OpeningKey
from sync.wire.messages import Message, Withdraw
from tests.support.clinic import SealingKiosk


class Newer(Withdraw):
    """A message of a version that the clinic's software does not know yet."""

    VERSION: ClassVar[int] = 99


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(clinic, ["quarantine", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def said(result: Result) -> str:
    """The last line: what an opener in this process logs comes before it."""
    return result.output.splitlines()[-1]


def arrive(database: Database, kiosk: SealingKiosk, message: Message | None = None) -> UUID:
    message_id = uuid4()
    with database.writing() as session:
        take_envelope(session, kiosk.id, "result", kiosk.seal(message, message_id=message_id), "ingest-1")
    return message_id


def open_all(database: Database, *keys: OpeningKey) -> None:
    opener = Opener(database, keys)
    opener.begin()
    while opener.open_next():
        pass


def a_second_result(database: Database, kiosk: SealingKiosk) -> tuple[UUID, UUID]:
    """An envelope in quarantine, and the scan whose record is in its way."""
    result = kiosk.result()
    arrive(database, kiosk, result)
    second = arrive(database, kiosk, result)
    open_all(database, kiosk.opening)
    return second, result.scan


def a_payload(database: Database, kiosk: SealingKiosk) -> tuple[str, bytes, UUID]:
    """The number of a good envelope that was set apart as poison, its bytes and its message."""
    message_id = uuid4()
    data = kiosk.seal(message_id=message_id)
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "reminder", data, "ingest-1") == "quarantined"
        session.execute(update(Poison).values(topic="result"))
    (one,) = listed()
    return one["id"], data, message_id


def listed() -> list[dict[str, Any]]:
    found = json.loads(run("list", "--json").output)
    assert isinstance(found, list)
    return found


def row(database: Database, message: UUID) -> Envelope:
    with database.reading() as session:
        return session.scalars(select(Envelope).where(Envelope.message_id == message)).one()


def acts(database: Database) -> list[tuple[str, str | None]]:
    with database.reading() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.event.like("quarantine_%")))
        found = list(rows)
    assert all(event.actor.startswith("command:") and len(event.actor) > 8 for event in found)
    return [(event.event, event.subject) for event in found]
