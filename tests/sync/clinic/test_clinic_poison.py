"""One message, whatever is in it, stops nobody: it is quarantined, and the next one is opened."""

from __future__ import annotations

import functools
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select, text, update
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from sync.clinic.receiving import results
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.opener import STRIKES, Opener
from sync.clinic.scans.records import scan_record
from sync.clinic.store import patience
from sync.clinic.store.database import Database, now
from sync.clinic.store.failure import failed_itself
from sync.clinic.store.tables import Envelope, Kiosk, Poison, Scan
from sync.wire import cose, envelope, topics
from sync.wire.keys import OpeningKey
from sync.wire.messages import InvalidMessage, ReminderDue, Withdraw, dump_message, parse_message
from tests.support.clinic import MOMENT, SealingKiosk, registered
from tests.support.own_log import own_log
from tests.support.waiting import wait_until
from tests.support.wire import a_result
from tests.support.wire_documents import spotted

EXTREMES: list[str] = [
    *("null", "true", "-1", "0", "2147483648", "9223372036854775807", "9223372036854775808", "-1e308"),
    *("1e308", "1e400", "NaN", "Infinity", "-Infinity", "1" + "0" * 4000, '""', '"\\u0000"', '"\\ud800"'),
    *('"\\u202e"', json.dumps("x" * 100_000), "[]", "{}", '{"": 0}', "[" * 5000 + "]" * 5000),
    *('"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"', '"1969-12-31T23:59:59Z"', '"-1"'),
    *('"2200-01-01"', "[" + ",".join(["0"] * 5_000) + "]"),
]
HOLE = "\u2603"


def messages() -> dict[tuple[str, int], Any]:
    """One good message of each kind and schema, as plain data."""
    spots = spotted()
    withdraw = Withdraw(scan=uuid4(), at=MOMENT, reason="staff")
    reminder = ReminderDue(reminder=uuid4(), patient_reference="p", rule="yearly", due_on=MOMENT.date())
    return {
        ("result", 1): json.loads(dump_message(a_result(findings=1))),
        ("result", 2): spots,
        ("withdraw", 1): json.loads(dump_message(withdraw)),
        ("reminder", 1): json.loads(dump_message(reminder)),
    }


def holes(value: Any) -> Iterator[Callable[[str], str]]:
    """For each place in `value`, the JSON with something else there; a list's items are alike."""
    alike = {tuple("*" if isinstance(step, int) else step for step in path): path for path in places(value)}
    for path in alike.values():
        changed = json.loads(json.dumps(value))
        if not path:
            yield lambda text: text
            continue
        parent = changed
        for step in path[:-1]:
            parent = parent[step]
        parent[path[-1]] = HOLE
        whole = json.dumps(changed)
        yield lambda text, whole=whole: whole.replace(json.dumps(HOLE), text)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def take(database: Database, kiosk: SealingKiosk, data: bytes, topic: str = "result") -> str:
    with database.writing() as session:
        return take_envelope(session, kiosk.id, topic, data, "ingest-1")


def open_all(opener: Opener) -> None:
    while opener.open_next():
        pass


def scans(database: Database) -> set[UUID]:
    with database.reading() as session:
        return set(session.scalars(select(Scan.id)))


def states(database: Database) -> dict[str, int]:
    with database.reading() as session:
        rows = session.execute(select(Envelope.state, func.count()).group_by(Envelope.state))
        return {state: count for state, count in rows}


@functools.cache
def extremes() -> list[tuple[str, int, bytes, bool]]:
    """Each kind and schema with each of its fields at each extreme, and whether the schema lets it pass."""
    found = []
    for (kind, version), message in messages().items():
        for fill in holes(message):
            for extreme in EXTREMES:
                data = fill(extreme).encode()
                try:
                    parse_message(kind, version, data)
                    passes = True
                except InvalidMessage as error:
                    assert "\u2603" not in str(error) and len(str(error)) < 400
                    passes = False
                found.append((kind, version, data, passes))
    return found


def test_any_field_at_any_extreme_is_quarantined_or_opened_and_the_next_one_is_opened(
    database: Database, kiosk: SealingKiosk
) -> None:
    good: set[UUID] = set()
    tried = [case for number, case in enumerate(extremes()) if case[3] or number % 97 == 0]
    assert len(tried) > 100
    for start in range(0, len(tried), 20):
        with database.writing() as session:
            for kind, version, text_, _ in tried[start : start + 20]:
                data = kiosk.seal_text(text_, kind, version)
                take_envelope(session, kiosk.id, topics.up_kind(kind), data, "ingest-1")
            scan = uuid4()
            take_envelope(session, kiosk.id, "result", kiosk.seal(kiosk.result(scan)), "ingest-1")
        good.add(scan)
    open_all(Opener(database, [kiosk.opening]))
    assert good <= scans(database)
    assert set(states(database)) == {"opened", "quarantined"}


