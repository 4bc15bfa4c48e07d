"""A withdrawal erases a scan, in whatever order things come, and nobody else's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from sync.clinic.receiving import quarantine
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.scans.records import scan_page, scan_record, withdrawn
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import (
    RETIRED,
    Envelope,
    FindingRow,
    HeldKey,
    Poison,
    ReceiptRow,
    ReminderRow,
    Scan,
    Withdrawal,
)
from sync.wire.keys import generate_opening_key
from sync.wire.messages import Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, hold, registered
from tests.support.withdrawing import (
    OTHER,
    REFERENCE,
    Newer,
    a_reminder,
    a_result,
    arrive,
    count,
    envelope,
    everything,
    open_all,
    withdraw,
)


def test_a_withdrawal_erases_all_but_a_tombstone(database: Database, kiosk: SealingKiosk) -> None:
    scan, stays = uuid4(), uuid4()
    result = arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, stays, patient_reference=OTHER))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan))
    open_all(database, kiosk.opening)
    with database.reading() as session:
        assert scan_record(session, scan) is None
        assert [line.id for line in scan_page(session).lines] == [stays]
        assert scan_page(session, REFERENCE).lines == []
        stone = withdrawn(session, scan)
        assert stone is not None
        assert (stone.kiosk, stone.at, stone.reason) == (kiosk.id, MOMENT, "patient")
        assert set(session.scalars(select(FindingRow.scan))) == {stays}
    row = envelope(database, result)
    assert (row.state, row.data, len(row.sha256)) == ("erased", b"", 32)
    assert REFERENCE not in everything(database)
    assert OTHER in everything(database)


def before(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    arrive(database, kiosk, a_result(kiosk, scan), result)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


def overtaking(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    arrive(database, kiosk, withdraw(scan, result))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, a_result(kiosk, scan), result)


def overtaking_without_a_name(
    kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path
) -> None:
    arrive(database, kiosk, Withdraw(scan=scan, at=MOMENT, reason="patient"))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, a_result(kiosk, scan), result)


def both_unopened(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    arrive(database, kiosk, a_result(kiosk, scan), result)
    arrive(database, kiosk, withdraw(scan, result))


def twice(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    before(kiosk, database, scan, result, tmp_path)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


def quarantined(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    """Both results of a scan that was sealed twice: the second was not taken."""
    arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, scan), result)
    open_all(database, kiosk.opening)
    assert envelope(database, result).reason == "second_result"
    arrive(database, kiosk, withdraw(scan))


def never_opened(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    newer = Newer.model_construct(**vars(a_result(kiosk, scan)))
    arrive(database, kiosk, newer, result)
    open_all(database, kiosk.opening)
    assert envelope(database, result).state == "quarantined"
    arrive(database, kiosk, withdraw(scan, result))


def without_a_key(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    ours, kiosk.opening = kiosk.opening, generate_opening_key()
    arrive(database, kiosk, a_result(kiosk, scan), result)
    kiosk.opening = ours
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


def sealed_again(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    """The first came after all, and so did the one that supersedes it, which the withdrawal does not know."""
    arrive(database, kiosk, a_result(kiosk, scan), result)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))
    open_all(database, kiosk.opening)
    arrive(database, kiosk, a_result(kiosk, scan, supersedes=result))


def superseding(kiosk: SealingKiosk, database: Database, scan: UUID, result: UUID, tmp_path: Path) -> None:
    first = arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, a_result(kiosk, scan, supersedes=first), result)
    open_all(database, kiosk.opening)
    arrive(database, kiosk, withdraw(scan, result))


@pytest.mark.parametrize(
    "order",
    [
        before,
        overtaking,
        overtaking_without_a_name,
        both_unopened,
        twice,
        quarantined,
        never_opened,
        without_a_key,
        sealed_again,
        superseding,
    ],
)
def test_a_withdrawal_wins_in_whatever_order_things_come(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, order: Any
) -> None:
    scan, result = uuid4(), uuid4()
    order(kiosk, database, scan, result, tmp_path)
    open_all(database, kiosk.opening)
    open_all(database, kiosk.opening, again=True)
    with database.reading() as session:
        results = session.scalars(select(Envelope).where(Envelope.type == "result")).all()
        assert {(row.state, bytes(row.data)) for row in results} == {("erased", b"")}
    assert (count(database, Scan), count(database, FindingRow), count(database, Withdrawal)) == (0, 0, 1)
    assert REFERENCE not in everything(database)


def test_the_same_result_coming_again_after_its_withdrawal_is_a_duplicate_and_stays_erased(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan, message_id = uuid4(), uuid4()
    data = kiosk.seal(a_result(kiosk, scan), message_id=message_id)
    outcomes = []
    for again in range(2):
        with database.writing() as session:
            outcomes.append(take_envelope(session, kiosk.id, "result", data, "ingest-1"))
        if not again:
            arrive(database, kiosk, withdraw(scan, message_id))
        open_all(database, kiosk.opening)
    assert outcomes == ["stored", "duplicate"]
    assert envelope(database, message_id).data == b""


def test_another_kiosk_can_neither_withdraw_a_scan_nor_be_withdrawn_by_it(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    taken, early = uuid4(), uuid4()
    result = arrive(database, kiosk, a_result(kiosk, taken))
    attempts = [arrive(database, other, withdraw(taken, result))]
    squat = arrive(database, other, withdraw(early, result))
    open_all(database, kiosk.opening)
    attempts.append(arrive(database, other, a_result(other, taken)))
    arrive(database, kiosk, a_result(kiosk, early))
    open_all(database, kiosk.opening)
    assert [envelope(database, one).reason for one in attempts] == ["scan_of_another_kiosk"] * 2
    assert envelope(database, squat).state == "opened"  # it is about a scan that nobody had sent
    with database.reading() as session:
        assert {line.id for line in scan_page(session).lines} == {taken, early}


def test_a_scan_that_was_erased_cannot_be_taken_over(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other = registered(database, SealingKiosk(kiosk.opening), tmp_path)
    scan = uuid4()
    arrive(database, kiosk, a_result(kiosk, scan))
    arrive(database, kiosk, withdraw(scan))
    open_all(database, kiosk.opening)
    attempt = arrive(database, other, a_result(other, scan))
    open_all(database, kiosk.opening)
    assert envelope(database, attempt).reason == "scan_of_another_kiosk"
    assert count(database, Scan) == 0


def test_a_reminder_about_a_withdrawn_scan_goes_with_it(database: Database, kiosk: SealingKiosk) -> None:
    scan = uuid4()

    arrive(database, kiosk, a_result(kiosk, scan))
    early = arrive(database, kiosk, a_reminder(scan))
    arrive(database, kiosk, withdraw(scan))
    late = arrive(database, kiosk, a_reminder(scan))
    open_all(database, kiosk.opening)
    assert [envelope(database, one).data for one in (early, late)] == [b"", b""]
    assert count(database, ReminderRow) == 0
    arrive(database, kiosk, a_reminder(None))
    open_all(database, kiosk.opening)
    assert count(database, ReminderRow) == 1


def test_a_payload_in_quarantine_that_claims_to_be_the_result_goes_too(
    database: Database, kiosk: SealingKiosk
) -> None:
    scan, message_id = uuid4(), uuid4()
    damaged = kiosk.seal(a_result(kiosk, scan), message_id=message_id)[:-1] + b"x"
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", damaged, "ingest-1") == "quarantined"
        assert take_envelope(session, kiosk.id, "result", b"something else", "ingest-1") == "quarantined"
    arrive(database, kiosk, withdraw(scan, message_id))
    open_all(database, kiosk.opening)
    with database.reading() as session:
        assert session.scalars(select(Poison.data)).all() == [b"something else"]


def test_nothing_is_kept_of_a_message_that_was_withdrawn_before_it_came_however_it_comes(
    database: Database, kiosk: SealingKiosk
) -> None:
    """Spoilt, on another topic, sealed to a key that nobody holds, or holds any more."""
    retired = generate_opening_key()
    hold(database, retired)
    with database.writing() as session:
        session.get_one(HeldKey, retired.kid).state = RETIRED
    ids = [uuid4() for _ in range(4)]
    scan = uuid4()
    arrive(database, kiosk, withdraw(scan, *ids))
    open_all(database, kiosk.opening)
    good = [kiosk.seal(a_result(kiosk, scan), message_id=message_id) for message_id in ids[:2]]
    held, kiosk.opening = kiosk.opening, retired
    to_retired = kiosk.seal(a_result(kiosk, scan), message_id=ids[2])
    kiosk.opening = generate_opening_key()
    to_nobody = kiosk.seal(a_result(kiosk, scan), message_id=ids[3])
    came = {good[0][:-1] + b"x": "result", good[1]: "reminder", to_retired: "result", to_nobody: "result"}
    for _ in range(2):
        for data, topic in came.items():
            with database.writing() as session:
                take_envelope(session, kiosk.id, topic, data, "ingest-1")
        open_all(database, held)
    with database.reading() as session:
        assert session.scalars(select(Poison)).all() == []
        assert {row.data for row in session.scalars(select(Envelope).where(Envelope.type == "result"))} == {
            b""
        }
        # The kiosk lets go of it too.
        owed = session.scalars(select(ReceiptRow).where(ReceiptRow.message_id.in_(ids))).all()
        assert {row.status for row in owed} == {"duplicate"}
        assert {row.message_id for row in owed} == set(ids)


def test_a_withdrawn_message_that_comes_spoilt_again_and_again_leaves_few_rows(
    database: Database, kiosk: SealingKiosk
) -> None:
    message_id = uuid4()
    arrive(database, kiosk, withdraw(uuid4(), message_id))
    open_all(database, kiosk.opening)
    good = kiosk.seal(message_id=message_id)
    for change in range(1, 13):
        spoilt = good[:-1] + bytes([good[-1] ^ change])
        with database.writing() as session:
            assert take_envelope(session, kiosk.id, "result", spoilt, "ingest-1") == "withdrawn"
    with database.reading() as session:
        of_message = select(ReceiptRow).where(ReceiptRow.message_id == message_id)
        answered = session.scalars(of_message).all()
        assert len(answered) == 4
    # Those that were answered are answered again: a receipt can be lost on its way.
    with database.writing() as session:
        session.execute(update(ReceiptRow).values(sent_at=MOMENT))
        take_envelope(session, kiosk.id, "result", good[:-1] + bytes([good[-1] ^ 1]), "ingest-1")
    with database.reading() as session:
        assert [row.sent_at for row in session.scalars(of_message)].count(None) == 1


@pytest.mark.parametrize("by", ["the next start", "a day without one", "staff"])
def test_a_spoilt_copy_that_came_while_its_withdrawal_was_acted_on_goes_later(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    scan, message_id = uuid4(), uuid4()
    spoilt = kiosk.seal(a_result(kiosk, scan), message_id=message_id)[:-1] + b"x"
    arrive(database, kiosk, withdraw(scan, message_id))
    open_all(database, kiosk.opening)
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    with database.writing() as session:
        for data in (spoilt, b"something else"):
            sha256 = hashlib.sha256(data).digest()
            row = {"topic": "result", "sha256": sha256, "data": data, "reason": "bad_signature"}
            session.add(Poison(kiosk=kiosk.id, received_at=now(), **row))
    if by == "the next start":
        open_all(database, kiosk.opening)
    elif by == "staff":
        with database.reading() as session:
            (one,) = [held for held in quarantine.held(session) if held.size == len(spoilt)]
        assert quarantine.retry(database, one, "command:ann", 0) == (
            True,
            "Its scan was withdrawn, so it was erased.",
        )
    else:
        monkeypatch.setattr("sync.clinic.receiving.opener.LOOK_AGAIN_S", 0.0)
        opener._look_again()
    with database.reading() as session:
        assert session.scalars(select(Poison.data)).all() == [b"something else"]


def test_a_withdrawal_that_another_one_names_is_no_scans_content_and_is_not_called_stored(
    database: Database, kiosk: SealingKiosk
) -> None:
    word = uuid4()
    arrive(database, kiosk, withdraw(uuid4(), word))
    open_all(database, kiosk.opening)
    held, kiosk.opening = kiosk.opening, generate_opening_key()
    arrive(database, kiosk, withdraw(uuid4()), word)
    open_all(database, held)
    assert envelope(database, word).reason == "no_opening_key"
    with database.reading() as session:
        owed = session.scalars(select(ReceiptRow.status).where(ReceiptRow.message_id == word)).one()
    assert owed == "quarantined"
