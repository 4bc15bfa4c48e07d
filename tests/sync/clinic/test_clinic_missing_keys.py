"""What is sealed to a key that no opener holds is kept unread until the key is back or given up."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from sync.clinic.receiving import opening_keys, quarantine
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.opening_keys import NO_KEY, UNHEARD, retire
from sync.clinic.receiving.receipts import unsent
from sync.clinic.scans.records import scan_record
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import Envelope, HeldKey, Scan
from sync.clinic.summary import as_text, summary
from sync.wire.keys import generate_opening_key
from sync.wire.messages import Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, miss
from tests.support.intake import count, receipts, take
from tests.support.waiting import wait_until


def missing_keys(database: Database) -> list[str]:
    with database.reading() as session:
        return opening_keys.missing(session)


def test_a_key_that_is_missing_is_said_and_only_one_that_was_given_up_has_kiosks_seal_again(
    database: Database, kiosk: SealingKiosk
) -> None:
    newer, name = generate_opening_key(), kiosk.opening.kid.hex()
    Opener(database, [kiosk.opening, newer]).begin()
    assert take(database, kiosk.id, kiosk.seal()) == "stored"
    for opening in (partial(miss, database, newer), Opener(database, [newer]).begin):
        with capture_logs() as said:
            opening()
        assert {"event": "opening_key_missing", "log_level": "error", "key": name} in said
        assert take(database, kiosk.id, kiosk.seal()) == "held_back"
    with database.reading() as session:
        assert f"OPENING KEY MISSING  {name}" in as_text(summary(session))
    with pytest.raises(ClinicUsageError, match="is missing: 'dermakiosk clinic status'"):
        retire(database, newer.kid.hex(), "command:ann")
    retire(database, name, "command:ann")
    assert take(database, kiosk.id, kiosk.seal()) == "reseal"
    assert receipts(database) == ["reseal", "stored"]
    with database.reading() as session:
        assert summary(session)["opening_keys_missing"] == []
    Opener(database, [kiosk.opening]).begin()
    assert take(database, kiosk.id, kiosk.seal()) == "stored"


@pytest.mark.parametrize(("comes_back", "outcome"), [(False, "reseal"), (True, "duplicate")])
def test_what_came_while_its_key_was_missing_stays_with_its_kiosk_until_the_key_is_back_or_given_up(
    database: Database, kiosk: SealingKiosk, comes_back: bool, outcome: str
) -> None:
    lost, here, new = kiosk.opening, kiosk.seal(), kiosk.seal()
    assert take(database, kiosk.id, here) == "stored"
    opener = miss(database, generate_opening_key())
    for unread in (False, True):
        assert opener.open_next() is not unread
        assert [take(database, kiosk.id, data) for data in (new, here)] == ["held_back"] * 2
        assert (receipts(database), count(database, Envelope)) == (["stored"], 2)
    if comes_back:
        Opener(database, [lost]).begin()
    else:
        retire(database, lost.kid.hex(), "command:ann")
    assert [take(database, kiosk.id, data) for data in (new, here)] == [outcome] * 2


def test_what_came_while_its_key_was_missing_is_opened_with_the_key_though_its_kiosk_never_comes_back(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    assert take(database, kiosk.id, kiosk.seal(kiosk.result(scan))) == "stored"
    opener = Opener(database, [kiosk.opening])
    assert opener.open_next()
    other = miss(database, generate_opening_key())
    word = kiosk.seal(Withdraw(scan=scan, at=MOMENT, reason="patient"))
    assert take(database, kiosk.id, word) == "held_back"
    assert not other.open_next()
    opener.say_keys()
    assert opener.open_next()
    with database.reading() as session:
        assert session.scalars(select(Scan)).all() == []


@pytest.mark.parametrize("with_others", [True, False])
def test_what_was_kept_unread_is_discarded_once_it_has_come_sealed_again(
    database: Database, kiosk: SealingKiosk, with_others: bool
) -> None:
    """Nobody has to see to it, and if its key is found it is no second result."""
    lost, scan, first = kiosk.opening, uuid4(), uuid4()
    kiosk.opening = generate_opening_key()
    opener = miss(database, kiosk.opening)
    kept, kiosk.opening = kiosk.opening, lost
    assert take(database, kiosk.id, kiosk.seal(kiosk.result(scan), message_id=first)) == "held_back"
    retire(database, lost.kid.hex(), "command:ann")
    kiosk.opening = kept
    again = uuid4()
    anew = kiosk.seal(kiosk.result(scan, supersedes=first), message_id=again)
    assert take(database, kiosk.id, anew) == "stored"
    if with_others:
        assert opener.open_next()
    else:
        opener._open_alone((kiosk.id, again))
    Opener(database, [lost, kept]).begin()
    with database.reading() as session:
        rows = {row.message_id: (row.state, bool(row.data)) for row in session.scalars(select(Envelope))}
        assert quarantine.held(session) == []
    assert rows == {first: ("discarded", False), again: ("opened", True)}


def test_openers_with_different_keys_miss_none_that_another_one_says_it_holds(
    database: Database, kiosk: SealingKiosk
) -> None:
    """One of them may be started anew, or be away for a while."""
    first, second = generate_opening_key(), kiosk.opening
    both = Opener(database, [first, second])
    both.begin()
    for _ in range(2):
        one = Opener(database, [first])
        one.begin()
        for _ in range(2 * UNHEARD):
            assert take(database, kiosk.id, kiosk.seal()) == "stored"
            assert not one.open_next()
            assert both.open_next()
            one.say_keys()
            both.say_keys()
        for _ in range(UNHEARD - 1):
            one.say_keys()
        assert missing_keys(database) == []
        both.say_keys()


def test_a_key_whose_only_opener_is_gone_is_missing_while_another_opener_runs_until_it_is_back(
    database: Database, kiosk: SealingKiosk
) -> None:
    first, second = generate_opening_key(), kiosk.opening
    both, one = Opener(database, [first, second]), Opener(database, [first])
    both.begin()
    one.begin()
    assert take(database, kiosk.id, kiosk.seal()) == "stored"
    for _ in range(UNHEARD + 1):
        one.say_keys()
    assert missing_keys(database) == [second.kid.hex()]
    assert take(database, kiosk.id, kiosk.seal()) == "held_back"
    assert one.open_next()  # it sets apart what it cannot open
    both.say_keys()
    assert missing_keys(database) == []
    assert take(database, kiosk.id, kiosk.seal()) == "stored"
    while both.open_next():
        pass
    with database.reading() as session:
        assert set(session.scalars(select(Envelope.state))) == {"opened"}


def test_what_another_opener_was_about_to_set_apart_is_looked_at_once_more(
    database: Database, kiosk: SealingKiosk
) -> None:
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    miss(database, generate_opening_key())
    assert take(database, kiosk.id, kiosk.seal()) == "held_back"
    opener.say_keys()
    with database.writing() as session:
        session.execute(update(Envelope).values(state="quarantined", reason=NO_KEY))
    assert not opener.open_next()
    opener.say_keys()
    assert opener.open_next()


def test_an_opener_that_cannot_write_misses_no_key(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can either, and all begin anew when they can."""
    opener, writing = Opener(database, [generate_opening_key()]), Database.writing
    opener.begin()

    @contextmanager
    def full(given: Database, **how: bool) -> Iterator[Session]:
        with writing(given, **how) as session:
            yield session
            session.flush()
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(Database, "writing", full)
        for _ in range(2 * UNHEARD):
            with pytest.raises(OperationalError):
                opener.say_keys()
    opener.say_keys()
    assert missing_keys(database) == []
    assert take(database, kiosk.id, kiosk.seal()) == "stored"


