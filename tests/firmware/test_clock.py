"""Who vouches for the wall clock of a real kiosk; without anyone there is no UV."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware.lights.clock import real_moment
from firmware.lights.daemon import LightDaemon
from firmware.lights.doses import Dose, DoseLedger, DoseRefused, Moment
from hardware.board import BOARDS, load_board
from hardware.host.clock import vouched_by
from hardware.profile import Limits

NOW = 1_800_000_000.0
YEAR_2000 = 946_684_800


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """A machine's files; `machine(synchronized, *battery clocks)`."""

    def build(synchronized, *clocks) -> Path:
        timesync = tmp_path / "run" / "systemd" / "timesync"
        timesync.mkdir(parents=True)
        if synchronized:
            (timesync / "synchronized").touch()
        for number, says in enumerate(clocks):
            folder = tmp_path / "sys" / "class" / "rtc" / f"rtc{number}"
            folder.mkdir(parents=True)
            (folder / "since_epoch").write_text(f"{says}\n")
        return tmp_path

    return build


@pytest.mark.parametrize(
    ("files", "by"),
    [
        ((True,), "a time server"),
        ((True, YEAR_2000), "a time server"),
        ((False, int(NOW) + 3), "the battery clock"),
        ((False, YEAR_2000, int(NOW)), "the battery clock"),
        ((False,), None),
        ((False, YEAR_2000), None),
        ((False, int(NOW) + 3600), None),
        ((False, "no clock"), None),
    ],
)
def test_a_time_server_or_a_battery_clock_vouches_for_the_time(
    machine: Callable[..., Path], files, by
) -> None:
    assert vouched_by(NOW, machine(*files)) == by


def test_a_clock_that_systemd_only_restored_gives_no_uv(machine: Callable[..., Path]) -> None:
    root = machine(False, YEAR_2000)
    ledger = DoseLedger(":memory:")
    with pytest.raises(DoseRefused) as refused:
        ledger.charge(Dose("p", "s", 1.0), 0.0, Limits(), real_moment(root))
    assert refused.value.code == "clock_unknown"
    (root / "sys" / "class" / "rtc" / "rtc0" / "since_epoch").write_text(str(int(time.time())))
    ledger.charge(Dose("p", "s", 1.0), 0.0, Limits(), real_moment(root))


def test_only_a_simulated_kiosk_takes_its_clock_on_trust(tmp_path: Path) -> None:
    for board, moment in [("laptop", real_moment), ("simulated", Moment.now)]:
        daemon = LightDaemon(load_board(BOARDS / f"{board}.toml"), tmp_path / board)
        assert daemon._core._moment == moment
        daemon._close()
