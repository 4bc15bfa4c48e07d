"""The local records: ciphertext only, one result for one scan, shredding that survives a crash."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from traceback import format_exception
from uuid import UUID, uuid4

import pytest

from hardware.host import sqlite
from hardware.host.patience import waiting_at_most
from kiosk_app.kept import records_file
from kiosk_app.kept.keyring import KeyGone, Keyring, KeyringBusy, KeyringError
from kiosk_app.kept.records import NoSuchScan, Records
from kiosk_app.kept.records_file import LOCKED_S, RecordsError, RecordsHeld, RecordsUnusable, moment
from kiosk_app.kept.states import MessageState, ScanState
from kiosk_app.patient.app import KEYS_S
from tests.support.clinic import findings
from tests.support.kiosk_bench import Bench
from tests.support.waiting import in_one_of_three_rounds, wait_until

CONSENT = {"text_version": "1", "language": "en", "at": "2026-01-02T03:04:05+00:00"}
FINDINGS = findings(uuid4(), ita=41.25)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "app" / "vault.key")


@pytest.fixture
def records(tmp_path: Path, keyring: Keyring) -> Records:
    return Records(tmp_path / "app" / "records.sqlite", keyring)


def analysed(records: Records, reference: str | None = "patient-7") -> UUID:
    scan = records.create(CONSENT, reference)
    records.advance(scan, ScanState.CONSENTED, ScanState.CAPTURED, frames=3, seconds={"capture": 1.5})
    records.keep_findings(scan, FINDINGS, findings=1, seconds={"analysis": 0.5})
    return scan


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


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


def test_shredding_destroys_one_scan_and_keeps_the_others(
    records: Records, keyring: Keyring, tmp_path: Path
) -> None:
    gone, kept = analysed(records), analysed(records, "patient-8")
    old_key_file, wrapped = keyring.path.read_bytes(), wrapped_key(records, gone)
    records.forget(gone)
    assert keyring.generations() == [2]
    assert records.findings(kept) == FINDINGS
    with pytest.raises(KeyGone):
        records.findings(gone)
    with pytest.raises(KeyGone):
        keyring.unwrap(wrapped)
    assert records.scan(gone).state == ScanState.SHREDDED
    assert records.scan(gone).consent == {}
    kept_bytes = everything_in(tmp_path)
    assert wrapped not in kept_bytes
    assert old_key_file[20:60] not in kept_bytes


@contextmanager
def read(records: Records) -> Iterator[None]:
    """Meanwhile somebody reads the records, as a backup does."""
    with closing(sqlite3.connect(records.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT wrapped_dek FROM scans").fetchall()
        yield


def wrapped_key(records: Records, scan: UUID) -> bytes:
    with sqlite3.connect(records.path) as db:
        row = db.execute("SELECT wrapped_dek FROM scans WHERE id = ?", (str(scan),)).fetchone()
    return bytes(row[0])


@pytest.mark.parametrize("crash", ["begin_generation", "_rewrap", "checkpoint", "destroy_old"])
def test_a_shredding_cut_short_anywhere_can_be_finished(
    records: Records, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    gone, kept = analysed(records), analysed(records)

    def power_loss(*_args: object, **_how: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        (owner,) = (part for part in (keyring, records, records._file) if hasattr(part, crash))
        patch.setattr(owner, crash, power_loss)
        with pytest.raises(KeyboardInterrupt):
            records.forget(gone)
    again = Records(records.path, Keyring(keyring.path))
    again.finish_rewrap()
    assert again.findings(kept) == FINDINGS
    assert len(keyring.generations()) == 1
    again.forget(gone)
    with pytest.raises(KeyGone):
        again.findings(gone)
    assert again.findings(kept) == FINDINGS


def test_a_shredding_is_not_done_while_a_reader_keeps_old_pages(
    records: Records, keyring: Keyring, tmp_path: Path
) -> None:
    gone = analysed(records)
    wrapped = wrapped_key(records, gone)
    with read(records):
        assert not records.forget(gone)
        assert not records.finish_rewrap()
        assert len(keyring.generations()) == 2
    assert records.finish_rewrap()
    assert len(keyring.generations()) == 1
    assert wrapped not in everything_in(tmp_path)


def test_whoever_reads_for_long_keeps_no_scan_from_being_destroyed(
    records: Records, keyring: Keyring
) -> None:
    first, second, kept = (analysed(records) for _ in range(3))
    with read(records):
        for scan in (first, second):
            assert not records.forget(scan)
            assert records.scan(scan).state == ScanState.SHREDDED
            with pytest.raises(KeyGone):
                records.dek(scan)
    assert records.finish_rewrap()
    assert len(keyring.generations()) == 1
    assert records.findings(kept) == FINDINGS


@pytest.mark.parametrize("uses", ["SELECT wrapped_dek FROM scans", "UPDATE scans SET reason = ''"])
def test_whoever_uses_the_records_is_waited_for_without_the_keys(
    records: Records, keyring: Keyring, uses: str
) -> None:
    """As patients wait for these."""
    checkpoint, lock, held = records._file.checkpoint, keyring.lock, list[float]()

    @contextmanager
    def timed(*, shared: bool = False) -> Iterator[None]:
        with lock(shared=shared):
            began = time.monotonic()
            yield
            held.append(time.monotonic() - began)

    with (
        closing(sqlite3.connect(records.path, isolation_level=None)) as other,
        pytest.MonkeyPatch.context() as patch,
    ):

        def checkpoint_meanwhile() -> bool:
            if not other.in_transaction:
                other.execute("BEGIN")
                other.execute(uses).fetchall()
            return checkpoint()

        patch.setattr(keyring, "lock", timed)
        patch.setattr(records._file, "checkpoint", checkpoint_meanwhile)

        def are_held_briefly() -> None:
            if other.in_transaction:
                other.execute("ROLLBACK")
            scan = analysed(records)
            held.clear()
            assert not records.forget(scan)
            assert not records.finish_rewrap(0.1)
            assert max(held) < KEYS_S / 2

        in_one_of_three_rounds(are_held_briefly)
        other.execute("ROLLBACK")
        patch.undo()
    assert records.finish_rewrap()
    assert len(keyring.generations()) == 1


def test_a_record_that_is_being_changed_keeps_the_keys_from_nobody_for_long(
    records: Records, keyring: Keyring
) -> None:
    scan, gives_up = analysed(records), waiting_at_most(LOCKED_S / 2)
    with closing(sqlite3.connect(records.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        deletion = threading.Thread(target=lambda: pytest.raises(RecordsHeld, records.forget, scan))
        deletion.start()
        wait_until(lambda: is_locked(keyring))
        with gives_up, keyring.lock(shared=True):
            assert keyring.generations() == [1]
        deletion.join(60)
    assert records.scan(scan).state == ScanState.ANALYSED


def is_locked(keyring: Keyring) -> bool:
    try:
        with waiting_at_most(0.0), keyring.lock(shared=True):
            return False
    except KeyringBusy:
        return True


def test_a_shredding_that_waits_for_a_reader_writes_nothing_more(records: Records) -> None:
    gone = analysed(records)
    _kept = [analysed(records) for _ in range(50)]
    log = records.path.with_name(f"{records.path.name}-wal")
    with read(records):
        records.forget(gone)
        size = log.stat().st_size
        for _ in range(10):
            assert not records.finish_rewrap()
        assert log.stat().st_size == size


def test_deletions_that_come_to_nothing_add_no_keys_while_somebody_reads(
    records: Records, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(_db: sqlite3.Connection) -> None:
        raise RecordsUnusable("The kiosk's records cannot be used: the disk reports an error.")

    first, second, kept = (analysed(records) for _ in range(3))
    with read(records):
        records.forget(first)
        with monkeypatch.context() as patch:
            patch.setattr(records, "_rewrap", unusable)
            for _ in range(5):
                with pytest.raises(RecordsUnusable):
                    records.forget(second)
        assert len(keyring.generations()) == 3
        wrapped = wrapped_key(records, second)
        records.forget(second)
        assert len(keyring.generations()) == 3
    assert records.finish_rewrap() and records.findings(kept) == FINDINGS
    with pytest.raises(KeyGone):
        keyring.unwrap(wrapped)


def test_a_scan_that_was_made_after_a_deletion_that_failed_is_destroyed_with_its_key(
    records: Records, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(_db: sqlite3.Connection) -> None:
        raise RecordsUnusable("The kiosk's records cannot be used: the disk reports an error.")

    old = analysed(records)
    with monkeypatch.context() as patch:
        patch.setattr(records, "_rewrap", unusable)
        with pytest.raises(RecordsUnusable):
            records.forget(old)
    new = analysed(records)
    wrapped = wrapped_key(records, new)
    assert records.forget(new)
    with pytest.raises(KeyGone):
        keyring.unwrap(wrapped)
    assert records.findings(old) == FINDINGS


def test_another_process_may_shred_while_this_one_reads(records: Records, keyring: Keyring) -> None:
    gone, kept = analysed(records), analysed(records)
    Records(records.path, Keyring(keyring.path)).forget(gone)
    assert records.findings(kept) == FINDINGS
    new = analysed(records)
    assert records.findings(new) == FINDINGS


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
