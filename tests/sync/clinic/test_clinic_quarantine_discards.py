"""What a person discards of the messages in quarantine, and what they are told of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from sync.clinic.cli import clinic
from sync.clinic.receiving import quarantine
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import AuditEvent, Envelope, Poison
from sync.wire.keys import generate_opening_key
from sync.wire.messages import Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, hold
from tests.support.quarantine import (
    Newer,
    a_payload,
    a_second_result,
    acts,
    arrive,
    listed,
    open_all,
    row,
    run,
    said,
)


@pytest.fixture(autouse=True)
def the_clinic(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DERMAKIOSK_STATE", str(tmp_path / "clinic"))
    url = database.engine.url.set(drivername=database.engine.url.get_backend_name())
    monkeypatch.setenv("DERMAKIOSK_CLINIC_DB", url.render_as_string(hide_password=False))


def test_discard_asks_for_yes_and_a_reason_and_changes_nothing_without(
    database: Database, kiosk: SealingKiosk
) -> None:
    word = arrive(database, kiosk, Newer(scan=uuid4(), at=MOMENT, reason="patient"))
    open_all(database, kiosk.opening)
    with pytest.raises(ClinicUsageError, match="a patient took back would stay: give --yes"):
        run("discard", word, "--reason", "a test message")
    assert run("discard", word, "--yes").exit_code == 2
    for reason in ("", "  ", "x" * 201, "two\nlines", "no letter: \udcff"):
        with pytest.raises(ClinicUsageError, match="1 to 200 printable characters"):
            run("discard", word, "--yes", "--reason", reason)
    assert (row(database, word).state, acts(database)) == ("quarantined", [])


def test_a_discarded_envelope_keeps_ids_and_hash_only_and_the_kiosk_is_never_told_it_is_here(
    database: Database, kiosk: SealingKiosk
) -> None:
    message, _ = a_second_result(database, kiosk)
    before = row(database, message)
    assert "discarded" in run("discard", message, "--reason", "sent twice", "--yes").output
    after = row(database, message)
    assert (after.state, after.data, after.sha256) == ("discarded", b"", before.sha256)
    assert (listed(), acts(database)) == ([], [("quarantine_discarded", str(message))])
    with database.reading() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.event == "quarantine_discarded")).one()
    assert (event.detail["why"], event.detail["reason"]) == ("sent twice", "second_result")
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", before.data, "ingest-1") == "quarantined"
    status = CliRunner().invoke(clinic, ["status"])
    assert "and 1 discarded" in status.output


def set_aside_after_it_was_stored(database: Database, kiosk: SealingKiosk) -> UUID:
    message_id = uuid4()
    data = kiosk.seal_text(b'{"ita": "no number"}', message_id=message_id)
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", data, "ingest-1") == "stored"
    open_all(database, kiosk.opening)
    return message_id


def set_aside_after_it_came(database: Database, kiosk: SealingKiosk, *, set_aside_at: int, of: int) -> None:
    """The same envelope comes so often; after one of the times it was found to be unreadable."""
    data = kiosk.seal_text(b'{"ita": "no number"}', message_id=uuid4())
    outcomes = []
    for time in range(of):
        with database.writing() as session:
            outcomes.append(take_envelope(session, kiosk.id, "result", data, "ingest-1"))
        if time == set_aside_at:
            open_all(database, kiosk.opening)
    again = ["duplicate" if time <= set_aside_at else "quarantined" for time in range(1, of)]
    assert outcomes == ["stored", *again]


def set_aside_and_opened_late_and_come_again(database: Database, kiosk: SealingKiosk) -> None:
    """What was said of it last is that somebody has to look, and before that the kiosk let go of it."""
    other, ours = generate_opening_key(), kiosk.opening
    hold(database, ours)
    kiosk.opening = other
    data = kiosk.seal()
    kiosk.opening = ours
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", data, "ingest-1") == "quarantined"
    open_all(database, ours, other)
    with database.writing() as session:
        session.execute(update(Envelope).values(state="quarantined", reason="not_foreseen:Error"))
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "result", data, "ingest-1") == "quarantined"


def never_stored(database: Database, kiosk: SealingKiosk) -> UUID:
    hold(database, kiosk.opening)
    kiosk.opening = generate_opening_key()
    return arrive(database, kiosk)


@pytest.mark.parametrize(
    ("set_aside", "only_here"),
    [
        (set_aside_after_it_was_stored, True),
        (partial(set_aside_after_it_came, set_aside_at=1, of=2), True),
        (partial(set_aside_after_it_came, set_aside_at=0, of=2), True),
        (partial(set_aside_after_it_came, set_aside_at=1, of=4), True),
        (set_aside_and_opened_late_and_come_again, True),
        (never_stored, False),
        (a_payload, False),
    ],
)
def test_whoever_discards_is_told_first_and_afterwards_of_an_only_copy_and_is_never_promised_another(
    database: Database,
    kiosk: SealingKiosk,
    set_aside: Callable[[Database, SealingKiosk], Any],
    only_here: bool,
) -> None:
    set_aside(database, kiosk)
    with database.reading() as session:
        assert [each.only_here for each in quarantine.held(session)] == [True if only_here else None]
    (one,) = listed()
    assert one["only_here"] is (True if only_here else None)
    assert ("only_here" in run("show", one["id"]).output) is only_here
    with pytest.raises(ClinicUsageError) as asked:
        run("discard", one["id"], "--reason", "no use")
    only, perhaps = "This is the only copy of message", "of which its kiosk may have no copy any more"
    assert (only in str(asked.value), perhaps in str(asked.value)) == (only_here, not only_here)
    kept = "It was the only copy." if only_here else "Its kiosk may have a copy still."
    assert said(run("discard", one["id"], "--reason", "no use", "--yes")) == f"It was discarded. {kept}"


def test_a_discarded_payload_is_gone(database: Database, kiosk: SealingKiosk) -> None:
    number, _, _ = a_payload(database, kiosk)
    run("discard", number, "--reason", "noise", "--yes")
    with database.reading() as session:
        assert session.scalars(select(Poison)).all() == []
    assert acts(database) == [("quarantine_discarded", number)]


def test_a_withdrawal_still_reaches_what_was_discarded(database: Database, kiosk: SealingKiosk) -> None:
    message, scan = a_second_result(database, kiosk)
    run("discard", message, "--reason", "sent twice", "--yes")
    arrive(database, kiosk, Withdraw(scan=scan, at=MOMENT, reason="patient"))
    open_all(database, kiosk.opening)
    assert row(database, message).state == "erased"


def test_a_discarded_envelope_stays_discarded_when_its_key_comes(
    database: Database, kiosk: SealingKiosk
) -> None:
    key = generate_opening_key()
    hold(database, kiosk.opening)
    kiosk.opening = key
    message = arrive(database, kiosk)
    run("discard", message, "--reason", "a test message", "--yes")
    open_all(database, key)
    assert row(database, message).state == "discarded"
    assert listed() == []
