"""Withdrawals of scans that never came: bounded for each kiosk, and no such scan is ever opened."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select

from sync.clinic.receiving import erasing, opening_alone, quarantine, unseen_withdrawals
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.unseen_withdrawals import UNSEEN_WINDOW
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import (
    AuditEvent,
    Envelope,
    FindingRow,
    ReminderRow,
    Scan,
    Withdrawal,
    WithdrawnMessage,
)
from sync.clinic.store.tombstones import Tombstones, TombstonesUnusable
from sync.wire.keys import OpeningKey, generate_opening_key
from tests.support.clinic import SealingKiosk, hold, miss, registered
from tests.support.waiting import wait_until
from tests.support.withdrawing import (
    REFERENCE,
    a_reminder,
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
    monkeypatch.setattr(unseen_withdrawals, "MOST_UNSEEN", MOST)


def flood(database: Database, kiosk: SealingKiosk, number: int = MOST + 4) -> dict[UUID, UUID]:
    """Withdrawals of so many scans that nobody has sent: each scan with its withdrawal's message."""
    invented = {scan: arrive(database, kiosk, withdraw(scan)) for scan in (uuid4() for _ in range(number))}
    open_all(database, kiosk.opening)
    return invented


def of_kiosk(database: Database, kiosk: SealingKiosk) -> list[UUID]:
    """The scans of its tombstones in the file, but for those that wait in quarantine."""
    return [one.scan for one in database.tombstones.read() if one.kiosk == kiosk.id and not one.unseen]


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
    assert (count(database, Scan), count(database, FindingRow)) == (0, 0)
    assert REFERENCE not in everything(database)
    # Now that their scans have come, nothing is invented any more, and nobody had to retry.
    assert set(of_kiosk(database, kiosk)) == set(invented)
    with database.reading() as session:
        assert quarantine.held(session) == []


