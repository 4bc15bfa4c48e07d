"""Heartbeats at the clinic: which is the newest, and that none silences those that follow."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from sync.clinic.receiving import heartbeats, poison, quarantine
from sync.clinic.receiving.heartbeats import take_heartbeat
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import AuditEvent, Kiosk, Poison
from sync.clinic.summary import as_text, summary
from sync.wire.keys import OpeningKey, generate_signing_key
from sync.wire.status import CLOCK_AHEAD
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat, of_an_earlier_version, registered
from tests.support.waiting import wait_until

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


def test_a_kiosk_that_is_enrolled_and_registered_anew_counts_from_the_start(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    hear(database, kiosk, counter=900)
    kiosk.epoch += 1
    registered(database, kiosk, tmp_path)
    assert waiting(hear(database, kiosk, counter=1, waiting=7)) == 7
    assert waiting(hear(database, kiosk, epoch=kiosk.epoch - 1, counter=901, waiting=8)) == 7


def test_registering_a_kiosk_again_forgets_nothing_of_its_heartbeats(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    hear(database, kiosk, counter=900, waiting=1)
    registered(database, kiosk, tmp_path)
    assert waiting(hear(database, kiosk, counter=900, waiting=2)) == 1


@pytest.mark.parametrize("epoch", [0, 2, LARGEST])
def test_a_heartbeat_of_an_epoch_that_the_kiosk_was_not_enrolled_with_silences_it_for_no_moment(
    database: Database, kiosk: SealingKiosk, epoch: int
) -> None:
    """As whoever has copied its key for heartbeats, or a fault of its software, can say it."""
    hear(database, kiosk, counter=5, waiting=1)
    assert waiting(hear(database, kiosk, epoch=epoch, counter=1, waiting=2)) == 1
    assert waiting(hear(database, kiosk, counter=6, waiting=3)) == 3
    assert alarms(database) == ["heartbeat_of_another_epoch"]
    (one,) = held(database)
    assert (one.kiosk, one.topic, one.reason) == (kiosk.id, "status", "heartbeat_of_another_epoch")


def test_a_kiosk_that_an_earlier_version_registered_keeps_to_the_epoch_that_it_is_first_heard_in(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    with database.writing() as session:
        session.execute(update(Kiosk).values(epoch=None))
    assert waiting(hear(database, kiosk, epoch=7, counter=1, waiting=1)) == 1
    assert waiting(hear(database, kiosk, epoch=8, counter=1, waiting=2)) == 1
    # It was another's word: the authority's file sets it right.
    registered(database, kiosk, tmp_path)
    assert waiting(hear(database, kiosk, counter=1, waiting=3)) == 3


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
    monkeypatch.setattr(heartbeats, "now", lambda: later)
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


def test_a_kiosk_that_was_silenced_before_the_migration_is_heard_after_it(
    empty_database: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    newer = Database.at(tmp_path / "newer")
    newer.migrate()
    kiosk = registered(newer, SealingKiosk(opening_key), tmp_path)
    silence = {"heartbeat_epoch": LARGEST, "heartbeat_counter": LARGEST}
    with newer.writing() as session:
        session.execute(update(Kiosk).values(silence))
    of_an_earlier_version(newer, empty_database, "0005")
    newer.close()
    empty_database.migrate()
    assert waiting(hear(empty_database, kiosk, counter=7, waiting=4)) == 4
    # And keeps to that epoch from there.
    assert waiting(hear(empty_database, kiosk, epoch=kiosk.epoch + 1, counter=1, waiting=5)) == 4


def test_a_heartbeat_that_was_heard_while_the_clinics_clock_was_ahead_keeps_no_kiosk_alive(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = now() + timedelta(days=400)
    with monkeypatch.context() as patch:
        patch.setattr(heartbeats, "now", lambda: ahead)
        assert hear(database, kiosk, counter=1).last_seen_at == ahead
    seen = hear(database, kiosk, counter=2).last_seen_at
    assert seen is not None and seen <= now()


@pytest.mark.parametrize("forged", [MOMENT, MOMENT.replace(year=2199)])
def test_a_kiosk_that_speaks_and_is_not_heard_for_a_number_that_it_has_not_come_to_is_an_alarm(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch, forged: datetime
) -> None:
    begin = now()
    hear(database, kiosk, counter=5, at=begin)
    hear(database, kiosk, counter=milliseconds(begin + timedelta(hours=23)), at=forged)
    for minutes in range(1, 6):
        at = begin + timedelta(minutes=minutes)
        monkeypatch.setattr(heartbeats, "now", lambda at=at: at)
        hear(database, kiosk, counter=5 + minutes, at=at)
    assert alarms(database) == ["heartbeat_out_of_order"]


@pytest.mark.parametrize(
    "ordinary",
    [
        {"at": timedelta(minutes=-4)},  # it waited with a worker that was away, or is said again
        {"at": timedelta(hours=2)},  # it was said before a clock was set back
        {"at": timedelta(), "online": False},  # the last will, which is signed when the kiosk connects
    ],
)
def test_a_heartbeat_that_comes_late_in_ordinary_life_is_no_alarm(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch, ordinary: dict[str, Any]
) -> None:
    begin = now()
    hear(database, kiosk, counter=9, at=begin)
    later = begin + timedelta(minutes=10)
    monkeypatch.setattr(heartbeats, "now", lambda: later)
    hear(database, kiosk, **ordinary | {"counter": 8, "at": later + ordinary["at"]})
    assert alarms(database) == []


def test_two_heartbeats_that_two_workers_note_in_the_other_order_are_no_alarm(
    database: Database, kiosk: SealingKiosk
) -> None:
    hear(database, kiosk, counter=9, at=now())
    hear(database, kiosk, counter=8, at=now())
    assert alarms(database) == []


def test_the_last_word_of_a_kiosk_before_it_was_enrolled_anew_is_no_alarm(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    kiosk.epoch += 1
    registered(database, kiosk, tmp_path)
    hear(database, kiosk, epoch=kiosk.epoch - 1, counter=8, online=False)
    assert (alarms(database), held(database)) == ([], [])


def test_registering_a_kiosk_that_does_not_count_yet_takes_no_old_heartbeat_of_its_for_a_new_one(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    old: dict[str, object] = {"schema_version": 1, "epoch": 0, "counter": None}
    hear(database, kiosk, **old, at=MOMENT, waiting=1)
    registered(database, kiosk, tmp_path)
    assert waiting(hear(database, kiosk, **old, at=MOMENT - timedelta(minutes=1), waiting=2)) == 1


def test_a_heartbeat_that_came_while_the_clinics_clock_was_ahead_is_heard_at_no_time_that_has_not_come(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = now()
    with monkeypatch.context() as patch:
        patch.setattr(heartbeats, "now", lambda: moment + timedelta(days=400))
        hear(database, kiosk, counter=LARGEST)
    with database.writing() as session:
        session.execute(update(Poison).values(data=heartbeat(kiosk, counter=1).sign(kiosk.status)))
    (one,) = held(database)
    assert quarantine.retry(database, one, "command:ann", 0)[0]
    with database.reading() as session:
        known = session.get(Kiosk, kiosk.id)
        assert known is not None and known.last_seen_at is not None and known.last_seen_at <= now()


def test_a_kiosk_is_not_called_alive_by_a_clock_that_was_ahead(
    database: Database, kiosk: SealingKiosk
) -> None:
    with database.writing() as session:
        session.execute(update(Kiosk).values(last_seen_at=now() + timedelta(days=400)))
    with database.reading() as session:
        told = as_text(summary(session))
    assert "last heard nobody knows when" in told


def test_a_kiosk_that_is_registered_while_it_is_heard_is_heard_in_its_own_epoch_afterwards(
    postgresql_url: str, opening_key: OpeningKey, tmp_path: Path
) -> None:
    database = Database.at(tmp_path / "clinic", postgresql_url)
    database.migrate()
    kiosk = registered(database, SealingKiosk(opening_key), tmp_path)
    with database.writing() as session:
        session.execute(update(Kiosk).values(epoch=None))
    others = heartbeat(kiosk, epoch=9, counter=1).sign(kiosk.status)
    with database.writing() as session:
        take_heartbeat(session, kiosk.id, others, WORKER)
        session.flush()
        registering = threading.Thread(target=registered, args=(database, kiosk, tmp_path))
        registering.start()
        wait_until(lambda: waits_for_a_lock(database), "a session waiting for a lock")
    registering.join(30)
    assert waiting(hear(database, kiosk, counter=1, waiting=3)) == 3
    database.close()


def waits_for_a_lock(database: Database) -> bool:
    with database.engine.connect() as connection:
        found = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(connection.scalar(found))


def test_a_flood_of_heartbeats_from_the_future_is_one_alarm_an_hour_and_one_payload_until_somebody_has_looked(
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
    assert (len(held(database)), len(alarms(database))) == (1, 2)


def test_a_heartbeat_that_was_refused_by_a_wrong_clock_of_the_clinic_is_heard_when_it_is_tried_again(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = milliseconds(now())
    with monkeypatch.context() as patch:
        for module in (heartbeats, poison):
            patch.setattr(module, "now", lambda: MOMENT.replace(year=2001))
        hear(database, kiosk, counter=count, waiting=6)
        (one,) = held(database)
        out, sentence = quarantine.retry(database, one, "command:ann", 0)
        assert (out, sentence) == (False, "It stays in quarantine: heartbeat_from_the_future.")
    assert quarantine.retry(database, one, "command:ann", 0)[0]
    assert held(database) == []
    row = hear(database, kiosk, counter=count, waiting=9)
    assert waiting(row) == 6
    # It was heard when it came, not when somebody looked at it.
    assert row.last_seen_at == one.received_at == MOMENT.replace(year=2001)
