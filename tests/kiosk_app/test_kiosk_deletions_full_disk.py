"""A scan is deleted also where the disk is full, or the patient keeps the choice."""

from __future__ import annotations

import errno
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from kiosk_app.kept.keyring import KeyGone, Keyring, KeyringFull
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsFull, RecordsUnusable
from kiosk_app.kept.states import ScanState
from tests.support.full_disk import on_a_small_disk
from tests.support.kiosk_bench import Bench
from tests.support.scanning import (
    consented,
    do,
    nothing_is_kept,
    state_of,
)
from tests.support.visitor import Visitor, the_scan


@contextmanager
def full_disk(largest_bytes: int) -> Iterator[None]:
    """No file grows beyond that meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_a_deletion_left_in_the_log_for_which_there_was_no_room_opens_no_scan_deleted_after_it(
    tmp_path: Path,
) -> None:
    keyring = Keyring(tmp_path / "vault.key")
    records = Records(tmp_path / "records.sqlite", keyring)
    first, *others = (records.create({}, None) for _ in range(40))
    with sqlite3.connect(records.path) as db:
        db.execute("UPDATE scans SET findings = zeroblob(2500)")
    deks = {scan: records.dek(scan) for scan in others}
    records._file.checkpoint()
    left = dict[UUID, bytes]()
    with full_disk(100 * 1024):
        for _ in range(5):
            with pytest.raises(RecordsUnusable):
                records.forget(first)
            assert len(keyring.generations()) == 2
            wrapped = {scan: keyring.wrap(dek) for scan, dek in deks.items()}
            log = Path(f"{records.path}-wal").read_bytes()
            left = {scan: key for scan, key in wrapped.items() if key in log}
    scan, key = next(iter(left.items()))
    assert keyring.unwrap(key) == deks[scan]
    assert records.forget(scan)
    with pytest.raises(KeyGone):
        keyring.unwrap(key)
    assert all(records.dek(other) == deks[other] for other in others if other != scan)
    assert len(keyring.generations()) == 1


def test_on_a_full_disk_a_deletion_has_room_in_reserve(tmp_path: Path) -> None:
    """A real small file system in a mount namespace of its own, filled to its last byte by somebody else."""
    script = """
from kiosk_app.kept import reserve
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import Vault
from kiosk_app.scanning.shred import destroy
from tests.support.clinic import findings
reserve.RESERVE_MB = 1
(disk / "vault").mkdir()
records, vault = Records(disk / "records.sqlite", Keyring(disk / "vault.key")), Vault(disk / "vault")
scans = [records.create({}, None) for _ in range(30)]
for scan in scans:
    vault.put_all(scan, records.dek(scan), {"a": bytes(1000)})
    records.advance(scan, ScanState.CONSENTED, ScanState.CAPTURED)
    records.keep_findings(scan, findings(scan, **{f"measure_{n}": 1.0 for n in range(12)}))
records._file.checkpoint()
assert vault.reserve.fill() and vault.reserve.fill()
fill()
assert destroy(scans[0], "shredded", "patient", records, vault) == (["a"], False)
assert not vault.holds(scans[0]) and len(records.keyring.generations()) == 1
assert all(records.findings(scan) for scan in scans[1:])
(disk / "reserve").unlink(missing_ok=True)
fill()
before = records.scan(scans[1])
try:
    destroy(scans[1], "shredded", "patient", records, vault)
except reserve.DiskFull as error:
    print(error)
assert records.scan(scans[1]) == before and records.findings(scans[1])
assert not vault.reserve.fill()
(disk / "filler").unlink()
assert vault.reserve.fill()
large = records.create({}, None)
vault.put_all(large, records.dek(large), {"large": bytes(1_500_000)})
(disk / "reserve").unlink()
fill()
assert destroy(large, "shredded", "patient", records, vault) == (["large"], False), "its pictures make room"
assert not vault.holds(large) and len(records.keyring.generations()) == 1
(disk / "filler").unlink()
assert vault.reserve.fill()
del records  # as where no kiosk runs, whose connection keeps the files beside the records
fill()
open_storage = lambda: Records(disk / "records.sqlite", Keyring(disk / "vault.key"))
try:
    open_storage()
except reserve.DiskFull:
    print("not opened")
again = vault.reserve.lend(open_storage)
destroy(scans[1], "shredded", "staff", again, vault)
assert not vault.holds(scans[1]) and again.scan(scans[1]).reason == "staff"
"""
    said = on_a_small_disk(tmp_path, script, "5m")
    assert "the disk is full: make room" in said and "not opened" in said


def test_a_key_file_for_which_there_is_no_room_is_told_as_that_and_the_old_one_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    keyring = bench.kiosk.records.keyring
    monkeypatch.setattr("kiosk_app.kept.keyring.replace_secret", full)
    with pytest.raises(KeyringFull, match="the disk is full: make room"):
        keyring.begin_generation()
    assert keyring.generations() == [1]


FULL = pytest.mark.parametrize("full", [RecordsFull("full"), KeyringFull("full")])


@FULL
def test_a_deletion_for_which_there_is_no_room_leaves_the_choice_and_says_so(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, full: Exception
) -> None:
    def stays_full(*_args: object) -> None:
        raise full

    visitor.walk_to("result")
    visitor.look("/delete")
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records, "forget", stays_full)
        page = visitor.tap("/delete")
        assert (page.status, page.name) == (503, "not_deleted")
        assert "Your scan is not deleted yet" in page.words and "tell someone at the desk" in page.words
        bench.kiosk.work.go_on()
    assert the_scan(bench).state == ScanState.HANDED_OVER
    visitor.look(page.way_on)
    assert visitor.page.name == "delete"
    assert "Your scan is deleted from this kiosk" in visitor.tap("/delete").words
    assert nothing_is_kept(bench, the_scan(bench).id)


def test_pictures_that_are_refused_are_destroyed_though_no_figure_can_be_noted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, **_figures: object) -> None:
        raise RecordsFull("full")

    scan, bench.analyst.refuse = consented(bench), "no_face"
    monkeypatch.setattr(bench.kiosk.records, "note", fails)
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "no_face")
    assert (state_of(bench, scan), nothing_is_kept(bench, scan)) == (ScanState.REFUSED, True)
