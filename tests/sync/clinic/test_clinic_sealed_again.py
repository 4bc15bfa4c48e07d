"""What is to be sealed again is neither missing nor stored before it has come again."""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import delete, select

from sync.clinic.receiving.opener import Opener
from sync.clinic.scans.records import scan_record
from sync.clinic.store.database import Database
from sync.clinic.store.tables import AuditEvent, Envelope, HeldKey, Poison
from sync.clinic.summary import missing_sequences
from sync.wire.keys import OpeningKey, generate_opening_key
from tests.support.clinic import SealingKiosk, hold
from tests.support.intake import count, take


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