def test_any_bytes_in_an_envelope_stop_nobody(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    opener = Opener(sqlite, [opening_key])

    @given(
        text=st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str)
    )
    @settings(max_examples=100, deadline=None)
    def the_next_one_is_opened(text: bytes | str) -> None:
        scan, data = uuid4(), text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        with sqlite.writing() as session:
            for sealed in (kiosk.seal_text(data), kiosk.seal(kiosk.result(scan))):
                take_envelope(session, kiosk.id, "result", sealed, "ingest-1")
        open_all(opener)
        assert scan in scans(sqlite)

    the_next_one_is_opened()


@pytest.mark.parametrize(
    "header",
    [
        {"type": "result\0"},
        {"type": "\N{SNOWMAN}"},
        {"schema": 2**31},
        {"schema": 2**63 - 1},
        {"sequence": 2**63 - 1},
        {"epoch": 2**63 - 1},
        {"created_ms": 7_258_118_400_000},
        {"created_ms": 2**62},
    ],
    ids=str,
)
def test_a_header_at_any_extreme_stops_nobody(
    database: Database, kiosk: SealingKiosk, header: dict[str, Any]
) -> None:
    good = cbor2.loads(cose.parse(kiosk.seal(), envelope.TYPE).protected)
    info = cbor2.dumps(good | {"id": uuid4().bytes} | header, canonical=True)
    data = cose.sign(info, kiosk.opening.public.seal(dump_message(kiosk.result()), info), kiosk.signing)
    assert take(database, kiosk, data) in ("stored", "quarantined")
    assert take(database, kiosk, kiosk.seal()) == "stored"
    open_all(Opener(database, [kiosk.opening]))
    assert len(scans(database)) >= 1


def test_a_row_of_which_something_cannot_be_read_that_nobody_needs_is_opened_with_the_others(
    database: Database, kiosk: SealingKiosk
) -> None:
    take(database, kiosk, kiosk.seal())
    bad = "'x'" if database.engine.dialect.name == "sqlite" else "'infinity'"
    with database.writing() as session:
        session.execute(text(f"UPDATE envelopes SET created_at = {bad}"))
    take(database, kiosk, kiosk.seal())
    with capture_logs() as said:
        assert Opener(database, [kiosk.opening]).open_next(2)
    assert [line["event"] for line in said] == ["opened"]
    for scan in scans(database):
        with database.reading() as session:
            record = scan_record(session, scan)
            assert record is not None and record.envelope.received_at <= now()