def waits_for_the_file(database: Database, kiosk: SealingKiosk, patch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise TombstonesUnusable("no room")

    patch.setattr(Tombstones, "add", full)
    open_all(database, kiosk.opening, again=True)


def waits_for_its_key(database: Database, kiosk: SealingKiosk, patch: pytest.MonkeyPatch) -> None:
    other = generate_opening_key()
    miss(database, other)
    open_all(database, other, again=True)


def fails_in_a_way_that_nobody_has_foreseen(
    database: Database, kiosk: SealingKiosk, patch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    patch.setattr(erasing, "withdraw", fail)
    open_all(database, kiosk.opening, again=True)


WAYS = {
    waits_for_the_file: ("stored", None),
    waits_for_its_key: ("quarantined", "no_opening_key"),
    fails_in_a_way_that_nobody_has_foreseen: ("quarantined", "not_foreseen:KeyError"),
}


@pytest.mark.parametrize("flooded", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_late_result_is_not_opened_while_its_withdrawal_is_tried_again_whatever_becomes_of_that(
    database: Database,
    kiosk: SealingKiosk,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Database, SealingKiosk, pytest.MonkeyPatch], None],
    flooded: bool,
) -> None:
    if way is waits_for_its_key and not flooded:
        return  # nobody has ever read which scan it is about
    if flooded:
        flood(database, kiosk, MOST)
    scan, named = uuid4(), uuid4()
    word = arrive(database, kiosk, withdraw(scan, named))
    if flooded:
        open_all(database, kiosk.opening)
        assert envelope(database, word).reason == "too_many_unseen_withdrawals"
        monkeypatch.setattr(unseen_withdrawals, "MOST_UNSEEN", 2 * MOST)
    with monkeypatch.context() as patch:
        way(database, kiosk, patch)
    assert (envelope(database, word).state, envelope(database, word).reason) == WAYS[way]
    hold(database, kiosk.opening)
    late = [
        arrive(database, kiosk, a_result(kiosk, scan)),
        arrive(database, kiosk, a_result(kiosk, uuid4()), named),
    ]
    running = Opener(database, [kiosk.opening])
    for result in late:
        running._open_alone((kiosk.id, result))
    assert {envelope(database, result).data for result in late} == {b""}
    assert (count(database, Scan), REFERENCE in everything(database)) == (0, False)


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


@pytest.mark.parametrize("by", ["a start", "a day without one"])
def test_those_that_waited_are_tombstones_once_there_is_room_again(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    invented = flood(database, kiosk, MOST + 2)
    running = Opener(database, [kiosk.opening])
    running.begin()
    assert not running.open_next()
    later = now() + UNSEEN_WINDOW + timedelta(days=1)
    monkeypatch.setattr(unseen_withdrawals, "now", lambda: later)
    if by == "a start":
        open_all(database, kiosk.opening)
    else:
        monkeypatch.setattr("sync.clinic.receiving.opener.LOOK_AGAIN_S", 0.0)
        stop = threading.Event()
        thread = threading.Thread(target=running.run, args=(stop,))
        thread.start()
        try:
            wait_until(
                lambda: len(of_kiosk(database, kiosk)) == len(invented),
                "a tombstone for each withdrawal that waited",
            )
        finally:
            stop.set()
            thread.join(30)
    assert set(of_kiosk(database, kiosk)) == set(invented)
    with database.reading() as session:
        assert quarantine.held(session) == []


def test_there_is_room_for_so_many_in_30_days_however_long_they_have_waited_and_however_often_it_is_tried(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    invented = flood(database, kiosk, 4 * MOST)
    for months in (1, 2):
        later = now() + months * (UNSEEN_WINDOW + timedelta(days=1))
        for module in (unseen_withdrawals, opening_alone):
            monkeypatch.setattr(module, "now", lambda at=later: at)
        for again in (False, True, False):
            open_all(database, kiosk.opening, again=again)
        assert of_kiosk(database, kiosk) == list(invented)[: (months + 1) * MOST]


def test_what_a_withdrawal_that_was_one_too_many_names_is_not_kept_in_quarantine_either(
    database: Database, kiosk: SealingKiosk
) -> None:
    flood(database, kiosk, MOST)
    scan, message_id = uuid4(), uuid4()
    arrive(database, kiosk, withdraw(scan, message_id))
    open_all(database, kiosk.opening)
    spoilt = kiosk.seal(a_result(kiosk, scan), message_id=message_id)[:-1] + b"x"
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", spoilt, "ingest-1") == "withdrawn"


def test_an_old_copy_of_the_database_learns_of_those_that_were_too_many_and_no_start_makes_room_for_them(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen_withdrawals, "MOST_UNSEEN_LINES", 2)
    monkeypatch.setattr(erasing, "IDS_AT_ONCE", 1)
    invented = flood(database, kiosk, MOST + 3)
    erasing.reapply(database)
    open_all(database, kiosk.opening, again=True)
    stones = database.tombstones.read()
    assert [stone.scan for stone in stones] == list(invented)[: MOST + 2]
    assert [stone.unseen for stone in stones] == [False] * MOST + [True] * 2
    assert count(database, Withdrawal) == MOST
    with database.writing() as session:
        for table in (WithdrawnMessage, Withdrawal, Envelope):
            session.execute(delete(table))
    erasing.reapply(database)
    late = [arrive(database, kiosk, a_result(kiosk, scan)) for scan in list(invented)[: MOST + 2]]
    open_all(database, kiosk.opening)
    assert {envelope(database, result).data for result in late} == {b""}
    assert count(database, Scan) == 0


def test_a_late_reminder_does_not_have_its_withdrawal_tried_again(
    database: Database, kiosk: SealingKiosk
) -> None:
    *_, (scan, word) = flood(database, kiosk).items()
    late = arrive(database, kiosk, a_reminder(scan))
    opened = Opener(database, [kiosk.opening])
    opened.begin()
    assert opened.open_next()
    assert (envelope(database, late).data, envelope(database, word).state) == (b"", "quarantined")


def test_a_reminder_per_scan_makes_no_room_for_invented_ones_and_is_erased_all_the_same(
    database: Database, kiosk: SealingKiosk
) -> None:
    for _ in range(2 * MOST):
        scan = uuid4()
        arrive(database, kiosk, a_reminder(scan))
        arrive(database, kiosk, withdraw(scan))
    open_all(database, kiosk.opening)
    assert len(of_kiosk(database, kiosk)) == MOST
    assert count(database, ReminderRow) == 0
    assert REFERENCE not in everything(database)


def test_staff_who_discard_a_withdrawal_that_was_one_too_many_do_not_let_its_scan_in(
    database: Database, kiosk: SealingKiosk
) -> None:
    *_, (scan, word) = flood(database, kiosk).items()
    with database.reading() as session:
        one = quarantine.find(session, str(word))
    quarantine.discard(database, one, "command:ann", "a flood")
    arrive(database, kiosk, a_result(kiosk, scan))
    open_all(database, kiosk.opening, again=True)
    assert (count(database, Scan), REFERENCE in everything(database)) == (0, False)


def test_what_staff_discard_while_it_is_handed_back_stays_discarded(
    postgresql_url: str, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.at(tmp_path / "clinic", postgresql_url)
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    *_, word = flood(database, kiosk, MOST + 1).values()
    with database.reading() as session:
        one = quarantine.find(session, str(word))
    monkeypatch.setattr(unseen_withdrawals, "MOST_UNSEEN", 2 * MOST)
    update_ = unseen_withdrawals.update

    def meanwhile(table: type[Envelope]) -> Any:
        monkeypatch.setattr(unseen_withdrawals, "update", update_)
        quarantine.discard(database, one, "command:ann", "a flood")
        return update_(table)

    monkeypatch.setattr(unseen_withdrawals, "update", meanwhile)
    with database.writing() as session:
        unseen_withdrawals.try_those_with_room(session)
    assert envelope(database, word).state == "discarded"
    database.close()
