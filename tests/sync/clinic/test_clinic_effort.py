"""What the clinic's database has to do stays as little however much is in it."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, event, insert, select
from sqlalchemy.exc import DBAPIError

from sync.clinic.app import make_app
from sync.clinic.audit.log import note
from sync.clinic.people.accounts import add_account
from sync.clinic.receiving.opener import Opener
from sync.clinic.receiving.opening_keys import NO_KEY
from sync.clinic.scans.records import PAGE_SIZE, scan_page
from sync.clinic.store import engine as engine_module
from sync.clinic.store.database import Database
from sync.clinic.store.engine import TURN_S
from sync.clinic.store.tables import AuditEvent, Envelope, Scan
from tests.support.clinic import MOMENT, SealingKiosk
from tests.support.effort import analyse, effort, statements
from tests.support.signing_in import sign_in

MANY = 1500


def envelopes(kiosk: SealingKiosk, count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows of envelopes that nobody looks into."""
    begin = kiosk.sequence + 1
    kiosk.sequence += count
    row = {
        "kiosk": kiosk.id,
        "epoch": 1,
        "type": "result",
        "schema_version": 1,
        "recipient": b"k" * 16,
        "created_at": MOMENT,
        "received_at": MOMENT,
        "sha256": b"s" * 32,
        "data": b"",
        "state": "opened",
        "reason": None,
    }
    return [row | {"message_id": uuid4(), "sequence": begin + n} | changes for n in range(count)]


def filled(database: Database, kiosk: SealingKiosk, count: int) -> None:
    """So many scans, taken a minute after each other but for some that were taken at once."""
    rows, result = envelopes(kiosk, count), kiosk.result()
    scans = [
        {
            "id": uuid4(),
            "message_id": row["message_id"],
            "kiosk": kiosk.id,
            "captured_at": MOMENT + timedelta(minutes=number // 3),
            "opened_at": MOMENT,
            "board": "simulated",
            "simulated": True,
            "software": "s",
            "models": {},
            "quality": [],
            "consent": result.consent,
            "geometry": result.findings.geometry,
            "spots": (),
        }
        for number, row in enumerate(rows)
    ]
    with database.writing() as session:
        session.execute(insert(Envelope.__table__), rows)
        session.execute(insert(Scan.__table__), scans)


def test_the_last_page_of_the_list_costs_no_more_than_the_first(
    database: Database, kiosk: SealingKiosk
) -> None:
    filled(database, kiosk, MANY)
    analyse(database)
    seen: list[UUID] = []
    after, costs = None, []
    while True:
        with effort(database) as cost, database.reading() as session:
            page = scan_page(session, after=after)
        costs.append(cost[0])
        seen += [line.id for line in page.lines]
        after = page.older
        if after is None:
            break
    with database.reading() as session:
        everything = session.scalars(select(Scan.id).order_by(Scan.captured_at.desc(), Scan.id.desc()))
        assert seen == list(everything)
    assert len(costs) == MANY // PAGE_SIZE
    assert max(costs) < 1.5 * costs[0]


def test_looking_for_work_costs_the_same_however_many_envelopes_have_no_key(
    database: Database, kiosk: SealingKiosk
) -> None:
    opener = Opener(database, [kiosk.opening])
    opener.begin()
    opener.scrub()

    def cost() -> int:
        analyse(database)
        with effort(database) as spent:
            assert not opener.open_next()
        return spent[0]

    with database.writing() as session:
        session.execute(insert(Envelope.__table__), envelopes(kiosk, 50, state="quarantined", reason=NO_KEY))
    few = cost()
    with database.writing() as session:
        rows = envelopes(kiosk, MANY, state="quarantined", reason=NO_KEY)
        session.execute(insert(Envelope.__table__), rows)
    assert cost() <= few + 20


def test_the_page_of_a_scan_holds_up_nobody_while_it_is_read(database: Database, kiosk: SealingKiosk) -> None:
    """What it writes is one row, in a transaction of its own."""
    filled(database, kiosk, 1)
    app = make_app(database, b"k" * 32)
    staff = app.test_client()
    sign_in(staff, "ann", add_account(database, "ann"))
    with database.reading() as session:
        scan = session.scalars(select(Scan.id)).one()
    with statements(database, writing=True) as written, statements(database) as said:
        assert staff.get(f"/scans/{scan}").status_code == 200
    assert [statement.split()[:3] for statement, _ in written] == [["INSERT", "INTO", "audit"]]
    assert len(said) > 3
    with database.reading() as session:
        assert session.scalars(select(AuditEvent.event).where(AuditEvent.subject == str(scan))).all() == [
            "scan_read"
        ]


def test_whoever_would_write_goes_as_soon_as_the_one_before_has_ended(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself would look again after 25, 50, then 100 ms, and find the next one at it each time."""
    looks: list[float] = []
    first = sqlite.engine.connect().execution_options(clinic_writes=True)
    first.begin()

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 30:
            first.rollback()

    monkeypatch.setattr(engine_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=look))
    with sqlite.writing() as session:
        note(session, "test", "its turn")
    assert looks == [TURN_S] * 30
    first.close()


def test_whose_turn_to_write_does_not_come_waits_for_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said last only tells why not: SQLite may not wait as long again for it."""
    monkeypatch.setattr(engine_module, "BUSY_S", 0.05)
    database, patience = Database.at(tmp_path / "clinic"), list[int]()
    database.migrate()
    first = database.engine.connect().execution_options(clinic_writes=True)
    first.begin()

    def asked(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
        if statement == "BEGIN IMMEDIATE":
            patience.append(busy_timeout(connection))

    def busy_timeout(connection: Connection) -> int:
        driver: Any = connection.connection.driver_connection
        return int(driver.execute("PRAGMA busy_timeout").fetchone()[0])

    event.listen(database.engine, "before_cursor_execute", asked)
    with pytest.raises(DBAPIError, match="locked"), database.writing():
        pass
    first.close()
    with database.writing() as session:
        assert busy_timeout(session.connection()) == 50
    assert patience == [0]
    database.close()
