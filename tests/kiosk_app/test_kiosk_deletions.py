"""How a scan is deleted: whatever fails or is written meanwhile, nothing of it stays or is sent."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hardware.host import sqlite
from kiosk_app.kept.keyring import KeyGone, Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsFull, RecordsHeld, RecordsUnusable
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultError, new_key
from kiosk_app.scanning import scan_work
from kiosk_app.scanning.shred import shred
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.scanning import (
    consented,
    do,
    half_destroyed,
    held,
    nothing_is_kept,
    reading,
    shred_it,
    state_of,
)
from tests.support.visitor import Visitor, the_scan
from tests.support.waiting import wait_until


def test_a_deletion_while_somebody_reads_says_what_it_destroyed_and_takes_its_room_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk = bench.kiosk
    scan, late = consented(bench), consented(bench)
    for each in (scan, late):
        do(bench, each)
    items, put = kiosk.vault.items(scan), kiosk.records.forget
    (bench.state / "app" / "reserve").unlink(missing_ok=True)
    monkeypatch.setattr("kiosk_app.scanning.shred.USED_S", 0.1)

    def written_meanwhile(*given: Any) -> bool:
        kiosk.vault.add(late, new_key(), "overlay.late", b"a picture")
        return put(*given)

    monkeypatch.setattr(kiosk.records, "forget", written_meanwhile)
    with reading(bench):
        gone = shred(late, kiosk.records, kiosk.vault, kiosk.courier.run_once, bench.outbox, by="staff")  # type: ignore[arg-type]
        assert sorted(gone.items) == sorted([*items, "overlay.late"])
        assert (gone.before, gone.key_left) == (False, True)
        assert (bench.state / "app" / "reserve").exists()
        again = shred(late, kiosk.records, kiosk.vault, kiosk.courier.run_once, bench.outbox, by="staff")  # type: ignore[arg-type]
        assert (again.items, again.before, again.key_left) == ([], True, True)


def test_a_deletion_waits_for_whoever_reads_for_a_moment(bench: Bench) -> None:
    scan = consented(bench)
    with ExitStack() as stack:
        stack.enter_context(reading(bench))
        finish = bench.kiosk.records._finish_at_once

        def looked() -> bool:
            done = finish()
            stack.close()
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.kiosk.records, "_finish_at_once", looked)
            assert not bench.kiosk.shred(scan).key_left


@pytest.mark.parametrize("first", ["deleted", "written"])
def test_a_scan_that_is_deleted_while_its_pictures_are_being_kept_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    scan, keep = consented(bench), bench.kiosk.vault.put_capture

    def deleted_meanwhile(*capture: Any) -> int:
        if first == "deleted":
            bench.kiosk.shred(scan)
        size = keep(*capture)
        if first == "written":
            bench.kiosk.shred(scan)
        return size

    monkeypatch.setattr(bench.kiosk.vault, "put_capture", deleted_meanwhile)
    do(bench, scan)
    assert (state_of(bench, scan), bench.kiosk.records.scan(scan).reason) == (ScanState.SHREDDED, "patient")
    assert nothing_is_kept(bench, scan)


def test_what_is_written_of_a_scan_after_its_deletion_is_destroyed_too(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    assert bench.kiosk.work._begin(scan)
    bench.kiosk.shred(scan)
    bench.kiosk.vault.put_all(scan, new_key(), {"frame.closeup0": b"a close-up"})
    bench.kiosk.work.go_on()  # who writes is not disturbed
    bench.kiosk.work._end(scan)
    bench.kiosk.work.go_on()
    assert nothing_is_kept(bench, scan)


def test_a_deletion_that_fails_while_the_house_is_kept_is_brought_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The house-keeping sees the scan before it is gone, and must not think that there is nothing to do."""
    scan = consented(bench)
    do(bench, scan)
    forget = bench.kiosk.records.forget

    def meanwhile(*given: Any) -> None:
        bench.kiosk.work.go_on()
        forget(*given)
        raise RecordsUnusable("The kiosk's records cannot be used: the disk reports an error.")

    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records, "forget", meanwhile)
        with pytest.raises(RecordsUnusable):
            bench.kiosk.shred(scan)
    bench.kiosk.work.go_on()
    assert bench.kiosk.vault.items(scan) == []
    assert len(bench.kiosk.records.keyring.generations()) == 1


