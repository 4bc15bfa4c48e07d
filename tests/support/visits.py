"""Patients who visit a running system in the background, and what its records then say."""

from __future__ import annotations

import threading
from collections.abc import Callable

from firmware.capture.client import CaptureClient, CaptureFault
from kiosk_app.demo.patient import DemoPatient, JourneyBroken, ScanRefused
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.states import ScanState
from tests.support.system import RunningSystem
from tests.support.waiting import wait_until


def records_of(running: RunningSystem) -> Records:
    app = running.system.kiosk / "app"
    return Records(app / "records.sqlite", Keyring(app / "vault.key"))


def at_once() -> None:
    """What a patient does before answering who does nothing before."""


class Asked(DemoPatient):
    """A patient who answers `page` (of their word about the eyes, say) when `first()` has returned."""

    def __init__(self, running: RunningSystem, first: Callable[[], object], page: str = "/eyes") -> None:
        super().__init__(running.system.kiosk_url)
        self._first, self._page = first, page

    def _open(self, path: str, fields: dict[str, str] | None = None) -> str:
        if path == self._page and fields:
            self._first()
        return super()._open(path, fields)


class Visit(threading.Thread):
    """A patient who walks in the background; `said` is a failure's sentence, None after the last page."""

    def __init__(
        self, running: RunningSystem, asked: Callable[[], object] = at_once, page: str = "/eyes"
    ) -> None:
        super().__init__(daemon=True)
        self.said: str | None = None
        self._broke: Exception | None = None
        self._patient = Asked(running, asked, page)
        self.start()

    def run(self) -> None:
        try:
            self._patient.walk()
        except (JourneyBroken, ScanRefused) as error:
            self.said = str(error)
        except Exception as error:  # noqa: BLE001  raised again by end()
            self._broke = error

    def end(self) -> str | None:
        """What the patient was told. Raises what nobody foresaw: a thread that ends so has told nothing."""
        self.join(120)
        assert not self.is_alive(), "the patient is stuck"
        if self._broke is not None:
            raise self._broke
        return self.said


def capturing(running: RunningSystem) -> Callable[[], bool]:
    client = CaptureClient(running.system.kiosk / "run" / "capture.sock", timeout=60.0)

    def now() -> bool:
        try:
            return client.status()["state"] == "capturing"
        except CaptureFault:
            return False

    return now


def a_new_scan_is(running: RunningSystem, state: str) -> Callable[[], bool]:
    """Whether a scan that there is not yet now is in this state."""
    records = records_of(running)
    known = {row.id for row in records.scans()}
    return lambda: any(row.state == state for row in records.scans() if row.id not in known)


def measuring(running: RunningSystem) -> Callable[[], bool]:
    return a_new_scan_is(running, ScanState.CAPTURED)


def is_settled(running: RunningSystem) -> bool:
    """Whether every scan is stored or given up."""
    over = {ScanState.STORED, ScanState.REFUSED, ScanState.ABANDONED}
    return {row.state for row in records_of(running).scans()} <= over


def everything_arrived_once(running: RunningSystem) -> None:
    """Every scan with pictures ends up with one record at the clinic, and the clinic has no other."""
    records = records_of(running)
    wait_until(lambda: is_settled(running), "every scan stored or given up")
    kept = sorted(row.id.hex for row in records.scans(ScanState.STORED))
    wait_until(lambda: sorted(running.clinic_scans()) == kept, "one clinic record for each stored scan")
