from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from sync.clinic.receiving import opening_keys, poison, quarantine
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.opening_keys import NO_KEY, UNHEARD, retire
from sync.clinic.receiving.receipts import mark_sent, unsent
from sync.clinic.scans.records import scan_record
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import AuditEvent, Envelope, HeldKey, Poison, ReceiptRow, ReminderRow, Scan
from sync.clinic.summary import as_text, missing_sequences, summary
from sync.wire.keys import OpeningKey, generate_opening_key
from sync.wire.messages import ReminderDue, Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, hold, miss, registered
from tests.support.waiting import wait_until

WORKER = "ingest-1"


def take(database: Database, kiosk: UUID, data: bytes, topic: str = "result") -> str:
    with database.writing() as session:
        return take_envelope(session, kiosk, topic, data, WORKER)


def receipts(database: Database) -> list[str]:
    with database.reading() as session:
        return sorted(session.scalars(select(ReceiptRow.status)))


def missing_keys(database: Database) -> list[str]:
    with database.reading() as session:
        return opening_keys.missing(session)


def count(database: Database, table: type[Envelope] | type[Poison]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_good_envelope_is_stored_as_it_came(database: Database, kiosk: SealingKiosk) -> None:
    data = kiosk.seal()
    assert take(database, kiosk.id, data) == "stored"
    with database.reading() as session:
        row = session.scalars(select(Envelope)).one()
    assert (row.data, row.kiosk, row.sequence, row.type) == (data, kiosk.id, 1, "result")
    assert row.sha256 == hashlib.sha256(data).digest()
    assert receipts(database) == ["stored"]


def test_the_receipt_is_owed_in_the_transaction_that_stores(database: Database, kiosk: SealingKiosk) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as session:
        take_envelope(session, kiosk.id, "result", kiosk.seal(), WORKER)
        raise ZeroDivisionError
    assert (receipts(database), count(database, Envelope)) == ([], 0)


def test_an_envelope_that_comes_again_is_one_record_with_a_receipt_that_says_so(
    database: Database, kiosk: SealingKiosk
) -> None:
    data = kiosk.seal()
    take(database, kiosk.id, data)
    with database.writing() as session:
        mark_sent(session, unsent(session, WORKER, now(), 10), now())
    assert take(database, kiosk.id, data) == "duplicate"
    assert count(database, Envelope) == 1
    with database.reading() as session:
        (owed,) = unsent(session, WORKER, now(), 10)
    assert owed.status == "duplicate"


def test_workers_that_get_the_same_envelope_at_once_store_it_once(
    database: Database, kiosk: SealingKiosk
) -> None:
    envelopes = [kiosk.seal() for _ in range(5)]
    outcomes: list[str] = []

    def work(turn: int) -> None:
        for number in range(len(envelopes)):
            outcomes.append(take(database, kiosk.id, envelopes[(number + turn) % len(envelopes)]))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (outcomes.count("stored"), outcomes.count("duplicate")) == (5, 15)
    assert count(database, Envelope) == 5


def test_the_same_id_with_another_hash_raises_an_alarm(database: Database, kiosk: SealingKiosk) -> None:
    message_id = uuid4()
    take(database, kiosk.id, kiosk.seal(message_id=message_id))
    assert take(database, kiosk.id, kiosk.seal(message_id=message_id)) == "quarantined"
    assert (count(database, Envelope), count(database, Poison)) == (1, 1)
    assert receipts(database) == ["quarantined", "stored"]
    with database.reading() as session:
        alarm = session.scalars(select(AuditEvent).where(AuditEvent.event == "alarm")).one()
    assert alarm.detail == {"reason": "same_id_other_hash", "message": str(message_id)}


def test_a_sequence_number_used_twice_raises_an_alarm(database: Database, kiosk: SealingKiosk) -> None:
    take(database, kiosk.id, kiosk.seal(sequence=7))
    assert take(database, kiosk.id, kiosk.seal(sequence=7)) == "quarantined"
    with database.reading() as session:
        assert session.scalars(select(Poison.reason)).one() == "sequence_used_twice"


def test_a_new_epoch_may_count_from_the_start(database: Database, kiosk: SealingKiosk) -> None:
    take(database, kiosk.id, kiosk.seal(sequence=1, epoch=1))
    assert take(database, kiosk.id, kiosk.seal(sequence=1, epoch=2)) == "stored"


def test_a_changed_envelope_is_quarantined_with_a_receipt(database: Database, kiosk: SealingKiosk) -> None:
    data = bytearray(kiosk.seal())
    data[-100] ^= 1
    assert take(database, kiosk.id, bytes(data)) == "quarantined"
    assert receipts(database) == ["quarantined"]
    with database.reading() as session:
        poison = session.scalars(select(Poison)).one()
    assert (poison.reason, poison.data) == ("bad_signature", bytes(data))


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"\xd2\x84\x40\xa0\x40\x40", b"x" * 300_000])
def test_what_is_no_envelope_is_kept_but_nobody_can_be_told(
    database: Database, kiosk: SealingKiosk, data: bytes
) -> None:
    assert take(database, kiosk.id, data) == "quarantined"
    assert take(database, kiosk.id, data) == "quarantined"
    assert (count(database, Poison), receipts(database)) == (1, [])


