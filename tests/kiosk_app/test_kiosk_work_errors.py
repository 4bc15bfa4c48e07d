"""An error in the work on a scan ends the waiting, says what is kept, and quotes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from kiosk_app.kept.keyring import KeyringBusy
from kiosk_app.kept.records_file import RecordsFull, RecordsHeld
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import VaultError, VaultFull
from kiosk_app.patient import sentences
from tests.support.kiosk_bench import Bench
from tests.support.scanning import consented, do, held, nothing_is_kept, state_of


def unforeseen(*_args: object, **_kwargs: object) -> None:
    raise ZeroDivisionError("a freckle of 41.25 mm2")


def test_an_unforeseen_error_before_the_pictures_are_kept_ends_the_spinner_and_keeps_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.camera, "capture", unforeseen)
    scan = consented(bench)
    progress = do(bench, scan)
    assert (progress.state, progress.reason) == ("failed", "not_measurable")
    assert state_of(bench, scan) == ScanState.ABANDONED
    assert nothing_is_kept(bench, scan)


def test_an_unforeseen_error_in_the_analysis_ends_the_spinner_and_names_its_type_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = consented(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.analyst, "measure", unforeseen)
        progress = do(bench, scan)
        assert bench.kiosk.work.go_on() == 0
    assert (progress.state, progress.reason) == ("failed", "analysis_failed")
    assert state_of(bench, scan) == ScanState.CAPTURED
    logged = "".join(capsys.readouterr())
    assert "ZeroDivisionError" in logged
    assert "freckle" not in logged
    bench.kiosk.work._failed.clear()  # it waits before the next try
    assert bench.kiosk.work.go_on() == 1


@pytest.mark.parametrize("fault", [VaultFull("full"), VaultError("broken")])
def test_pictures_are_said_to_be_kept_where_only_what_was_measured_of_them_could_not_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: VaultError
) -> None:
    def refuse(*_args: object) -> int:
        raise fault

    scan = consented(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.kiosk.vault, "add", refuse)
        assert do(bench, scan).reason == "analysis_failed"
    assert state_of(bench, scan) == ScanState.CAPTURED
    bench.again().work.go_on()
    assert state_of(bench, scan) == ScanState.HANDED_OVER


@pytest.mark.parametrize("kept", [True, False])
def test_where_nobody_can_tell_whether_pictures_are_kept_neither_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    note = bench.kiosk.records.advance
    scan = consented(bench)
    with monkeypatch.context() as patch:

        def breaks(*args: Any, **figures: Any) -> None:
            if kept:
                note(*args, **figures)
            patch.setattr(bench.kiosk.records, "_one", held)
            held()

        patch.setattr(bench.kiosk.records, "advance", breaks)
        progress = do(bench, scan)
    said = sentences.trouble(progress.reason)
    assert "cannot tell just now whether your pictures were put away" in str(said.happened)
    assert not said.again
    bench.kiosk.work.go_on()
    assert state_of(bench, scan) == (ScanState.HANDED_OVER if kept else ScanState.ABANDONED)


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        (RecordsHeld("held"), "storage"),
        (KeyringBusy("held"), "storage"),
        (RecordsFull("full"), "storage_full"),
        (VaultError("unreadable"), "storage"),
        (VaultFull("full"), "storage_full"),
    ],
)
def test_only_a_full_disk_is_said_to_be_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: Exception, reason: str
) -> None:
    def fail(*_args: object) -> int:
        raise fails

    monkeypatch.setattr(bench.kiosk.vault, "put_capture", fail)
    assert do(bench, consented(bench)).reason == reason
    full = "no room" in str(sentences.trouble(reason).happened)
    assert (full, sentences.trouble(reason).again) == (reason == "storage_full", reason != "storage_full")
