"""The demo's folder: what is kept of one start for the next."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kiosk_app.demo import cli
from kiosk_app.demo import system as module
from kiosk_app.demo.supervisor import Stopped, Supervisor, free_port
from kiosk_app.demo.system import OURS, FolderRefused, SimulatedPatient, System, open_system
from kiosk_app.kept.states import ScanState
from sync.clinic.store.engine import BUSY_S
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
    (wire / ".5.cose.part").write_bytes(b"half")  # somebody writes it at this moment
    (wire / "deleted").symlink_to("nowhere")  # to who looks it has just gone
    system = System(tmp_path, 1, 2, 3)
    assert system.kiosk == bench.kiosk.records.path.parents[1]
    module.let_old_go(system)
    assert [state_of(bench, scan) for scan in scans] == [ScanState.SHREDDED] * 2 + [ScanState.HANDED_OVER] * 2
    assert [bool(bench.kiosk.vault.items(scan)) for scan in scans] == [False, False, True, True]
    assert sorted(file.name for file in wire.glob("*.cose")) == ["2.cose", "3.cose", "4.cose"]
    assert (wire / ".5.cose.part").exists()
    module.let_old_go(system)
    assert [state_of(bench, scan) for scan in scans].count(ScanState.HANDED_OVER) == 2


def test_a_demo_that_runs_for_weeks_lets_old_scans_go_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[System] = []
    ends = iter([None, None, None, Stopped(0)])

    def mend() -> None:
        if (end := next(ends)) is not None:
            raise end

    monkeypatch.setattr(cli, "LET_GO_S", 0.0)
    monkeypatch.setattr(cli, "WATCH_S", 0.0)
    monkeypatch.setattr(cli, "let_old_go", let_go.append)
    system, supervisor = System(tmp_path, 1, 2, 3), Supervisor(tmp_path)
    monkeypatch.setattr(supervisor, "mend", mend)
    with pytest.raises(Stopped):
        cli._keep_going(system, supervisor, [], [])
    assert let_go == [system] * 4


def test_a_demo_that_lasts_has_the_clinics_worker_too(tmp_path: Path) -> None:
    system, nobody = System(tmp_path, 1, 2, 3), SimulatedPatient(None)
    once, lasting = (module.parts(system, nobody, lasting=lasting) for lasting in (False, True))
    assert [part.name for part in lasting] == [*(part.name for part in once), "worker"]
    assert "work" in lasting[-1].argv and "--state" in lasting[-1].argv


def test_a_process_of_the_clinic_may_be_silent_for_longer_than_it_waits_for_another_that_writes() -> None:
    assert module.CLINIC_WATCHDOG_S >= 2 * BUSY_S


def test_the_port_of_the_start_before_is_taken_again_unless_somebody_listens_there() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert free_port(port) != port
    assert free_port(port, {port}) != port


@pytest.mark.parametrize("name", [*OURS, "wire"])
@pytest.mark.parametrize("beside", [None, "{}", "[]", "no JSON", '{"name": "of another program"}'])
def test_a_folder_that_is_not_empty_and_no_demos_is_refused_before_it_is_touched(
    name: str, beside: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_provision", lambda _: "password")
    monkeypatch.setattr(module, "run_step", lambda *_: None)
    (tmp_path / name).mkdir()
    (tmp_path / name / "root.key").touch()
    if beside is not None:
        (tmp_path / "system.json").write_text(beside)
    before = set(tmp_path.rglob("*"))
    refused = pytest.raises(FolderRefused, match="is not empty and no demo made it: name an empty folder")
    with refused, open_system(tmp_path):
        pass
    assert set(tmp_path.rglob("*")) == before


def test_a_first_start_that_was_cut_short_is_made_anew_and_a_whole_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "kiosk" / "half"

    def cut_short(_: System) -> str:
        half.mkdir(parents=True)
        raise KeyboardInterrupt

    def whole(_: System) -> str:
        assert not half.exists()
        half.mkdir(parents=True)
        return "password"

    monkeypatch.setattr(module, "run_step", lambda *_: None)
    (tmp_path / "lock").touch()  # all there is of a start that ended at once
    monkeypatch.setattr(module, "_provision", cut_short)
    with pytest.raises(KeyboardInterrupt), open_system(tmp_path):
        pass
    monkeypatch.setattr(module, "_provision", whole)
    for _ in range(2):
        with open_system(tmp_path) as (_, password):
            assert (password, half.exists()) == ("password", True)
    (tmp_path / ".demo").unlink()  # as an earlier version left it
    with open_system(tmp_path) as (_, password):
        assert (password, half.exists()) == ("password", True)
