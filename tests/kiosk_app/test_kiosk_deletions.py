"""How a scan is deleted: whatever fails or is written meanwhile, nothing of it stays or is sent."""

from __future__ import annotations

import errno
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from firmware.capture.client import CaptureFault
from hardware.host import sqlite
from kiosk_app.kept.keyring import KeyGone, Keyring, KeyringFull
from kiosk_app.kept.messages import Message
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsFull, RecordsHeld, RecordsUnusable
from kiosk_app.kept.states import GONE, ScanState
from kiosk_app.kept.vault import VaultError, new_key
from kiosk_app.scanning import scan_work
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.shred import shred
from sync.wire.messages import WithdrawMessages
from tests.support.full_disk import on_a_small_disk
from tests.support.impatience import pages_wait_briefly
from tests.support.kiosk_bench import Bench
from tests.support.scanning import (
    consented,
    do,
    half_destroyed,
    held,
    nothing_is_kept,
    reading,
    state_of,
)
from tests.support.visitor import Visitor, the_scan
from tests.support.waiting import wait_until


def shred_it(bench: Bench, scan: UUID) -> Delivery:
    kiosk = bench.kiosk
    return shred(scan, kiosk.records, kiosk.vault, kiosk.courier.run_once, bench.outbox, by="staff").clinic  # type: ignore[arg-type]


def test_shredding_an_unsent_scan_takes_it_out_of_the_outbox(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT
    assert state_of(bench, scan) == ScanState.SHREDDED
    assert nothing_is_kept(bench, scan)
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT  # again changes nothing


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


@pytest.mark.parametrize("said", ["sent", "stored", "unknown"])
def test_shredding_a_sent_scan_withdraws_it_once(bench: Bench, said: str) -> None:
    scan = consented(bench)
    do(bench, scan)
    (first,) = bench.outbox.submitted
    bench.outbox.states[first] = said
    if said == "unknown":
        del bench.outbox.states[first]
    assert shred_it(bench, scan) is Delivery.TELLING
    assert shred_it(bench, scan) is Delivery.TELLING
    ((kind, envelope),) = (sent for known, sent in bench.outbox.submitted.items() if known != first)
    message = bench.clinic.open(envelope)
    assert kind == "withdraw"
    assert isinstance(message, WithdrawMessages)
    assert (message.scan, message.reason, message.messages) == (scan, "staff", (first,))


def test_who_waits_for_a_deletion_does_not_wait_for_the_messages_of_others(bench: Bench) -> None:
    other, scan = consented(bench), consented(bench)
    do(bench, other)
    do(bench, scan)
    [of_the_other] = bench.kiosk.records.messages.carriers(other)
    bench.outbox.states[of_the_other] = "stored"
    shred_it(bench, scan)
    assert state_of(bench, other) == ScanState.HANDED_OVER
    bench.kiosk.courier.run_once()
    assert state_of(bench, other) == ScanState.STORED


def test_shredding_without_an_outbox_is_finished_later(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    bench.outbox.there = False
    assert shred_it(bench, scan) is Delivery.UNTOLD
    assert bench.kiosk.vault.items(scan) == []
    bench.outbox.there = True
    bench.again().courier.run_once()
    assert not bench.outbox.submitted
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


@pytest.mark.parametrize("restarted", [False, True])
def test_nothing_is_withdrawn_of_a_scan_that_was_never_sealed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """It is deleted without an outbox, which is asked for its result after a restart: it may know of one."""
    scan = consented(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.analyst, "fail", OSError("no memory"))
        do(bench, scan)
    assert state_of(bench, scan) == ScanState.CAPTURED
    if restarted:
        bench.again()
    bench.outbox.there = False
    assert shred_it(bench, scan) is (Delivery.UNTOLD if restarted else Delivery.NOTHING_SENT)
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


@pytest.mark.parametrize("given_up", [True, False])
def test_nothing_is_sent_of_a_scan_without_pictures_whether_there_is_an_outbox_or_not(
    bench: Bench, given_up: bool
) -> None:
    bench.outbox.there = False
    scan = consented(bench)
    if given_up:
        bench.camera.fault = CaptureFault("camera_frozen", "It gave no picture.")
        do(bench, scan)
        assert state_of(bench, scan) == ScanState.ABANDONED
    assert shred_it(bench, scan) is Delivery.NOTHING_SENT
    bench.outbox.there = True
    bench.kiosk.courier.run_once()
    assert bench.outbox.submitted == {}


@pytest.mark.parametrize("state", GONE)
def test_the_outbox_is_asked_for_the_result_of_a_scan_that_is_gone_and_nobody_asked_for_before(
    bench: Bench, state: ScanState
) -> None:
    scan = consented(bench)
    with closing(sqlite3.connect(bench.kiosk.records.path)) as db, db:
        db.execute("UPDATE scans SET state = ?", (state,))
    bench.again()
    bench.outbox.states[uuid5(scan, "result 0")] = "stored"
    assert shred_it(bench, scan) is Delivery.TELLING
    assert [kind for kind, _ in bench.outbox.submitted.values()] == ["withdraw"]


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


def test_a_scan_that_is_deleted_while_it_is_being_sealed_is_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, add = bench.kiosk.records, bench.kiosk.records.messages.add

    def deleted_meanwhile(scan: UUID, *rest: Any, **after: Any) -> Message:
        bench.kiosk.shred(scan)
        return add(scan, *rest, **after)

    monkeypatch.setattr(records.messages, "add", deleted_meanwhile)
    scan = consented(bench)
    do(bench, scan)
    bench.kiosk.courier.run_once()
    assert (records.scan(scan).state, bench.outbox.submitted) == (ScanState.SHREDDED, {})
    assert records.messages.in_states() == []
    assert bench.kiosk.delivery(scan) is Delivery.NOTHING_SENT


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
        wait_until(lambda: visitor.progress()["stage"] == "measuring")
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


def test_a_result_to_be_sealed_again_of_a_scan_that_an_earlier_version_deleted_is_withdrawn(
    bench: Bench,
) -> None:
    scan = consented(bench)
    do(bench, scan)
    with sqlite3.connect(bench.kiosk.records.path) as db:
        db.execute("UPDATE scans SET state = 'shredded', wrapped_dek = NULL")
        db.execute("UPDATE messages SET state = 'reseal'")
        db.execute("DROP INDEX messages_by_scan")
        db.execute("PRAGMA user_version = 2")
    [message] = bench.again().records.messages.in_states()
    assert (message.scan, message.state) == (scan, "discarding")


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