def test_openers_say_which_keys_they_hold_for_as_long_as_they_run(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening_keys, "SAY_S", 0.05)
    first, stops = generate_opening_key(), [threading.Event(), threading.Event()]
    openers = [Opener(database, keys) for keys in ([first], [first, kiosk.opening])]
    for opener in openers:
        opener.begin()
    threads = [
        threading.Thread(target=each.run, args=(stop,)) for each, stop in zip(openers, stops, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        stops[1].set()
        wait_until(
            lambda: missing_keys(database) == [kiosk.opening.kid.hex()],
            "the opening key missing, since no opener holds it",
        )
    finally:
        for stop, thread in zip(stops, threads, strict=True):
            stop.set()
            thread.join(60)
    assert take(database, kiosk.id, kiosk.seal()) == "held_back"


def test_what_was_opened_before_its_key_was_missing_is_a_duplicate(
    database: Database, kiosk: SealingKiosk
) -> None:
    opened = kiosk.seal()
    take(database, kiosk.id, opened)
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    assert opener.open_next()
    miss(database, generate_opening_key())
    assert take(database, kiosk.id, opened) == "duplicate"


def test_what_was_discarded_is_not_asked_for_again_though_its_key_is_given_up(
    database: Database, kiosk: SealingKiosk
) -> None:
    data, lost = kiosk.seal(), kiosk.opening
    take(database, kiosk.id, data)
    assert miss(database, generate_opening_key()).open_next()
    with database.reading() as session:
        (one,) = quarantine.held(session)
    quarantine.discard(database, one, "command:ann", "a test")
    assert take(database, kiosk.id, data) == "quarantined"
    retire(database, lost.kid.hex(), "command:ann")
    assert take(database, kiosk.id, data) == "quarantined"


def test_what_is_sealed_to_a_key_that_nobody_ever_held_is_kept_and_never_called_stored(
    database: Database, kiosk: SealingKiosk
) -> None:
    newer = SealingKiosk(generate_opening_key(), kiosk.id)
    newer.signing, newer.sequence = kiosk.signing, 40
    scan = uuid4()
    data = newer.seal(newer.result(scan))
    assert take(database, kiosk.id, data) == "quarantined"
    assert take(database, kiosk.id, data) == "quarantined"
    assert receipts(database) == ["quarantined"]
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    assert not opener.open_next()
    # An opener that does hold it opens it after all, and only now the kiosk may let go of its copy.
    opener = Opener(database, [kiosk.opening, newer.opening])
    opener.begin()
    assert opener.open_next()
    with database.reading() as session:
        assert scan_record(session, scan) is not None
        (owed,) = unsent(session, "ingest-2", now() + timedelta(minutes=5), 10)
    assert owed.status == "stored"


def test_before_any_opener_has_said_what_it_holds_nothing_is_receipted(
    database: Database, kiosk: SealingKiosk
) -> None:
    with database.writing() as session:
        session.execute(delete(HeldKey))
    data = kiosk.seal()
    assert take(database, kiosk.id, data) == "held_back"
    assert (receipts(database), count(database, Envelope)) == ([], 0)
    Opener(database, [kiosk.opening]).begin()
    assert take(database, kiosk.id, data) == "stored"
