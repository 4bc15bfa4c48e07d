"""What comes from a kiosk is stored once or set apart, with a receipt, and what is missing is told."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from sync.clinic.receiving import poison
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.receipts import mark_sent, unsent
from sync.clinic.scans.records import scan_record
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import AuditEvent, Envelope, Poison, ReminderRow, Scan
from sync.clinic.summary import missing_sequences
from sync.wire.keys import OpeningKey
from sync.wire.messages import ReminderDue
from tests.support.clinic import MOMENT, SealingKiosk, registered
from tests.support.intake import WORKER, count, receipts, take


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


def test_a_sequence_number_far_out_of_line_neither_counts_as_missing_nor_hides_what_is(
    database: Database, kiosk: SealingKiosk
) -> None:
    for sequence in (1, 4, 2**63 - 1):
        assert take(database, kiosk.id, kiosk.seal(sequence=sequence)) == "stored"
    with database.reading() as session:
        assert missing_sequences(session) == {kiosk.id: 2}