def test_where_a_picture_cannot_be_destroyed_its_key_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(_scan: UUID) -> None:
        raise VaultError("A picture cannot be deleted: the disk reports an error.")

    scan = consented(bench)
    bench.kiosk.work.leave(scan)
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.vault, "destroy", stuck)
        for _ in range(3):
            bench.kiosk.work.go_on()
    with pytest.raises(KeyGone):
        bench.kiosk.records.dek(scan)
    bench.kiosk.work.go_on()
    assert bench.kiosk.vault.items(scan) == []
    assert not bench.kiosk.work._to_destroy.scans()


@pytest.mark.parametrize("broken", ["transaction", "_rewrap", "checkpoint"])
def test_a_deletion_that_comes_to_nothing_adds_no_keys_however_often_it_is_tried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def unusable(*_args: object, **_at_once: bool) -> None:
        raise RecordsUnusable("The kiosk's records cannot be used: the disk reports an error.")

    scan = consented(bench)
    with monkeypatch.context() as patch:
        records = bench.kiosk.records
        patch.setattr(records if broken == "_rewrap" else records._file, broken, unusable)
        for _ in range(5):
            with pytest.raises(RecordsUnusable):
                bench.kiosk.records.forget(scan)
        assert len(bench.kiosk.records.keyring.generations()) == (1 if broken == "transaction" else 2)
    bench.kiosk.records.forget(scan)
    assert len(bench.kiosk.records.keyring.generations()) == 1


def test_after_a_power_cut_a_deletion_that_was_said_to_have_failed_is_not_found_as_one_that_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may report an error once all of a change is in the log; its keys are under what goes next."""
    keyring = Keyring(tmp_path / "app" / "vault.key")
    records = Records(tmp_path / "app" / "records.sqlite", keyring)
    gone, kept = records.create({}, None), records.create({}, None)
    dek, index = records.dek(kept), Path(f"{records.path}-shm")
    before = index.read_bytes()

    def power_cut(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records._file, "checkpoint", power_cut)
        records.forget(gone)
    with index.open("r+b") as known:  # of what was written nothing counts
        known.write(before)
    assert (records.scan(gone).state, len(keyring.generations())) == (ScanState.CONSENTED, 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "_rewrap", power_cut)
        records.forget(gone)
    shutil.copytree(tmp_path / "app", tmp_path / "again", ignore=shutil.ignore_patterns("*-shm"))
    again = Records(tmp_path / "again" / "records.sqlite", Keyring(tmp_path / "again" / "vault.key"))
    assert again.scan(gone).state == ScanState.CONSENTED
    assert again.dek(kept) == dek


def damage(bench: Bench, scan: UUID) -> None:
    with sqlite3.connect(bench.kiosk.records.path) as db:
        db.execute("UPDATE scans SET wrapped_dek = x'00000001ff' WHERE id = ?", (str(scan),))


@pytest.mark.parametrize("others", [0, 1])
def test_a_scan_whose_key_is_damaged_keeps_no_other_from_being_deleted(bench: Bench, others: int) -> None:
    damaged, deleted, *kept = (consented(bench) for _ in range(2 + others))
    keys = [bench.kiosk.records.dek(scan) for scan in kept]
    damage(bench, damaged)
    bench.kiosk.shred(deleted)
    assert bench.kiosk.records.scan(deleted).state == ScanState.SHREDDED
    assert [bench.kiosk.records.dek(scan) for scan in kept] == keys
    assert len(bench.kiosk.records.keyring.generations()) == 1


def test_the_right_key_file_put_back_opens_what_another_one_could_not(bench: Bench, tmp_path: Path) -> None:
    kept, deleted = consented(bench), consented(bench)
    path, dek = bench.kiosk.records.keyring.path, bench.kiosk.records.dek(kept)
    right = path.read_bytes()
    path.write_bytes(Keyring(tmp_path / "another.key").path.read_bytes())
    bench.kiosk.shred(deleted)
    assert nothing_is_kept(bench, deleted)
    path.write_bytes(right)
    assert bench.kiosk.records.dek(kept) == dek


def test_what_a_command_that_was_ended_left_of_a_deleted_scan_is_destroyed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran beside the kiosk, which was told nothing of it."""
    monkeypatch.setattr(scan_work, "REMAINS_S", 0.0)
    scan = consented(bench)
    do(bench, scan)
    bench.kiosk.work.go_on()
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records._file, "checkpoint", held)
        with pytest.raises(RecordsHeld):
            bench.kiosk.records.forget(scan, ScanState.SHREDDED, "staff")
    assert half_destroyed(bench, scan)[0] and half_destroyed(bench, scan)[1]
    bench.kiosk.work.go_on()
    assert half_destroyed(bench, scan) == ([], [])


