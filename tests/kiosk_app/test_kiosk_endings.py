"""How a scan ends: abandoned or refused it is gone whatever fails on the way, sealed it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import UUID

import pytest

from firmware.capture.client import CaptureFault
from kiosk_app.kept.keyring import KeyringBusy, KeyringError
from kiosk_app.kept.records_file import RecordsFull, RecordsHeld
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultError, VaultFull, new_key
from kiosk_app.scanning import scan_work
from kiosk_app.scanning.analyst import AnalysisFailed
from kiosk_app.scanning.progress import Progress
from kiosk_app.scanning.sealer import SealerError
from models.analysis.words import ENGLISH
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
from tests.support.waiting import wait_until


def fails(bench: Bench, scan: UUID, _monkeypatch: pytest.MonkeyPatch) -> None:
    bench.camera.fault = CaptureFault("camera_frozen", "It gave no picture.")
    assert do(bench, scan).reason == "camera_frozen"
    bench.kiosk.work.leave(scan)


def leaves(bench: Bench, scan: UUID, _monkeypatch: pytest.MonkeyPatch) -> None:
    bench.kiosk.work.leave(scan)


def leaves_during_the_write(bench: Bench, scan: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = bench.kiosk.vault
    keep, key = vault.put_capture, vault_key(bench, scan)

    def leaves_meanwhile(*capture: Any) -> int:
        size = keep(*capture)
        bench.kiosk.work.leave(scan)
        return size

    monkeypatch.setattr(bench.kiosk.records, "dek", lambda _scan: key)
    monkeypatch.setattr(vault, "put_capture", leaves_meanwhile)
    assert do(bench, scan).reason == "left"


def is_not_noted(bench: Bench, scan: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    key = vault_key(bench, scan)
    monkeypatch.setattr(bench.kiosk.records, "dek", lambda _scan: key)
    monkeypatch.setattr(bench.kiosk.records, "advance", held)
    assert do(bench, scan).reason == "storage"


def vault_key(bench: Bench, scan: UUID) -> bytes:
    """The key of a scan, for whom another process keeps from the keyring."""
    wrapped = bench.kiosk.records._one(scan)["wrapped_dek"]
    return bench.kiosk.records.keyring.unwrap(wrapped)


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(
    ("ends", "reason"),
    [(leaves, None), (fails, "camera_frozen"), (leaves_during_the_write, None), (is_not_noted, "storage")],
)
def test_a_scan_that_could_not_be_abandoned_is_as_soon_as_the_keys_are_free(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ends: Callable[..., None], reason: str | None
) -> None:
    scan = consented(bench)
    with monkeypatch.context() as patch, bench.kiosk.records.keyring.lock():
        ends(bench, scan, patch)
        bench.kiosk.work.go_on()
        assert state_of(bench, scan) == ScanState.CONSENTED
        assert bench.kiosk.vault.items(scan) == []
    bench.kiosk.work.go_on()
    row = bench.kiosk.records.scan(scan)
    assert (row.state, row.reason) == (ScanState.ABANDONED, reason)
    assert nothing_is_kept(bench, scan)


def test_an_abandoning_that_ended_half_way_is_brought_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = consented(bench)
    bench.kiosk.work.leave(scan)
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records._file, "checkpoint", held)
        bench.kiosk.work.go_on()
    assert (state_of(bench, scan), half_destroyed(bench, scan)[0]) == (ScanState.ABANDONED, [1])
    bench.kiosk.work.go_on()
    assert half_destroyed(bench, scan) == ([], [])


@pytest.mark.parametrize("later", [False, True])
def test_a_refusal_that_ended_half_way_is_brought_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    scan = consented(bench)
    if later:
        bench.analyst.fail = AnalysisFailed("died")
        do(bench, scan)
        bench.analyst.fail = None
    bench.analyst.refuse = "no_face"
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records._file, "checkpoint", held)
        if later:
            bench.kiosk.work.go_on()
        else:
            do(bench, scan)
    assert state_of(bench, scan) == ScanState.REFUSED
    bench.kiosk.work.go_on()
    assert half_destroyed(bench, scan) == ([], [])


def test_who_leaves_before_the_work_has_begun_is_not_photographed(bench: Bench) -> None:
    scan = consented(bench)
    bench.kiosk.work.leave(scan)
    assert do(bench, scan).reason == "left"
    assert (state_of(bench, scan), bench.camera.captured) == (ScanState.ABANDONED, [])


@pytest.mark.usefixtures("short_waits")
def test_another_try_while_the_first_is_being_abandoned_is_a_scan_of_its_own(bench: Bench) -> None:
    _, session = bench.kiosk.sessions.begin()
    bench.kiosk.consent(session)
    bench.camera.fault = CaptureFault("camera_frozen", "It gave no picture.")
    tried = session.scan
    assert tried is not None
    with bench.kiosk.records.keyring.lock():
        bench.kiosk.begin_scan(session, ENGLISH)
        wait_until(lambda: session.progress.state == "failed", "the scan failed")
    bench.camera.fault, session.progress = None, Progress()
    assert state_of(bench, tried) == ScanState.CONSENTED
    left = bench.kiosk.work._begin(tried)  # as the house-keeping does, which abandons it now
    bench.kiosk.begin_scan(session, ENGLISH)
    wait_until(lambda: session.progress.state == "ready", "the work on the scan done")
    bench.kiosk.work._end(tried)
    bench.kiosk.work.go_on()
    assert left is not None and session.scan is not None
    assert (state_of(bench, tried), state_of(bench, session.scan)) == (
        ScanState.ABANDONED,
        ScanState.HANDED_OVER,
    )


@pytest.mark.parametrize("error", [RecordsHeld, RecordsFull])
@pytest.mark.parametrize("stage", ["seal", "submit"])
def test_a_scan_that_is_sealed_is_ready_though_its_figures_cannot_be_noted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stage: str, error: type[Exception]
) -> None:
    noted = bench.kiosk.records.note

    def note(scan: UUID, **figures: Any) -> None:
        if stage in figures.get("seconds", {}):
            raise error("The kiosk's records cannot be used now.")
        noted(scan, **figures)

    monkeypatch.setattr(bench.kiosk.records, "note", note)
    scan = consented(bench)
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("ready", None)
    assert bench.kiosk.records.scan(scan).state == ScanState.HANDED_OVER
    assert len(bench.outbox.submitted) == 1


def test_a_scan_that_fails_unforeseen_after_it_was_sealed_is_not_said_to_be_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.kiosk.courier, "run_once", broken)
    scan = consented(bench)
    assert do(bench, scan).state == "ready"
    assert bench.kiosk.records.scan(scan).state == ScanState.SEALED


def test_a_row_that_cannot_be_read_leaves_no_patient_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_scan: UUID) -> None:
        raise ValueError("Expecting value")

    scan = consented(bench)
    monkeypatch.setattr(bench.kiosk.records, "scan", unreadable)
    assert do(bench, scan).state == "failed"


@pytest.mark.parametrize(
    "fault",
    [RecordsFull("full"), RecordsHeld("held"), KeyringError("damaged"), OSError(5, "I/O error")],
)
def test_a_kiosk_starts_also_where_what_was_left_cannot_be_destroyed_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fails_now(*_args: object) -> None:
        raise fault

    scan, half = consented(bench), consented(bench)
    bench.kiosk.vault.put_all(half, new_key(), {"frame.white": b"a picture"})
    again = bench.again()
    with monkeypatch.context() as patch:
        for step in ("forget", "finish_rewrap"):
            patch.setattr(again.records, step, fails_now)
        again.work.recover()
        again.work.go_on()
    again.work.go_on()
    assert [again.records.scan(each).state for each in (scan, half)] == [ScanState.ABANDONED] * 2
    assert nothing_is_kept(bench, half)


@pytest.mark.parametrize(
    "fault", [RecordsFull("full"), SealerError("The clinic's keys have run out."), VaultFull("full")]
)
def test_what_is_no_fault_of_a_scan_never_ends_its_tries(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(scan_work, "FIRST_AGAIN_S", 0.0)
    scan = consented(bench)
    bench.analyst.fail = AnalysisFailed("died")
    do(bench, scan)
    bench.analyst.fail = None

    def fails(*_args: object, **_more: object) -> None:
        raise fault

    part, step = {
        RecordsFull: (bench.kiosk.records, "note"),
        SealerError: (bench.kiosk.records.messages, "add"),
        VaultFull: (bench.kiosk.vault, "add"),
    }[type(fault)]
    with monkeypatch.context() as patch:
        patch.setattr(part, step, fails)
        assert [bench.kiosk.work.go_on() for _ in range(6)] == [0] * 6
    assert bench.kiosk.work.go_on() == 1
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def test_what_is_noted_again_while_it_is_looked_at_stays_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion of the scan, with pictures left, between the look at its state and the end of the look."""
    scan, look = consented(bench), bench.kiosk.records.state
    do(bench, scan)
    left = bench.kiosk.work._to_destroy
    left.note(scan)

    def noted_meanwhile(wanted: UUID) -> ScanState:
        state = look(wanted)
        left.note(scan)
        return state

    monkeypatch.setattr(bench.kiosk.records, "state", noted_meanwhile)
    left.destroy(scan)
    assert scan in left


