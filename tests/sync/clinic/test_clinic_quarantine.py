"""What a person does about messages in quarantine: see, try again, give up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select, update

from sync.clinic.cli import clinic
from sync.clinic.receiving import quarantine
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.poison import take_poison
from sync.clinic.receiving.registry import STATUS
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicError, ClinicUsageError
from sync.clinic.store.tables import AuditEvent, Envelope, HeldKey, Poison, ReceiptRow, Scan
from sync.wire.keys import OpeningKey, generate_opening_key
from sync.wire.messages import Message, Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat, hold, registered

REFERENCE = "ref-1"


class Newer(Withdraw):
    """A message of a version that the clinic's software does not know yet."""

    VERSION: ClassVar[int] = 99


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(clinic, ["quarantine", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def said(result: Result) -> str:
    """The last line: what an opener in this process logs comes before it."""
    return result.output.splitlines()[-1]


@pytest.fixture(autouse=True)
def the_clinic(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DERMAKIOSK_STATE", str(tmp_path / "clinic"))
    url = database.engine.url.set(drivername=database.engine.url.get_backend_name())
    monkeypatch.setenv("DERMAKIOSK_CLINIC_DB", url.render_as_string(hide_password=False))


def arrive(database: Database, kiosk: SealingKiosk, message: Message | None = None) -> UUID:
    message_id = uuid4()
    with database.writing() as session:
        take_envelope(session, kiosk.id, "result", kiosk.seal(message, message_id=message_id), "ingest-1")
    return message_id


def open_all(database: Database, *keys: OpeningKey) -> None:
    opener = Opener(database, keys)
    opener.begin()
    while opener.open_next():
        pass


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


def a_second_result(database: Database, kiosk: SealingKiosk) -> tuple[UUID, UUID]:
    """An envelope in quarantine, and the scan whose record is in its way."""
    result = kiosk.result()
    arrive(database, kiosk, result)
    second = arrive(database, kiosk, result)
    open_all(database, kiosk.opening)
    return second, result.scan


def a_payload(database: Database, kiosk: SealingKiosk) -> tuple[str, bytes, UUID]:
    """The number of a good envelope that was set apart as poison, its bytes and its message."""
    message_id = uuid4()
    data = kiosk.seal(message_id=message_id)
    with database.writing() as session:
        assert take_envelope(session, kiosk.id, "reminder", data, "ingest-1") == "quarantined"
        session.execute(update(Poison).values(topic="result"))
    (one,) = listed()
    return one["id"], data, message_id


def listed() -> list[dict[str, Any]]:
    found = json.loads(run("list", "--json").output)
    assert isinstance(found, list)
    return found


def row(database: Database, message: UUID) -> Envelope:
    with database.reading() as session:
        return session.scalars(select(Envelope).where(Envelope.message_id == message)).one()


def acts(database: Database) -> list[tuple[str, str | None]]:
    with database.reading() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.event.like("quarantine-%")))
        found = list(rows)
    assert all(event.actor.startswith("command:") and len(event.actor) > 8 for event in found)
    return [(event.event, event.subject) for event in found]


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
    assert acts(database) == [("quarantine-retried", str(message))]


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
    assert acts(database) == [("quarantine-retried", number)]


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
    assert acts(database) == [("quarantine-retried", number)]


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
    assert (listed(), acts(database)) == ([], [("quarantine-discarded", str(message))])
    with database.reading() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.event == "quarantine-discarded")).one()
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


def test_a_discarded_payload_is_gone(database: Database, kiosk: SealingKiosk) -> None:
    number, _, _ = a_payload(database, kiosk)
    run("discard", number, "--reason", "noise", "--yes")
    with database.reading() as session:
        assert session.scalars(select(Poison)).all() == []
    assert acts(database) == [("quarantine-discarded", number)]


def test_a_withdrawal_still_reaches_what_was_discarded(database: Database, kiosk: SealingKiosk) -> None:
    message, scan = a_second_result(database, kiosk)
    run("discard", message, "--reason", "sent twice", "--yes")
    arrive(database, kiosk, Withdraw(scan=scan, at=MOMENT, reason="patient"))
    open_all(database, kiosk.opening)
    assert row(database, message).state == "erased"


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
