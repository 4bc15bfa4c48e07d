"""The demo's folder: what is kept of one start for the next."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kiosk_app.demo import system as module
from kiosk_app.demo.supervisor import free_port
from kiosk_app.demo.system import SimulatedPatient, System
from kiosk_app.kept.states import ScanState
from sync.clinic.store.engine import BUSY_SECONDS
from tests.support.kiosk_bench import Bench
from tests.support.scanning import consented, do, state_of


def test_a_demo_that_is_taken_up_again_keeps_the_newest_scans_and_files(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_SCANS", 2)
    monkeypatch.setattr(module, "KEPT_FILES", 3)
    scans = [consented(bench) for _ in range(4)]
    for scan in scans:
        do(bench, scan)
    wire = tmp_path / "wire"
    wire.mkdir()
    for number in range(5):
        (wire / f"{number}.cose").write_bytes(b"sealed")
    system = System(tmp_path, 1, 2, 3)
    assert system.kiosk == bench.kiosk.records.path.parents[1]
    module._let_old_go(system)
    assert [state_of(bench, scan) for scan in scans] == [ScanState.SHREDDED] * 2 + [ScanState.HANDED_OVER] * 2
    assert [bool(bench.kiosk.vault.items(scan)) for scan in scans] == [False, False, True, True]
    assert sorted(file.name for file in wire.iterdir()) == ["2.cose", "3.cose", "4.cose"]
    module._let_old_go(system)
    assert [state_of(bench, scan) for scan in scans].count(ScanState.HANDED_OVER) == 2


def test_a_demo_that_lasts_has_the_clinics_worker_too(tmp_path: Path) -> None:
    system, nobody = System(tmp_path, 1, 2, 3), SimulatedPatient(None)
    once, lasting = (module.parts(system, nobody, lasting=lasting) for lasting in (False, True))
    assert [part.name for part in lasting] == [*(part.name for part in once), "worker"]
    assert "work" in lasting[-1].argv and "--state" in lasting[-1].argv


def test_a_process_of_the_clinic_may_be_silent_for_longer_than_it_waits_for_another_that_writes() -> None:
    assert module.CLINIC_WATCHDOG_S >= 2 * BUSY_SECONDS


def test_the_port_of_the_start_before_is_taken_again_unless_somebody_listens_there() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert free_port(port) != port
    assert free_port(port, {port}) != port
