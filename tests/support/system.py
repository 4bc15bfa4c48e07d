"""A whole kiosk and clinic as separate processes, for tests that kill parts and look at what is left."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from hardware.board import load_board
from hardware.simulated.patient_options import SimulatedPatient
from kiosk_app.demo.supervisor import Part, Supervisor
from kiosk_app.demo.system import BOARD, System, fail_power, open_system, parts, start_all
from kiosk_app.scanning.engine_check import CHECKED, found_right
from tests.support.long_tests import for_long_tests

# Half as wide and high as the camera's: most tests of a system are about what becomes of a scan.
_SMALLER = {
    "width = 1536, height = 2048": "width = 768, height = 1024",
    "width = 480, height = 640": "width = 240, height = 320",
}
# In the place of `dermakiosk`: with little work in a scan; and with a measure more, which reads every light.
QUICK = (sys.executable, "-m", "tests.support.quick_kiosk")
EVERY_LIGHT = (sys.executable, "-m", "tests.support.every_light")


@dataclasses.dataclass
class RunningSystem:
    """The started parts; any of them can be killed and started again."""

    system: System
    supervisor: Supervisor
    parts: dict[str, Part]

    def start(self, *names: str) -> None:
        self.supervisor.start(*(self.parts[name] for name in names))

    def restart(self, name: str) -> None:
        self.supervisor.kill(name)
        self.start(name)

    def power_cut(self) -> None:
        """Every pin low, every process gone, from one instant on; `start_all` is the power coming back."""
        fail_power(self.system, self.supervisor)

    def may_be_silent(self, name: str, seconds: float) -> None:
        """Until it is started again the part may be so from now on; all others for as long as ever."""
        heartbeats = self.supervisor._heartbeats
        heartbeats._allowed[name] = seconds
        if name in heartbeats._until:
            heartbeats._until[name] = time.monotonic() + seconds

    def start_all(self) -> None:
        start_all(self.supervisor, list(self.parts.values()))

    def clinic_rows(self, query: str) -> list[tuple]:
        uri = f"{(self.system.clinic / 'clinic.sqlite').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()

    def clinic_scans(self) -> list[str]:
        """The scan ids that the clinic has a record of, one per record."""
        return [str(row[0]) for row in self.clinic_rows("SELECT id FROM scans")]


def small_system_board(folder: Path, simulation: str = "") -> Path:
    """The simulated board with smaller pictures, and these lines in its [simulation]."""
    text = BOARD.read_text()
    for large, small in _SMALLER.items():
        assert large in text
        text = text.replace(large, small)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "board.toml"
    path.write_text(f"{text}\n[simulation]\n{simulation}\n" if simulation else text)
    return path


@for_long_tests("a whole system")
@contextmanager
def running_system(
    root: Path,
    *,
    portrait: Path | None = None,
    board: Path | None = None,
    without: Sequence[str] = (),
    extra: dict[str, Sequence[str]] | None = None,
    replace: dict[str, Sequence[str]] | None = None,
    lasting: bool = False,
    tapped: bool = False,
) -> Iterator[RunningSystem]:
    """Provision and start a system under `root`, with smaller pictures unless a `board` is named; stop it.

    `without` names parts that are left out at first, `extra` adds options to a part's command line,
    `replace` takes another command in the place of `dermakiosk` itself. A `lasting` one has the parts of a
    demo that goes on, a `tapped` one the auditor's copy of what crosses the broker. What every new kiosk asks
    its engine is noted as answered; a demo's kiosk asks.
    """
    board = board or small_system_board(root.with_name(f"{root.name}-board"))
    with open_system(root, board=board) as (system, _):
        (system.kiosk / "app" / CHECKED).write_text(found_right(load_board(system.board).engine))
        table = {}
        for part in parts(system, SimulatedPatient(portrait), lasting=lasting):
            if part.name == "tap" and not tapped:
                continue
            argv = list(part.argv) + list((extra or {}).get(part.name, ()))
            if part.name in (replace or {}):
                argv = [*(replace or {})[part.name], *argv[1:]]
            table[part.name] = dataclasses.replace(part, argv=argv)
        yield from _run(system, table, without)


def _run(system: System, table: dict[str, Part], without: Sequence[str]) -> Iterator[RunningSystem]:
    supervisor = Supervisor(system.root / "logs")
    running = RunningSystem(system, supervisor, table)
    try:
        running.start(*(name for name in table if name not in without))
        yield running
    finally:
        supervisor.stop()
