"""The local records: ciphertext only, one result for one scan, and no more effort for all that are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from traceback import format_exception
from uuid import UUID, uuid4

import pytest

from hardware.host import sqlite
from kiosk_app.kept import records_file
from kiosk_app.kept.keyring import Keyring, KeyringError
from kiosk_app.kept.records import NoSuchScan, Records
from kiosk_app.kept.records_file import RecordsError, moment
from kiosk_app.kept.states import MessageState, ScanState
from tests.support.kiosk_bench import Bench
from tests.support.records import CONSENT, FINDINGS, analysed, everything_in


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "app" / "vault.key")


@pytest.fixture
def records(tmp_path: Path, keyring: Keyring) -> Records:
    return Records(tmp_path / "app" / "records.sqlite", keyring)


def test_a_scan_goes_its_way_and_comes_back(records: Records) -> None:
    scan = analysed(records)
    assert records.findings(scan) == FINDINGS
    assert records.patient_reference(scan) == "patient-7"
    assert records.scan(scan).consent == CONSENT
    summary = records.summary(scan)
    assert summary["seconds"] == {"capture": 1.5, "analysis": 0.5}
    assert (summary["frames"], summary["findings"], summary["state"]) == (3, 1, ScanState.ANALYSED)


def test_neither_reference_nor_findings_are_on_disk_in_the_clear(records: Records, tmp_path: Path) -> None:
    analysed(records, "patient-7-very-findable")
    kept = everything_in(tmp_path)
    assert b"very-findable" not in kept
    assert b"41.25" not in kept
    assert b'"measure"' not in kept


def test_no_two_scans_can_be_seen_to_be_of_one_patient(records: Records) -> None:
    rows = [records._one(records.create(CONSENT, "patient-7")) for _ in range(2)]
    sealed = [{value for value in row if isinstance(value, bytes)} for row in rows]
    assert all(sealed) and not set.intersection(*sealed)


def test_a_scan_skips_no_state(records: Records) -> None:
    scan = records.create(CONSENT, None)
    with pytest.raises(RecordsError, match="captured"):
        records.keep_findings(scan, FINDINGS)
    with pytest.raises(RecordsError, match="should be captured"):
        records.advance(scan, ScanState.CAPTURED, ScanState.ANALYSED)


def test_findings_are_kept_with_their_figures_or_not_at_all(records: Records) -> None:
    scan = records.create(CONSENT, None)
    records.advance(scan, ScanState.CONSENTED, ScanState.CAPTURED)
    with pytest.raises(TypeError):
        records.keep_findings(scan, FINDINGS, overlays=object())
    assert (records.scan(scan).state, records.findings(scan)) == (ScanState.CAPTURED, None)


def test_a_result_is_sealed_once_and_numbers_have_no_gap(records: Records) -> None:
    sealed: list[int] = []

    def seal(_message: UUID, sequence: int) -> bytes:
        sealed.append(sequence)
        return b"sealed"

    def fail(_message: UUID, _sequence: int) -> bytes:
        raise ValueError("no key")

    first, second = analysed(records), analysed(records)
    with pytest.raises(ValueError, match="no key"):
        records.messages.add(first, "result", 5, fail)
    one = records.messages.add(first, "result", 5, seal, after=ScanState.SEALED)
    again = records.messages.add(first, "result", 5, seal, after=ScanState.SEALED)
    two = records.messages.add(second, "result", 5, seal, after=ScanState.SEALED)
    assert one == again
    assert sealed == [1, 2]
    assert (one.sequence, two.sequence) == (1, 2)
    assert records.scan(first).state == ScanState.SEALED


def test_a_message_settled_from_an_old_view_changes_nothing(records: Records) -> None:
    scan = analysed(records)
    seen = records.messages.add(scan, "result", 1, lambda _id, _n: b"sealed", after=ScanState.SEALED)
    records.forget(scan)
    records.messages.settle(seen, MessageState.SUBMITTED, ScanState.HANDED_OVER)
    (message,) = records.messages.in_states()
    assert message.state == MessageState.DISCARDING_UNSENT
    assert records.messages.envelope(message) is None
    assert records.scan(scan).state == ScanState.SHREDDED


def test_findings_of_another_version_are_said_to_be_so_and_quoted_nowhere(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(FINDINGS), "model_dump", lambda *_, **__: {"schema": 9, "findings": [41.25]})
    scan = analysed(records)
    with pytest.raises(RecordsError, match="another version's") as refused:
        records.findings(scan)
    assert "41.25" not in "".join(format_exception(refused.value))


@contextmanager
def steps_of(db: sqlite3.Connection) -> Iterator[list[int]]:
    """In hundreds, how many steps SQLite takes meanwhile."""
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    db.set_progress_handler(step, 100)
    try:
        yield steps
    finally:
        db.set_progress_handler(None, 0)


@contextmanager
def effort_of(records: Records) -> Iterator[list[int]]:
    """The same, by whatever connection to the records."""
    connection, counted = records._file.connection, [0]

    @contextmanager
    def counting() -> Iterator[sqlite3.Connection]:
        with connection() as db, steps_of(db) as steps:
            yield db
        counted[0] += steps[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records._file, "connection", counting)
        yield counted


def effort_of_a_deletion(records: Records, others: int) -> int:
    """The same of a deletion among so many scans that are gone, whose results were to be sealed again."""
    with closing(sqlite3.connect(records.path)) as db, db:
        ids = [str(uuid4()) for _ in range(others)]
        db.executemany(
            "INSERT INTO scans (id, state, created) VALUES (?, 'shredded', '')", [(scan,) for scan in ids]
        )
        (last,) = db.execute("SELECT coalesce(max(sequence), 0) FROM messages").fetchone()
        db.executemany(
            "INSERT INTO messages VALUES (?, ?, 'result', 1, ?, 'reseal', '', 0, NULL)",
            [(scan, scan, number) for number, scan in enumerate(ids, last + 1)],
        )
    scan = analysed(records)
    records.messages.unsealed.clear()  # as after a restart: the outbox is asked for its result
    with effort_of(records) as effort:
        records.forget(scan)
        assert records.messages.superseded(scan) is None and len(records.messages.carriers(scan)) == 1
    return effort[0]


def test_a_deletion_takes_no_longer_for_the_messages_of_scans_that_are_gone(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_rewrap", lambda _db: None)  # it reads of each scan whether it has a key
    few, many = (effort_of_a_deletion(records, number) for number in (10, 3000))
    assert many <= few + 2


def test_whether_a_scan_can_be_kept_is_asked_at_no_more_effort_for_all_that_are(bench: Bench) -> None:
    """The first page asks it each minute."""
    with effort_of(bench.kiosk.records) as few:
        assert bench.kiosk.closed_because() is None
    with closing(sqlite3.connect(bench.kiosk.records.path)) as db, db:
        rows = [(str(uuid4()), moment()) for _ in range(3000)]
        db.executemany("INSERT INTO scans (id, state, created) VALUES (?, 'stored', ?)", rows)
    with effort_of(bench.kiosk.records) as many:
        assert bench.kiosk.closed_because() is None
    assert many[0] <= few[0] + 2


def effort_of_the_newest_step(path: Path, scans: int) -> int:
    """The same of bringing up records with so many scans that an earlier version deleted."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        sqlite.bring_up(db, records_file._STEPS[:2])
        ids = [str(uuid4()) for _ in range(scans)]
        db.execute("BEGIN")
        for number, scan in enumerate(ids):
            db.execute("INSERT INTO scans (id, state, created) VALUES (?, 'shredded', '')", (scan,))
            for part, state in enumerate(("reseal", "reseal", "withdrawn") if number % 2 else ("reseal",)):
                row = (str(uuid4()), scan, 3 * number + part, state)
                db.execute("INSERT INTO messages VALUES (?, ?, 'result', 1, ?, ?, '', 0, NULL)", row)
        db.execute("COMMIT")
        with steps_of(db) as steps:
            sqlite.bring_up(db, records_file._STEPS)
        states = db.execute("SELECT state, count(*) FROM messages GROUP BY state ORDER BY state").fetchall()
    assert states == [("discarding", scans // 2), ("reseal", scans), ("withdrawn", scans // 2)]
    return steps[0]


def test_records_of_an_earlier_version_are_brought_up_in_time_that_grows_as_they_do(tmp_path: Path) -> None:
    few, many = (effort_of_the_newest_step(tmp_path / f"{number}.sqlite", number) for number in (500, 2000))
    assert 0 < few < many < 6 * few


def test_a_missing_or_damaged_key_file_is_said_plainly(records: Records, keyring: Keyring) -> None:
    scan = analysed(records)
    keyring.path.write_bytes(b"{}")
    with pytest.raises(KeyringError, match="damaged"):
        records.findings(scan)
    keyring.path.unlink()
    with pytest.raises(KeyringError, match="missing"):
        records.findings(scan)


def test_an_unknown_scan_is_an_error_of_the_caller(records: Records) -> None:
    with pytest.raises(NoSuchScan, match="Check the id") as caught:
        records.scan(uuid4())
    assert caught.value.exit_status == 2


def test_a_lost_key_file_is_not_replaced_once_there_are_records(records: Records, keyring: Keyring) -> None:
    keyring.path.unlink()
    with pytest.raises(KeyringError, match="is missing: .* Restore the file"):
        Keyring(keyring.path)
    assert not keyring.path.exists()
