"""What a person does about messages in quarantine: see them, and try them again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from sync.clinic.receiving import quarantine
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.poison import take_poison
from sync.clinic.receiving.registry import STATUS
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.tables import HeldKey, Poison, ReceiptRow, Scan
from sync.wire.keys import OpeningKey, generate_opening_key
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat, hold, registered
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

REFERENCE = "ref-1"


@pytest.fixture(autouse=True)
def the_clinic(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DERMAKIOSK_STATE", str(tmp_path / "clinic"))
    url = database.engine.url.set(drivername=database.engine.url.get_backend_name())
    monkeypatch.setenv("DERMAKIOSK_CLINIC_DB", url.render_as_string(hide_password=False))


@contextmanager
def an_opener(database: Database, *keys: OpeningKey) -> Iterator[None]:
    opener, stop = Opener(database, keys), threading.Event()
    opener.begin()
    thread = threading.Thread(target=opener.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_an_empty_quarantine_says_so() -> None:
    assert run("list").output == "Nothing is in quarantine.\n"
    assert listed() == []


def test_both_kinds_are_listed_and_shown_without_anything_of_a_patient(
    database: Database, kiosk: SealingKiosk
) -> None:
    number, data, _ = a_payload(database, kiosk)
    message, scan = a_second_result(database, kiosk)
    found = {one["id"]: one for one in listed()}
    assert set(found) == {number, str(message)}
    assert [found[number][name] for name in ("kind", "reason", "bytes")] == [
        "payload",
        "wrong_topic",
        len(data),
    ]
    envelope = found[str(message)]
    assert [envelope[name] for name in ("kind", "type", "reason")] == ["envelope", "result", "second_result"]
    for shown in (run("list"), *(run("show", one) for one in found), run("show", number, "--json")):
        assert REFERENCE not in shown.output and str(scan) not in shown.output
        assert any(one in shown.output for one in found)
    assert json.loads(run("show", message, "--json").output) == envelope


@pytest.mark.parametrize("command", [("show",), ("retry",), ("discard", "--reason", "r", "--yes")])
@pytest.mark.parametrize("wanted", ["7c2ed16d-e2ef-4881-9536-a957029c2989", "7", "nonsense", "9" * 40, "-"])
def test_an_unknown_id_is_told_in_a_sentence(
    command: tuple[str, ...], wanted: str, database: Database
) -> None:
    with pytest.raises(ClinicUsageError, match="There is no message .* in quarantine: .*quarantine list"):
        run(*command, wanted)
    assert acts(database) == []


def test_two_kiosks_with_one_id_have_to_be_told_apart(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    other, shared = registered(database, SealingKiosk(kiosk.opening), tmp_path), uuid4()
    for one in (kiosk, other):
        with database.writing() as session:
            data = one.seal(Newer(scan=uuid4(), at=MOMENT, reason="patient"), message_id=shared)
            take_envelope(session, one.id, "result", data, "ingest-1")
    open_all(database, kiosk.opening)
    with pytest.raises(ClinicUsageError, match="--kiosk"):
        run("show", shared)
    assert str(other.id) in run("show", shared, "--kiosk", other.id).output


def test_an_envelope_whose_cause_is_mended_is_opened_and_that_is_said(
    database: Database, kiosk: SealingKiosk
) -> None:
    message, scan = a_second_result(database, kiosk)
    with database.writing() as session:
        session.delete(session.get_one(Scan, scan))
    with an_opener(database, kiosk.opening):
        assert said(run("retry", message)) == "It was opened."
    assert row(database, message).state == "opened"
    assert acts(database) == [("quarantine_retried", str(message))]


def test_an_envelope_whose_cause_is_not_mended_is_in_quarantine_again_and_that_is_said(
    database: Database, kiosk: SealingKiosk
) -> None:
    message, _ = a_second_result(database, kiosk)
    with an_opener(database, kiosk.opening):
        answer = run("retry", message)
    assert (answer.exit_code, said(answer)) == (1, "It is in quarantine again: second_result.")


def test_without_an_opener_a_retried_envelope_waits_for_one(database: Database, kiosk: SealingKiosk) -> None:
    message, _ = a_second_result(database, kiosk)
    answer = run("retry", message, "--wait", 0, "--json")
    assert "waits for a 'clinic open' that has its key: none runs" in json.loads(said(answer))["became"]
    assert (row(database, message).state, listed()) == ("stored", [])


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "601"])
def test_whoever_waits_for_an_opener_waits_for_so_many_seconds(seconds: str) -> None:
    assert "Invalid value for '--wait'" in run("retry", uuid4(), "--wait", seconds).output


def test_a_payload_that_is_good_after_all_is_taken_in_and_opened(
    database: Database, kiosk: SealingKiosk
) -> None:
    number, _, message = a_payload(database, kiosk)
    with an_opener(database, kiosk.opening):
        assert said(run("retry", number)) == "It was opened."
    assert (row(database, message).state, listed()) == ("opened", [])
    with database.reading() as session:
        assert session.scalars(select(ReceiptRow.status)).all() == ["stored"]
    assert acts(database) == [("quarantine_retried", number)]


def test_a_payload_of_before_topics_were_noted_is_taken_by_what_it_claims(
    database: Database, kiosk: SealingKiosk
) -> None:
    number, _, message = a_payload(database, kiosk)
    with database.writing() as session:
        session.execute(update(Poison).values(topic=None))
    run("retry", number, "--wait", 0)
    assert row(database, message).state == "stored"


def test_a_payload_that_is_still_bad_stays_under_its_number(database: Database, kiosk: SealingKiosk) -> None:
    with database.writing() as session:
        take_envelope(session, kiosk.id, "result", b"nothing of ours", "ingest-1")
    (before,) = listed()
    answer = run("retry", before["id"])
    assert (answer.exit_code, said(answer)) == (1, f"It stays in quarantine: {before['reason']}.")
    assert listed() == [before]


def test_a_payload_that_its_kiosk_is_asked_to_seal_again_stays_for_there_is_no_other_copy_here(
    database: Database, kiosk: SealingKiosk
) -> None:
    number, _, _ = a_payload(database, kiosk)
    with database.writing() as session:
        session.execute(update(HeldKey).values(state="retired"))
    answer = run("retry", number)
    assert (answer.exit_code, said(answer)) == (
        1,
        "It stays in quarantine: it is sealed to a key that was given up, and its kiosk is asked to seal it "
        "again.",
    )
    assert [one["id"] for one in listed()] == [number]


def test_a_fault_of_our_own_in_a_payload_leaves_it_in_quarantine(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, _, _ = a_payload(database, kiosk)

    def fail(*_: object) -> None:
        raise ValueError(REFERENCE)

    monkeypatch.setattr(quarantine, "take_envelope", fail)
    answer = run("retry", number)
    assert (answer.exit_code, said(answer)) == (
        1,
        "It stays in quarantine: it cannot be stored (ValueError).",
    )
    assert [one["id"] for one in listed()] == [number]
    assert acts(database) == [("quarantine_retried", number)]


def a_heartbeat(database: Database, kiosk: SealingKiosk) -> None:
    """One that was set apart, and is good after all."""
    with database.writing() as session:
        take_poison(
            session, kiosk.id, STATUS, heartbeat(kiosk).sign(kiosk.status), "not_foreseen", "ingest-1"
        )


@pytest.mark.parametrize("set_aside", [a_payload, a_heartbeat])
@pytest.mark.parametrize("do", ["retry", "discard"])
def test_of_two_who_see_to_one_payload_at_once_the_second_is_told_that_somebody_else_has(
    database: Database,
    kiosk: SealingKiosk,
    monkeypatch: pytest.MonkeyPatch,
    set_aside: Callable[[Database, SealingKiosk], Any],
    do: str,
) -> None:
    set_aside(database, kiosk)
    with database.reading() as session:
        (one,) = quarantine.held(session)
    told = list[str]()

    def see_to_it_too() -> None:
        try:
            if do == "retry":
                quarantine.retry(database, one, "command:second", 0)
            else:
                quarantine.discard(database, one, "command:second", "no use")
            told.append("done")
        except ClinicError as error:
            told.append(str(error))

    second = threading.Thread(target=see_to_it_too)

    def meanwhile(take: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*given: Any) -> Any:
            if second.ident is None:
                second.start()
                second.join(0.5)  # it has done it by then, or it waits
            return take(*given)

        return taken

    for name in ("take_envelope", "take_heartbeat"):
        monkeypatch.setattr(quarantine, name, meanwhile(getattr(quarantine, name)))
    out, _ = quarantine.retry(database, one, "command:first", 0)
    second.join(30)
    assert (out, told) == (True, ["It is not in quarantine any more: somebody else has seen to it."])


def test_an_envelope_without_a_key_is_opened_when_the_opener_has_it(
    database: Database, kiosk: SealingKiosk
) -> None:
    key = generate_opening_key()
    hold(database, kiosk.opening)
    kiosk.opening = key
    message = arrive(database, kiosk)
    assert [one["reason"] for one in listed()] == ["no_opening_key"]
    with an_opener(database, key):
        pass
    open_all(database, key)
    assert (row(database, message).state, listed()) == ("opened", [])
