"""Heartbeats at the clinic: which is the newest, and that none silences those that follow."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from sync.clinic import intake, quarantine
from sync.clinic.database import Database, now
from sync.clinic.intake import CLOCK_AHEAD, take_envelope, take_heartbeat
from sync.clinic.tables import AuditEvent, Kiosk
from sync.wire.keys import OpeningKey, generate_signing_key
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat, registered

WORKER = "ingest-1"
LARGEST = 2**53 - 1


def hear(database: Database, kiosk: SealingKiosk, **changes: object) -> Kiosk:
    """The kiosk's row after it, or somebody else, has said this heartbeat."""
    with database.writing() as session:
        take_heartbeat(session, kiosk.id, heartbeat(kiosk, **changes).sign(kiosk.status), WORKER)
    with database.reading() as session:
        known = session.get(Kiosk, kiosk.id)
        assert known is not None
        return known


def waiting(row: Kiosk) -> object:
    return (row.heartbeat or {}).get("waiting")


def test_a_signed_heartbeat_is_noted_and_an_older_one_is_not(database: Database, kiosk: SealingKiosk) -> None:
    seen = hear(database, kiosk, counter=8, waiting=2).last_seen_at
    assert seen is not None
    row = hear(database, kiosk, counter=7, waiting=9)
    assert (waiting(row), row.last_seen_at) == (2, seen)


def test_a_heartbeat_of_a_wrong_clock_silences_none_that_follows(
    database: Database, kiosk: SealingKiosk
) -> None:
    hear(database, kiosk, counter=1, at=MOMENT.replace(year=2040), waiting=1)
    assert waiting(hear(database, kiosk, counter=2, at=MOMENT, waiting=5)) == 5
    assert waiting(hear(database, kiosk, counter=3, at=MOMENT.replace(year=1970), waiting=6)) == 6


def test_a_heartbeat_that_is_said_again_does_not_make_the_kiosk_seem_alive(
    database: Database, kiosk: SealingKiosk
) -> None:
    seen = hear(database, kiosk, counter=3).last_seen_at
    assert hear(database, kiosk, counter=3).last_seen_at == seen
    assert hear(database, kiosk, counter=4).last_seen_at != seen


def test_a_kiosk_that_is_made_anew_counts_from_the_start(database: Database, kiosk: SealingKiosk) -> None:
    hear(database, kiosk, epoch=1, counter=900)
    assert waiting(hear(database, kiosk, epoch=2, counter=1, waiting=7)) == 7
    assert waiting(hear(database, kiosk, epoch=1, counter=901, waiting=8)) == 7


def test_a_heartbeat_of_the_first_schema_goes_by_its_clock_until_one_is_counted(
    database: Database, kiosk: SealingKiosk
) -> None:
    old: dict[str, object] = {"schema_version": 1, "epoch": 0, "counter": None}
    assert waiting(hear(database, kiosk, **old, waiting=1)) == 1
    assert waiting(hear(database, kiosk, **old, at=MOMENT.replace(year=2040), waiting=2)) == 1
    assert waiting(hear(database, kiosk, **old, at=MOMENT + timedelta(minutes=1), waiting=3)) == 3
    assert waiting(hear(database, kiosk, counter=1, waiting=4)) == 4
    assert waiting(hear(database, kiosk, **old, at=MOMENT + timedelta(minutes=2), waiting=5)) == 4


def test_heartbeats_and_envelopes_of_one_kiosk_do_not_wait_for_each_other_in_two_workers(
    postgresql_url: str, opening_key: OpeningKey, tmp_path: Path
) -> None:
    """Batches hold both, of many kiosks: if they waited, two workers would soon wait for one another."""
    database = Database.at(tmp_path / "clinic", postgresql_url)
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    with database.writing() as one, database.writing() as another:
        another.execute(text("SET LOCAL lock_timeout = '5s'"))
        assert take_envelope(one, kiosk.id, "result", kiosk.seal(), WORKER) == "stored"
        take_heartbeat(another, kiosk.id, heartbeat(kiosk).sign(kiosk.status), WORKER)
        another.flush()
    with database.reading() as session:
        known = session.get(Kiosk, kiosk.id)
        assert known is not None and known.heartbeat is not None
    database.close()