@pytest.mark.parametrize("held_by", ["keys", "records"])
def test_a_round_that_ends_early_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], held_by: str
) -> None:
    def busy(*_args: object) -> None:
        raise KeyringBusy("busy") if held_by == "keys" else RecordsHeld("held")

    bench.kiosk.work.leave(consented(bench))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.records, "forget", busy)
        assert [bench.kiosk.work.go_on() for _ in range(4)] == [0] * 4
    assert "".join(capsys.readouterr()).count("round_ended") == 1


def test_whoever_reads_the_records_for_long_keeps_no_scan_from_being_finished(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each scan that is left behind is destroyed but for the old key; that is the next round's again."""
    bench.analyst.fail = AnalysisFailed("died")
    unfinished = consented(bench)
    do(bench, unfinished)
    bench.analyst.fail = None
    left = [consented(bench) for _ in range(2)]
    for scan in left:
        bench.kiosk.work.leave(scan)
    capsys.readouterr()
    with reading(bench):
        assert bench.kiosk.work.go_on() == 1
        assert "old_key_left" not in "".join(capsys.readouterr()), "it may be for a moment"
        assert [bench.kiosk.work.go_on() for _ in range(3)] == [0, 0, 0]
        assert {state_of(bench, scan) for scan in left} == {ScanState.ABANDONED}
        assert (bench.state / "app" / "reserve").exists()
    assert "".join(capsys.readouterr()).count("old_key_left") == 1, "it is told once"
    bench.kiosk.work.go_on()
    assert [half_destroyed(bench, scan) for scan in left] == [([], [])] * 2


@contextmanager
def cannot_destroy_the_old_key(bench: Bench) -> Iterator[None]:
    def fails() -> None:
        raise KeyringError("The vault's key file cannot be written: the disk reports an error.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.kiosk.records.keyring, "destroy_old", fails)
        yield


@contextmanager
def cannot_delete_the_pictures(bench: Bench) -> Iterator[None]:
    def fails(_scan: UUID) -> None:
        raise VaultError("Not every picture of a scan could be deleted. Check the kiosk's storage.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.kiosk.vault, "destroy", fails)
        yield


@pytest.mark.parametrize("befalls", [reading, cannot_destroy_the_old_key, cannot_delete_the_pictures])
def test_a_patient_whose_pictures_were_refused_is_told_that_whatever_is_left_of_them(
    bench: Bench, befalls: Callable[[Bench], AbstractContextManager[None]]
) -> None:
    scan, bench.analyst.refuse = consented(bench), "no_face"
    with befalls(bench):
        progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "no_face")
    bench.kiosk.work.go_on()
    assert half_destroyed(bench, scan) == ([], [])


def test_a_round_that_has_been_long_destroys_nothing_more_of_what_is_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many that a crash left, the watchdog would think that it hangs."""
    monkeypatch.setattr(scan_work, "ENOUGH_S", 0.0)
    for _ in range(3):
        bench.kiosk.work.leave(consented(bench))

    def left() -> int:
        bench.kiosk.work.go_on()
        return len(bench.kiosk.records.scans(ScanState.CONSENTED))

    assert [left() for _ in range(4)] == [2, 1, 0, 0]
