"""A kiosk that loses its power in a scan: darkness at once, every dose counted, no promise broken."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from firmware.lights.doses import DoseLedger
from hardware.board import load_board
from hardware.simulated.pins import PinReader, Transition
from kiosk_app.demo.system import BOARD
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.states import ScanState
from tests.support.kiosk_daemons import intervals, lit
from tests.support.secrecy import clear_pictures
from tests.support.system import RunningSystem
from tests.support.visits import Visit, a_new_scan_is, everything_arrived_once, is_settled, records_of
from tests.support.waiting import wait_until

PROMISED = (ScanState.CAPTURED, ScanState.ANALYSED, ScanState.SEALED, ScanState.HANDED_OVER, ScanState.STORED)
VISITS = 10
FULL, EXTRA = 2, 3  # SQLite's PRAGMA synchronous
IRRADIANCE_W_M2 = load_board(BOARD).lights["uv365"].irradiance_w_m2


@pytest.fixture(scope="module")
def running(running_with_uv: RunningSystem) -> RunningSystem:
    """With UV: a cut in a pulse has to be in the ledger."""
    return running_with_uv


@pytest.fixture
def pins(running: RunningSystem) -> Iterator[PinReader]:
    reader = PinReader(running.system.kiosk / "run" / "pins.page")
    yield reader
    reader.close()


class Question:
    """The question about the eyes: `asked` once the patient reads it, answered when `over` is set."""

    def __init__(self) -> None:
        self.asked, self.over = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.asked.set()
        self.over.wait(120)


Moment = Callable[[RunningSystem, PinReader, Question], Callable[[], object]]
QUESTION = "the question about the eyes"


def lit_by(light: str) -> Moment:
    return lambda running, pins, question: lambda: light in lit(pins)


def locking_pictures_away(
    running: RunningSystem, pins: PinReader, question: Question
) -> Callable[[], object]:
    vault = running.system.kiosk / "app" / "vault"
    return lambda: list(vault.glob(".*.partial/*"))


def newest_is(state: str) -> Moment:
    return lambda running, pins, question: a_new_scan_is(running, state)


# At the question nothing is durable yet: the pictures with the eyes open are in memory until it is answered.
MOMENTS: dict[str, Moment] = {
    "a white picture": lit_by("cross"),
    QUESTION: lambda running, pins, question: question.asked.is_set,
    "a UV pulse": lit_by("uv365"),
    "locking away": locking_pictures_away,
    "measuring": newest_is(ScanState.CAPTURED),
    "sending": newest_is(ScanState.HANDED_OVER),
}


def promised_by(running: RunningSystem) -> set[UUID]:
    return {row.id for row in records_of(running).scans(*PROMISED)}


def is_met(running: RunningSystem, visit: Visit, reached: Callable[[], object], moment: str) -> bool:
    """Whether a look came at this moment of the visit, and not too late for it: then all is over."""

    def found() -> str | None:
        if reached():
            return "met"
        over = not visit.is_alive() and is_settled(running)
        return "missed" if over else None

    return wait_until(found, moment, 120) == "met"


def doses(running: RunningSystem) -> tuple[int, float]:
    """How many UV pulses the ledger has, and their J/m²."""
    uri = f"{(running.system.kiosk / 'light' / 'doses.sqlite').as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as ledger:
        count, total = ledger.execute("SELECT count(*), coalesce(sum(dose_j_m2), 0) FROM pulses").fetchone()
    return int(count), float(total)


def since(history: list[Transition], begun_ns: int) -> list[Transition]:
    return [item for item in history if item.at_ns >= begun_ns]


def test_what_is_promised_is_on_the_disk_and_not_in_the_systems_memory(tmp_path: Path) -> None:
    """The cut below only kills, and the kernel still writes what a killed process left to it.

    A real cut loses that too. So what is asked here is that the commits wait for the disk.
    """
    with closing(DoseLedger(tmp_path / "doses.sqlite")._open()) as doses:
        assert doses.execute("PRAGMA synchronous").fetchone()[0] == EXTRA
    key = tmp_path / "vault.key"
    with Records(tmp_path / "records.sqlite", Keyring(key))._file.connection() as records:
        assert records.execute("PRAGMA synchronous").fetchone()[0] == FULL


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_power_cut_costs_at_most_a_new_try(running: RunningSystem, pins: PinReader, moment: str) -> None:
    for _ in range(VISITS):
        pulses_before, dose_before = doses(running)
        at_clinic, promised_before = len(running.clinic_scans()), promised_by(running)
        question = Question()
        if moment != QUESTION:
            question.over.set()
        reached = MOMENTS[moment](running, pins, question)
        begun_ns = time.monotonic_ns()
        visit = Visit(running, question)
        if is_met(running, visit, reached, moment):
            break
        assert visit.end() is None
        everything_arrived_once(running)
    else:
        pytest.fail(f"no visit was met at this moment: {moment}")
    running.power_cut()
    dark_ns = time.monotonic_ns()
    question.over.set()
    visit.end()

    # Dark from that instant on, and the ledger has at least what was received.
    assert lit(pins) == set()
    assert not any(pins.levels(dark_ns, time.monotonic_ns()).values())
    received = intervals(since(pins.history(), begun_ns), "uv365")
    pulses, dose = doses(running)
    assert pulses - pulses_before >= len(received)
    assert dose - dose_before >= IRRADIANCE_W_M2 * sum(received)
    if moment == "a UV pulse":
        assert len(received) == 1

    records, promised = records_of(running), promised_by(running)
    newly_promised = len(promised - promised_before)
    if moment in ("measuring", "sending"):
        assert newly_promised == 1
    running.start_all()
    vault = running.system.kiosk / "app" / "vault"
    assert {path.name for path in vault.iterdir()} <= {str(scan) for scan in promised}
    assert all(row.state == ScanState.ABANDONED for row in records.scans() if row.id not in promised)

    assert Visit(running).end() is None
    everything_arrived_once(running)
    assert all(records.scan(scan).state == ScanState.STORED for scan in promised)
    assert len(running.clinic_scans()) == at_clinic + 1 + newly_promised
    files = [path for path in running.system.root.rglob("*") if path.is_file()]
    assert clear_pictures(files) == []