def test_the_poison_of_one_kiosk_is_capped(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poison, "POISON_CAP", 3)
    outcomes = [take(sqlite, UUID(int=1), bytes([number])) for number in range(5)]
    assert outcomes == ["quarantined"] * 3 + ["dropped"] * 2
    assert take(sqlite, UUID(int=2), b"x") == "quarantined"


def test_an_envelope_of_a_kiosk_that_nobody_registered_is_held_back(
    database: Database, opening_key: OpeningKey
) -> None:
    stranger = SealingKiosk(opening_key)
    assert take(database, stranger.id, stranger.seal()) == "held_back"
    assert (count(database, Envelope), count(database, Poison), receipts(database)) == (0, 0, [])


def test_a_key_for_heartbeats_signs_no_results(database: Database, kiosk: SealingKiosk) -> None:
    kiosk.signing = kiosk.status
    assert take(database, kiosk.id, kiosk.seal()) == "held_back"


def test_an_envelope_on_another_kiosks_topic_is_quarantined(database: Database, kiosk: SealingKiosk) -> None:
    assert take(database, uuid4(), kiosk.seal()) == "quarantined"
    assert count(database, Envelope) == 0


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
    monkeypatch.setattr(opening_keys, "SAY_SECONDS", 0.05)
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
        wait_until(lambda: missing_keys(database) == [kiosk.opening.kid.hex()])
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


def replace_key(database: Database, kiosk: SealingKiosk) -> OpeningKey:
    """Have the clinic hold another key than until now, and the kiosk seal to it; the one that is retired."""
    retired, kiosk.opening = kiosk.opening, generate_opening_key()
    hold(database, kiosk.opening)
    with database.writing() as session:
        session.get_one(HeldKey, retired.kid).state = "retired"
    return retired


def test_what_was_opened_is_never_to_be_sealed_again_though_its_key_is_retired_since(
    database: Database, kiosk: SealingKiosk
) -> None:
    """The kiosk that lacks its receipt would seal it anew, twice perhaps, and the last be no one's heir."""
    opened, unread = kiosk.seal(), kiosk.seal()
    assert [take(database, kiosk.id, opened), take(database, kiosk.id, unread)] == ["stored"] * 2
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    assert opener.open_next()
    replace_key(database, kiosk)
    assert take(database, kiosk.id, opened) == "duplicate"
    assert take(database, kiosk.id, unread) == "reseal"
    assert count(database, Envelope) == 2


def test_a_worker_sends_its_own_receipts_until_another_is_gone(
    database: Database, kiosk: SealingKiosk
) -> None:
    take(database, kiosk.id, kiosk.seal())
    with database.reading() as session:
        assert len(unsent(session, WORKER, now(), 10)) == 1
        assert unsent(session, "ingest-2", now(), 10) == []
        later = now().replace(year=now().year + 1)
        assert len(unsent(session, "ingest-2", later, 10)) == 1


def test_another_kiosks_message_id_takes_nobodys_place(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    message_id, scan = uuid4(), uuid4()
    assert take(database, other.id, other.seal(message_id=message_id)) == "stored"
    data = kiosk.seal(kiosk.result(scan), message_id=message_id)
    assert take(database, kiosk.id, data) == "stored"
    assert take(database, kiosk.id, data) == "duplicate"
    opener = Opener(database, [kiosk.opening])
    assert opener.open_next() and opener.open_next() and not opener.open_next()
    with database.reading() as session:
        record = scan_record(session, scan)
        assert record is not None
        assert (record.envelope.kiosk, record.envelope.data) == (kiosk.id, data)
        assert session.scalar(select(func.count()).select_from(Scan)) == 2


def test_another_kiosks_reminder_takes_nobodys_place(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    due = ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=MOMENT.date())
    for sender in (other, kiosk):
        assert take(database, sender.id, sender.seal(due), "reminder") == "stored"
    opener = Opener(database, [kiosk.opening])
    assert opener.open_next() and opener.open_next()
    with database.reading() as session:
        assert set(session.scalars(select(ReminderRow.kiosk))) == {other.id, kiosk.id}


def test_a_message_on_the_topic_of_another_kind_is_quarantined(
    database: Database, kiosk: SealingKiosk
) -> None:
    due = ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=MOMENT.date())
    for message, topic in ((kiosk.result(), "reminder"), (due, "result")):
        assert take(database, kiosk.id, kiosk.seal(message), topic) == "quarantined"
    with database.reading() as session:
        assert set(session.scalars(select(Poison.reason))) == {"wrong_topic"}
    assert (count(database, Envelope), receipts(database)) == (0, ["quarantined"] * 2)


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


