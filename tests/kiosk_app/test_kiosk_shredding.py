"""Shredding destroys one scan's key and what was kept of it, whoever reads and whenever it is cut short."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from hardware.host.patience import waiting_at_most
from kiosk_app.kept.keyring import KeyGone, Keyring, KeyringBusy
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import LOCKED_S, RecordsHeld, RecordsUnusable
from kiosk_app.kept.states import ScanState
from kiosk_app.patient.app import KEYS_S
from tests.support.records import FINDINGS, analysed, everything_in
from tests.support.waiting import unless_held_up, wait_until


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "app" / "vault.key")


@pytest.fixture
def records(tmp_path: Path, keyring: Keyring) -> Records:
    return Records(tmp_path / "app" / "records.sqlite", keyring)


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

        unless_held_up(are_held_briefly)
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
        wait_until(lambda: is_locked(keyring), "the keys locked by who changes the record")
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
