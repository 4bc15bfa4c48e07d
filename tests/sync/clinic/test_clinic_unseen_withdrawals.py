"""Withdrawals of scans that never came: bounded for each kiosk, and no such scan is ever opened."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from sync.clinic import quarantine, withdrawals
from sync.clinic.database import Database, now
from sync.clinic.tables import AuditEvent, Envelope, FindingRow, Scan
from sync.clinic.withdrawals import UNSEEN_WINDOW
from tests.support.clinic import SealingKiosk, registered
from tests.support.withdrawing import (
    REFERENCE,
    a_result,
    arrive,
    count,
    envelope,
    everything,
    open_all,
    withdraw,
)

MOST = 3


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "MOST_UNSEEN", MOST)


def flood(database: Database, kiosk: SealingKiosk, number: int = MOST + 4) -> dict[UUID, UUID]:
    """Withdrawals of so many scans that nobody has sent: each scan with its withdrawal's message."""
    invented = {scan: arrive(database, kiosk, withdraw(scan)) for scan in (uuid4() for _ in range(number))}
    open_all(database, kiosk.opening)
    return invented


def of_kiosk(database: Database, kiosk: SealingKiosk) -> list[UUID]:
    """The scans of its tombstones in the file."""
    return [stone.scan for stone in database.tombstones.read() if stone.kiosk == kiosk.id]


def alarms(database: Database) -> list[tuple[str | None, str]]:
    with database.reading() as session:
        events = session.scalars(select(AuditEvent).where(AuditEvent.event == "alarm"))
        return [(event.subject, event.detail["reason"]) for event in events]


def test_a_flood_of_invented_withdrawals_leaves_few_tombstones_and_one_alarm(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    invented = flood(database, kiosk)
    assert of_kiosk(database, kiosk) == list(invented)[:MOST]
    states = [envelope(database, word).state for word in invented.values()]
    assert states == ["opened"] * MOST + ["quarantined"] * 4
    assert alarms(database) == [(str(kiosk.id), "too_many_unseen_withdrawals")]
    with database.reading() as session:
        assert {one.reason for one in quarantine.held(session)} == {"too_many_unseen_withdrawals"}
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    flood(database, other, MOST)
    assert len(of_kiosk(database, other)) == MOST
    assert len(alarms(database)) == 1


def test_a_late_result_of_a_withdrawal_that_was_one_too_many_is_erased_and_not_opened(
    database: Database, kiosk: SealingKiosk
) -> None:
    invented = flood(database, kiosk)
    results = [arrive(database, kiosk, a_result(kiosk, scan)) for scan in invented]
    open_all(database, kiosk.opening)
    assert {envelope(database, result).data for result in results} == {b""}
    open_all(database, kiosk.opening, again=True)
    assert (count(database, Scan), count(database, FindingRow)) == (0, 0)
    assert REFERENCE not in everything(database)
    # Now that their scans have come, nothing is invented any more.
    assert set(of_kiosk(database, kiosk)) == set(invented)


@pytest.mark.parametrize(
    "state", [{"state": "stored"}, {"reason": "no_opening_key"}, {"reason": "not_foreseen:KeyError"}]
)
def test_a_late_result_is_not_opened_while_its_withdrawal_is_tried_again_whatever_becomes_of_that(
    database: Database, kiosk: SealingKiosk, state: dict[str, str]
) -> None:
    *_, (scan, word) = flood(database, kiosk).items()
    with database.writing() as session:
        session.execute(update(Envelope).where(Envelope.message_id == word).values(state))
        result = Envelope(kiosk=kiosk.id, message_id=uuid4(), type="result")
        assert withdrawals.comes_too_late(session, result, scan)


def test_scans_that_came_are_withdrawn_however_many_and_whatever_was_invented(
    database: Database, kiosk: SealingKiosk
) -> None:
    flood(database, kiosk)
    scans = [uuid4() for _ in range(2 * MOST)]
    results = [arrive(database, kiosk, a_result(kiosk, scan)) for scan in scans]
    unopened = uuid4()
    waiting = arrive(database, kiosk, a_result(kiosk, unopened))
    for scan, result in zip([*scans, unopened], [*results, waiting], strict=True):
        arrive(database, kiosk, withdraw(scan, result))
    open_all(database, kiosk.opening)
    assert set(of_kiosk(database, kiosk)) >= {*scans, unopened}
    assert count(database, Scan) == 0


def test_a_withdrawal_that_names_another_scans_messages_is_no_less_invented(
    database: Database, kiosk: SealingKiosk
) -> None:
    flood(database, kiosk)
    result = arrive(database, kiosk, a_result(kiosk, uuid4()))
    open_all(database, kiosk.opening)
    word = arrive(database, kiosk, withdraw(uuid4(), result))
    open_all(database, kiosk.opening)
    assert envelope(database, word).reason == "too_many_unseen_withdrawals"
    assert count(database, Scan) == 1


def test_those_that_waited_are_tombstones_once_there_is_room_again(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    invented = flood(database, kiosk, MOST + 2)
    later = now() + UNSEEN_WINDOW + timedelta(days=1)
    monkeypatch.setattr(withdrawals, "now", lambda: later)
    open_all(database, kiosk.opening, again=True)
    assert set(of_kiosk(database, kiosk)) == set(invented)
    with database.reading() as session:
        assert quarantine.held(session) == []
