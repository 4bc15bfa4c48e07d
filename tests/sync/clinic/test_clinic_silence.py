"""Silence at the clinic: staff read that nothing comes, or that it is not opened, and what to do."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from sync.clinic.app import make_app
from sync.clinic.cli import clinic as clinic_command
from sync.clinic.people.accounts import Accounts, add_account
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.silence import silence
from sync.clinic.store.database import Database, now
from sync.clinic.store.tables import Envelope, Kiosk
from sync.clinic.summary import as_text, summary
from sync.wire.keys import OpeningKey
from tests.support.clinic import SealingKiosk, registered


def heard(database: Database, kiosk: SealingKiosk, ago: timedelta | None) -> None:
    with database.writing() as session:
        last = None if ago is None else now() - ago
        session.execute(update(Kiosk).where(Kiosk.id == kiosk.id).values(last_seen_at=last))


def said(database: Database) -> list[str]:
    with database.reading() as session:
        return silence(session)


@pytest.mark.parametrize(
    ("ago", "time"),
    [
        (timedelta(minutes=6), "for 6 minutes"),
        (timedelta(minutes=119), "for 119 minutes"),
        (timedelta(hours=14), "for 14 hours"),
        (timedelta(days=3), "for 3 days"),
        (timedelta(days=-1), "since this computer's clock was ahead"),
    ],
)
def test_a_clinic_that_hears_no_kiosk_says_for_how_long_and_what_to_do(
    database: Database, kiosk: SealingKiosk, ago: timedelta, time: str
) -> None:
    heard(database, kiosk, ago)
    (sentence,) = said(database)
    assert sentence.startswith(f"No kiosk has been heard from {time}, so ")
    assert "see that a kiosk is on" in sentence
    assert "the broker and 'clinic ingest'" in sentence


def test_one_kiosk_that_is_heard_shows_that_the_clinic_hears(
    database: Database, kiosk: SealingKiosk, opening_key: OpeningKey, tmp_path: Path
) -> None:
    heard(database, kiosk, timedelta(days=3))
    other = registered(database, SealingKiosk(opening_key), tmp_path)
    heard(database, other, timedelta(minutes=4))
    assert said(database) == []


def test_a_kiosk_that_was_never_heard_counts_from_when_it_was_let_in(
    database: Database, kiosk: SealingKiosk
) -> None:
    assert said(database) == []
    with database.writing() as session:
        session.execute(update(Kiosk).values(registered_at=now() - timedelta(minutes=30)))
    (sentence,) = said(database)
    assert "for 30 minutes" in sentence


def test_a_kiosk_that_a_computer_hears_whose_clock_is_a_little_ahead_is_heard(
    database: Database, kiosk: SealingKiosk
) -> None:
    heard(database, kiosk, timedelta(seconds=-2))
    assert said(database) == []


def test_a_clinic_without_a_kiosk_waits_for_nothing(database: Database) -> None:
    assert said(database) == []


def test_what_came_and_is_not_opened_is_told_until_it_is(database: Database, kiosk: SealingKiosk) -> None:
    with database.writing() as session:
        take_envelope(session, kiosk.id, "result", kiosk.seal(), "ingest-1")
    assert said(database) == []
    with database.writing() as session:
        session.execute(update(Envelope).values(received_at=now() - timedelta(minutes=7)))
    (sentence,) = said(database)
    assert sentence.startswith("What came 7 minutes ago has not been opened, so ")
    assert "'clinic open'" in sentence
    assert Opener(database, [kiosk.opening]).open_next()
    assert said(database) == []


def test_staff_read_it_where_they_look_first_and_whoever_asks_for_the_status_too(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    heard(sqlite, kiosk, timedelta(minutes=9))
    (sentence,) = said(sqlite)
    password = add_account(sqlite, "ann")
    app = make_app(sqlite, b"k" * 32)
    staff = app.test_client()
    with staff.session_transaction() as session:
        session["token"] = Accounts(sqlite).sign_in("ann", password, "", None)

    def shown() -> list[str]:
        page = staff.get("/").text.replace("&#39;", "'")
        return re.findall(r'<p class="notice attention" role="status">(.*?)</p>', page)

    def status(*more: str) -> str:
        asked = CliRunner().invoke(clinic_command, ["status", "--state", str(tmp_path / "clinic"), *more])
        assert asked.exit_code == 0
        return asked.output

    assert shown() == [sentence]
    assert f"SILENCE           {sentence}" in status().splitlines()[0]
    assert json.loads(status("--json", "-"))["silence"] == [sentence]
    heard(sqlite, kiosk, timedelta())
    assert shown() == []
    assert "SILENCE" not in status()
    with sqlite.reading() as session:
        assert as_text(summary(session)).startswith("scans")