def test_a_deletion_stays_one_whatever_the_analysis_says_of_its_pictures(bench: Bench) -> None:
    scan = consented(bench)
    bench.kiosk.records.forget(scan, ScanState.SHREDDED, "patient")
    bench.kiosk.records.forget(scan, ScanState.REFUSED, "no_face")
    row = bench.kiosk.records.scan(scan)
    assert (row.state, row.reason) == (ScanState.SHREDDED, "patient")


def test_a_scan_that_staff_delete_before_it_is_measured_leads_to_no_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = bench.kiosk.records.advance

    def deleted_then(scan: UUID, *states_: str, **figures: Any) -> None:
        advance(scan, *states_, **figures)
        bench.kiosk.shred(scan)

    monkeypatch.setattr(bench.kiosk.records, "advance", deleted_then)
    scan = consented(bench)
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "deleted")
    assert (state_of(bench, scan), bench.outbox.submitted) == (ScanState.SHREDDED, {})
    assert nothing_is_kept(bench, scan)


@pytest.mark.parametrize("ends", ["checkpoint", "destroy_old"])
def test_a_deletion_is_said_to_be_done_only_once_no_key_and_no_picture_is_left(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    def full(**_at_once: bool) -> None:
        raise RecordsFull("full")

    visitor.walk_to("result")
    visitor.look("/delete")
    with monkeypatch.context() as patch:
        patch.setattr(
            bench.kiosk.records.keyring if ends == "destroy_old" else bench.kiosk.records._file, ends, full
        )
        page = visitor.tap("/delete")
        assert (page.status, page.name) == (200, "deleted")
        assert "Your scan is being deleted" in page.words and "destroyed for good" not in page.words
        assert half_destroyed(bench, the_scan(bench).id)[0]
    bench.kiosk.work.go_on()
    assert "Your scan is deleted from this kiosk" in visitor.look("/deleted").words
    assert not bench.kiosk.vault.holds(the_scan(bench).id)


@pytest.mark.parametrize("looks", ["/result", "/"])
def test_who_reads_a_result_that_the_desk_deletes_is_told_that_it_is_deleted(
    visitor: Visitor, bench: Bench, looks: str
) -> None:
    visitor.walk_to("result")
    shred_it(bench, the_scan(bench).id)
    page = visitor.look(looks)
    assert (page.status, page.name) == (200, "deleted")
    assert "Your scan is deleted from this kiosk" in page.words


@pytest.mark.parametrize("at", ["before it is measured", "while it is measured"])
def test_who_waits_for_a_result_that_the_desk_deletes_is_told_that_it_is_deleted(
    visitor: Visitor, bench: Bench, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    finish = bench.kiosk.work._finishing.finish

    def deleted_first(scan: UUID, *rest: Any) -> None:
        shred_it(bench, scan)
        finish(scan, *rest)

    visitor.walk_to("eyes")
    if at == "before it is measured":
        monkeypatch.setattr(bench.kiosk.work._finishing, "finish", deleted_first)
    else:
        bench.analyst.go.clear()
    visitor.tap("/eyes", eyes="open")
    if at == "while it is measured":
        wait_until(lambda: visitor.progress()["stage"] == "measuring", "the measurement begun")
        shred_it(bench, the_scan(bench).id)
        bench.analyst.go.set()
    page = visitor.wait()
    assert (page.status, page.name) == (200, "deleted")


def test_a_deletion_that_could_not_be_begun_leaves_the_patient_the_choice(
    visitor: Visitor, bench: Bench
) -> None:
    visitor.walk_to("result")
    visitor.look("/delete")
    with bench.kiosk.records.keyring.lock(), pages_wait_briefly():
        page = visitor.tap("/delete")
    assert (page.status, page.name) == (503, "kiosk_busy")
    bench.kiosk.work.go_on()
    assert the_scan(bench).state == ScanState.HANDED_OVER
    assert bench.kiosk.vault.items(the_scan(bench).id)


def test_looking_for_what_is_left_of_deleted_scans_holds_up_nobody_who_writes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of most there is nothing, and their rows stay for ever."""
    monkeypatch.setattr(scan_work, "REMAINS_S", 0.0)
    shred_it(bench, consented(bench))
    begin, begun = sqlite.transaction, list[str]()

    def noted(db: sqlite3.Connection) -> AbstractContextManager[sqlite3.Connection]:
        begun.append("a transaction")
        return begin(db)

    monkeypatch.setattr(sqlite, "transaction", noted)
    bench.kiosk.work.go_on()
    assert begun == []
