"""Alarms about a kiosk: each is told, and no kiosk can fill the audit log with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select

from sync.clinic.audit import log as audit
from sync.clinic.audit.log import ALARM_EVERY, alarm
from sync.clinic.receiving import poison, unseen_withdrawals
from sync.clinic.receiving.heartbeats import take_heartbeat
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import AuditEvent
from tests.support.clinic import SealingKiosk, heartbeat
from tests.support.withdrawing import arrive, open_all, withdraw

LARGEST = 2**53 - 1
MANY = 8


def alarms(database: Database) -> list[str]:
    with database.reading() as session:
        events = session.scalars(
            select(AuditEvent).where(AuditEvent.event == "alarm").order_by(AuditEvent.id)
        )
        return [event.detail["reason"] for event in events]


def take(database: Database, kiosk: SealingKiosk, data: bytes, topic: str = "result") -> None:
    with database.writing() as session:
        if topic == "status":
            take_heartbeat(session, kiosk.id, data, "ingest-1")
        else:
            take_envelope(session, kiosk.id, topic, data, "ingest-1")


def same_id(database: Database, kiosk: SealingKiosk) -> None:
    message_id = uuid4()
    for _ in range(2):
        take(database, kiosk, kiosk.seal(message_id=message_id))


def same_sequence(database: Database, kiosk: SealingKiosk) -> None:
    for _ in range(2):
        take(database, kiosk, kiosk.seal(sequence=10**6))


def future_on_two_topics(database: Database, kiosk: SealingKiosk) -> None:
    signed = heartbeat(kiosk, counter=LARGEST).sign(kiosk.status)
    for topic in ("result", "status"):
        take(database, kiosk, signed, topic)


def another_epoch(database: Database, kiosk: SealingKiosk) -> None:
    take(database, kiosk, heartbeat(kiosk, epoch=kiosk.epoch + 1).sign(kiosk.status), "status")


def never_scanned(database: Database, kiosk: SealingKiosk) -> None:
    arrive(database, kiosk, withdraw(uuid4()))
    open_all(database, kiosk.opening)


CAUSES: dict[str, Callable[[Database, SealingKiosk], None]] = {
    "same_id_other_hash": same_id,
    "sequence_used_twice": same_sequence,
    "heartbeat_from_the_future": future_on_two_topics,
    "heartbeat_of_another_epoch": another_epoch,
    "too_many_unseen_withdrawals": never_scanned,
}


@pytest.mark.parametrize("room", [0, 2, 200])
@pytest.mark.parametrize("reason", CAUSES)
def test_whatever_a_kiosk_does_again_and_again_is_one_alarm_whether_there_is_room_in_quarantine_or_not(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch, reason: str, room: int
) -> None:
    monkeypatch.setattr(poison, "POISON_CAP", room)
    monkeypatch.setattr(unseen_withdrawals, "MOST_UNSEEN", 1)
    for _ in range(MANY):
        CAUSES[reason](database, kiosk)
    told = alarms(database)
    assert told.count(reason) == 1
    assert set(told) <= {reason, "quarantine_full"} and told.count("quarantine_full") <= 1


def test_an_alarm_is_told_again_after_an_hour_and_of_another_kiosk_or_reason_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, one, other = now(), uuid4(), uuid4()

    def tell(after: timedelta, kiosk: object, reason: str) -> int:
        monkeypatch.setattr(audit, "now", lambda: begin + after)
        with database.writing() as session:
            alarm(session, "ingest-1", kiosk, reason)  # type: ignore[arg-type]
        return len(alarms(database))

    minute = timedelta(minutes=1)
    assert tell(0 * minute, one, "a") == 1
    assert tell(minute, one, "a") == 1
    assert tell(minute, one, "b") == 2
    assert tell(minute, other, "a") == 3
    assert tell(ALARM_EVERY + minute, one, "a") == 4
    # A clock that was set back keeps nothing quiet.
    assert tell(-minute, one, "a") == 5