def test_a_heartbeat_that_the_kiosk_did_not_sign_is_dropped(database: Database, kiosk: SealingKiosk) -> None:
    forged = heartbeat(kiosk).sign(generate_signing_key())
    of_another = heartbeat(SealingKiosk(kiosk.opening)).sign(kiosk.status)
    for data in (forged, b"offline", of_another):
        with database.writing() as session:
            assert take_heartbeat(session, kiosk.id, data, WORKER) == "dropped"
    with database.reading() as session:
        known = session.get(Kiosk, kiosk.id)
        assert known is not None and known.heartbeat is None


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def alarms(database: Database) -> list[str]:
    with database.reading() as session:
        events = session.scalars(select(AuditEvent).where(AuditEvent.event == "alarm"))
        return [event.detail["reason"] for event in events]


def held(database: Database) -> list[quarantine.Held]:
    with database.reading() as session:
        return quarantine.held(session)


@pytest.mark.parametrize(
    "bad",
    [
        [{"counter": LARGEST}],
        [{"epoch": LARGEST}],
        [{"epoch": LARGEST, "counter": LARGEST}],
        [{"counter": LARGEST - 2}, {"counter": LARGEST - 1}, {"counter": LARGEST}],
        [{"counter": milliseconds(MOMENT.replace(year=2199))}],
        [{"schema_version": 1, "epoch": 0, "counter": None, "at": MOMENT.replace(year=2199)}],
    ],
)
def test_no_heartbeat_with_a_number_from_the_future_silences_those_that_follow(
    database: Database, kiosk: SealingKiosk, bad: list[dict[str, object]]
) -> None:
    count = milliseconds(now())
    assert waiting(hear(database, kiosk, counter=count, waiting=1)) == 1
    for changes in bad:
        assert waiting(hear(database, kiosk, **changes, waiting=2)) == 1
    assert waiting(hear(database, kiosk, counter=count + 1, waiting=3)) == 3
    assert alarms(database) == ["heartbeat_from_the_future"]
    (one,) = held(database)
    assert (one.kiosk, one.topic, one.reason) == (kiosk.id, "status", "heartbeat_from_the_future")


def test_whatever_somebody_says_with_a_kiosks_key_silences_it_for_a_day_at_most(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = now()
    for hours in range(6, 60, 6):
        hear(database, kiosk, counter=milliseconds(begin + timedelta(hours=hours)), waiting=2)
    later = begin + CLOCK_AHEAD + timedelta(minutes=1)
    monkeypatch.setattr(intake, "now", lambda: later)
    assert waiting(hear(database, kiosk, counter=milliseconds(later), waiting=5)) == 5


def test_a_kiosk_that_an_earlier_version_had_let_be_silenced_is_heard_again(
    database: Database, kiosk: SealingKiosk
) -> None:
    with database.writing() as session:
        known = session.get(Kiosk, kiosk.id)
        assert known is not None
        known.heartbeat_epoch, known.heartbeat_counter = kiosk.epoch, LARGEST
    row = hear(database, kiosk, counter=7, waiting=4)
    assert (waiting(row), row.heartbeat_counter) == (4, 7)


def test_a_flood_of_heartbeats_from_the_future_is_one_alarm_and_one_payload_until_somebody_has_looked(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    for counter in range(LARGEST - 5, LARGEST):
        hear(database, kiosk, counter=counter)
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    hear(database, other, counter=LARGEST)
    assert (len(held(database)), len(alarms(database))) == (2, 2)
    for one in held(database):
        quarantine.discard(database, one, "command:ann", "known")
    hear(database, kiosk, counter=LARGEST)
    assert (len(held(database)), len(alarms(database))) == (1, 3)


def test_a_heartbeat_that_was_refused_by_a_wrong_clock_of_the_clinic_is_heard_when_it_is_tried_again(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = milliseconds(now())
    with monkeypatch.context() as patch:
        patch.setattr(intake, "now", lambda: MOMENT.replace(year=2001))
        hear(database, kiosk, counter=count, waiting=6)
        (one,) = held(database)
        out, sentence = quarantine.retry(database, one, "command:ann", 0)
        assert (out, sentence) == (False, "It stays in quarantine: heartbeat_from_the_future.")
    assert quarantine.retry(database, one, "command:ann", 0)[0]
    assert held(database) == []
    assert waiting(hear(database, kiosk, counter=count, waiting=9)) == 6