def test_a_row_that_cannot_be_used_at_all_is_set_apart(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    take(sqlite, kiosk, kiosk.seal())
    with sqlite.writing() as session:
        session.execute(text("UPDATE envelopes SET data = 7"))
    take(sqlite, kiosk, kiosk.seal())
    open_all(Opener(sqlite, [opening_key]))
    assert (len(scans(sqlite)), states(sqlite)) == (1, {"opened": 1, "quarantined": 1})


@pytest.mark.parametrize(
    "fault", [ValueError, AttributeError, RecursionError, AssertionError, ZeroDivisionError]
)
def test_a_fault_of_our_own_costs_one_message_and_its_words_are_in_no_log(
    database: Database,
    kiosk: SealingKiosk,
    fault: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep = results.keep_results

    def trip(session: Any, kept: Any) -> None:
        if "ref-secret" in [message.patient_reference for _, message in kept]:
            try:
                raise KeyError("ref-secret, caused")
            except KeyError as cause:
                raise fault("ref-secret, 33.0") from cause
        keep(session, kept)

    monkeypatch.setattr(results, "keep_results", trip)
    with own_log():
        take(database, kiosk, kiosk.seal(kiosk.result(patient_reference="ref-secret")))
        take(database, kiosk, kiosk.seal())
        open_all(Opener(database, [kiosk.opening]))
    assert states(database) == {"opened": 1, "quarantined": 1}
    with database.reading() as session:
        reason = session.scalars(select(Envelope.reason).where(Envelope.state == "quarantined")).one()
    assert reason == f"not_foreseen:{fault.__name__}"
    said = capsys.readouterr().err
    assert "ref-secret" not in said and "33.0" not in said
    lines = [json.loads(line) for line in said.splitlines() if '"fault"' in line]
    assert [line["event"] for line in lines] == ["one_by_one", "quarantined"]
    for line in lines:
        assert line["fault"][0].startswith(f"{fault.__name__} at tests/sync/clinic/test_clinic_poison.py:")
        assert line["fault"][1].startswith("KeyError at ")


def test_what_the_database_says_of_an_error_quotes_no_value(database: Database) -> None:
    with pytest.raises(Exception, match="INSERT") as caught, database.writing() as session:
        session.add(Kiosk(id=uuid4(), name="ref-secret", registered_at="ref-secret"))
    assert "ref-secret" not in str(caught.value)


def test_a_full_disk_quarantines_nothing(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    for _ in range(3):
        take(sqlite, kiosk, kiosk.seal())
    opener = Opener(sqlite, [opening_key])
    small = event.listens_for(sqlite.engine, "connect")
    sqlite.close()

    @small
    def no_room(connection: sqlite3.Connection, _: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    for _ in range(2 * STRIKES):
        with pytest.raises(OperationalError, match="full") as caught:
            opener.open_next(3)
        assert failed_itself(caught.value)
    assert states(sqlite) == {"stored": 3}
    event.remove(sqlite.engine, "connect", no_room)
    sqlite.close()
    open_all(opener)
    assert states(sqlite) == {"opened": 3}
    with sqlite.reading() as session:
        assert session.scalars(select(Poison)).all() == []


def test_what_was_set_aside_is_tried_again_as_soon_as_a_database_that_was_away_is_back(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, first = Opener(database, [kiosk.opening]), uuid4()
    take(database, kiosk, kiosk.seal(message_id=first))

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("BEGIN", {}, Exception("away"))

    opener._aside[kiosk.id, first] = math.inf
    take(database, kiosk, kiosk.seal())
    with monkeypatch.context() as patch:
        patch.setattr(database, "writing", away)
        with pytest.raises(OperationalError):
            opener.open_next()
    open_all(opener)
    assert states(database) == {"opened": 2}


def test_a_message_that_the_database_fails_with_again_and_again_lets_the_others_go_first(
    database: Database, kiosk: SealingKiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = results.keep_results

    def break_down(session: Any, kept: Any) -> None:
        if "ref-heavy" in [message.patient_reference for _, message in kept]:
            raise OperationalError("INSERT", {}, Exception("out of something"))
        keep(session, kept)

    monkeypatch.setattr(results, "keep_results", break_down)
    take(database, kiosk, kiosk.seal(kiosk.result(patient_reference="ref-heavy")))
    take(database, kiosk, kiosk.seal())
    opener = Opener(database, [kiosk.opening])
    for _ in range(STRIKES):
        with pytest.raises(OperationalError):
            opener.open_next()
    open_all(opener)
    assert states(database) == {"opened": 1, "stored": 1}


def test_a_locked_database_is_waited_for_and_nothing_is_quarantined(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk = registered(sqlite, SealingKiosk(opening_key), tmp_path)
    take(sqlite, kiosk, kiosk.seal())
    monkeypatch.setattr("sync.clinic.store.engine.BUSY_S", 0.05)
    impatient = Database.existing(tmp_path / "clinic")
    blocker = sqlite3.connect(tmp_path / "clinic" / "clinic.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    away, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(patience, "why_away", lambda error: away.set() or "locked")
    thread = threading.Thread(target=Opener(impatient, [opening_key]).run, args=(stop,))
    thread.start()
    try:
        assert away.wait(30)
        assert states(sqlite) == {"stored": 1}
        blocker.execute("ROLLBACK")
        wait_until(lambda: states(sqlite) == {"opened": 1}, "the message opened")
    finally:
        stop.set()
        thread.join(30)
        blocker.close()
        impatient.close()


def test_a_postgresql_that_goes_and_comes_back_quarantines_nothing(
    postgresql: Database, opening_key: OpeningKey, tmp_path: Path
) -> None:
    """Its connections are ended in the middle, as a restart of the server does it."""
    kiosk = registered(postgresql, SealingKiosk(opening_key), tmp_path)
    take(postgresql, kiosk, kiosk.seal())
    opener = Opener(postgresql, [kiosk.opening])
    keep = results.keep_results

    cuts: list[int] = []

    def cut_off(session: Any, kept: Any) -> None:
        cuts.append(1)
        if len(cuts) == 2:  # with others, then alone
            monkey.undo()
        backend = session.scalar(text("SELECT pg_backend_pid()"))
        with postgresql.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({backend})"))
        keep(session, kept)

    monkey = pytest.MonkeyPatch()
    monkey.setattr(results, "keep_results", cut_off)
    with pytest.raises(OperationalError) as caught:
        opener.open_next()
    assert failed_itself(caught.value)
    assert states(postgresql) == {"stored": 1}
    open_all(opener)
    assert states(postgresql) == {"opened": 1}


def test_an_old_row_that_waits_for_its_key_is_opened_once_it_is_held(
    database: Database, kiosk: SealingKiosk
) -> None:
    take(database, kiosk, kiosk.seal())
    with database.writing() as session:
        session.execute(update(Envelope).values(reason="no_opening_key", received_at=now()))
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    open_all(opener)
    assert states(database) == {"opened": 1}