def test_a_sequence_number_far_out_of_line_neither_counts_as_missing_nor_hides_what_is(
    database: Database, kiosk: SealingKiosk
) -> None:
    for sequence in (1, 4, 2**63 - 1):
        assert take(database, kiosk.id, kiosk.seal(sequence=sequence)) == "stored"
    with database.reading() as session:
        assert missing_sequences(session) == {kiosk.id: 2}


def test_what_is_to_be_sealed_again_is_not_missing(database: Database, kiosk: SealingKiosk) -> None:
    waiting = kiosk.seal()
    assert take(database, kiosk.id, waiting) == "stored"
    retired = replace_key(database, kiosk)
    for key, sequence, outcome in (
        (retired, 2, "reseal"),
        (retired, 4, "reseal"),
        (kiosk.opening, 5, "stored"),
    ):
        kiosk.opening = key
        assert take(database, kiosk.id, kiosk.seal(sequence=sequence)) == outcome
    # It is here, though nobody can read it.
    assert take(database, kiosk.id, waiting) == "reseal"
    with database.reading() as session:
        assert missing_sequences(session) == {kiosk.id: 1}
    assert take(database, kiosk.id, kiosk.seal(sequence=3)) == "stored"
    with database.reading() as session:
        assert missing_sequences(session) == {}


def test_what_is_to_be_sealed_again_hides_nothing_that_is_missing_below_above_or_beside_it(
    database: Database, kiosk: SealingKiosk
) -> None:
    assert take(database, kiosk.id, kiosk.seal(sequence=1)) == "stored"
    assert take(database, kiosk.id, kiosk.seal(sequence=3)) == "stored"
    retired = replace_key(database, kiosk)
    anew, kiosk.opening = kiosk.opening, retired
    # The last that this enrolment sealed; and one so far out of line that its gap is not counted.
    for sequence in (4, 2**62):
        assert take(database, kiosk.id, kiosk.seal(sequence=sequence)) == "reseal"
    with database.reading() as session:
        assert missing_sequences(session) == {kiosk.id: 1}
    kiosk.opening, kiosk.epoch = anew, 2
    assert take(database, kiosk.id, kiosk.seal(sequence=1)) == "stored"
    with database.reading() as session:
        assert missing_sequences(session) == {kiosk.id: 1}


def test_what_an_earlier_version_let_be_sealed_again_without_a_trace_is_not_missing(
    database: Database, kiosk: SealingKiosk
) -> None:
    retired = replace_key(database, kiosk)
    anew, kiosk.opening = kiosk.opening, retired
    assert take(database, kiosk.id, kiosk.seal(sequence=2)) == "reseal"
    with database.writing() as session:
        session.execute(delete(Envelope))
    kiosk.opening = anew
    assert take(database, kiosk.id, kiosk.seal(sequence=4)) == "stored"
    with database.reading() as session:
        assert missing_sequences(session) == {kiosk.id: 2}


def test_what_was_to_be_sealed_again_is_stored_if_it_comes_when_its_key_is_back(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan = uuid4()
    data = kiosk.seal(kiosk.result(scan))
    retired = replace_key(database, kiosk)
    assert [take(database, kiosk.id, data) for _ in range(2)] == ["reseal"] * 2
    with database.reading() as session:
        assert session.scalars(select(Envelope.data)).all() == [b""]
    opener = Opener(database, [retired])
    opener.begin()
    assert not opener.open_next()
    assert [take(database, kiosk.id, data) for _ in range(2)] == ["stored", "duplicate"]
    assert opener.open_next()
    with database.reading() as session:
        assert scan_record(session, scan) is not None


def test_what_was_to_be_sealed_again_is_kept_unread_if_its_key_is_back_and_missing_again(
    database: Database, kiosk: SealingKiosk
) -> None:
    data, lost = kiosk.seal(), kiosk.opening
    replace_key(database, kiosk)
    assert take(database, kiosk.id, data) == "reseal"
    with database.writing() as session:
        session.get_one(HeldKey, lost.kid).state = "missing"
    assert take(database, kiosk.id, data) == "held_back"
    opener = Opener(database, [lost])
    opener.begin()
    assert opener.open_next()
    assert take(database, kiosk.id, data) == "duplicate"


def test_of_what_has_the_id_or_the_place_of_another_that_is_told_though_it_is_to_be_sealed_again(
    database: Database, kiosk: SealingKiosk
) -> None:
    message_id = uuid4()
    assert take(database, kiosk.id, kiosk.seal(message_id=message_id, sequence=7)) == "stored"
    kiosk.opening = replace_key(database, kiosk)
    assert take(database, kiosk.id, kiosk.seal(message_id=message_id, sequence=8)) == "reseal"
    assert take(database, kiosk.id, kiosk.seal(sequence=7)) == "reseal"
    with database.reading() as session:
        told = session.scalars(select(AuditEvent).where(AuditEvent.event == "alarm")).all()
    assert {event.detail["reason"] for event in told} == {"same_id_other_hash", "sequence_used_twice"}
    assert count(database, Poison) == 0
