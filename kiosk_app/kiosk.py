"""The running kiosk: its parts put together, with the work that goes on behind the pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from firmware.capture_client import CaptureClient, CaptureFault
from kiosk_app import records as states
from kiosk_app.analyst import AnalysisFailed
from kiosk_app.close_ups import CloseUps
from kiosk_app.courier import Courier
from kiosk_app.delivery import Delivery, delivery
from kiosk_app.journey import Session, State
from kiosk_app.keyring import KeyringError
from kiosk_app.log import fault
from kiosk_app.records import Records, RecordsError
from kiosk_app.scan_work import ScanWork
from kiosk_app.sealer import SealerError
from kiosk_app.sessions import Sessions
from kiosk_app.shred import Shredded, shred
from kiosk_app.vault import Vault, VaultError
from models.analysis.words import Words
from sync.kiosk.client import OutboxClient, OutboxUnavailable

log = structlog.get_logger()

FULL = 0.95  # of the outbox: no new scans
ROUND_S = 2.0  # between two rounds of the courier
TURN_S = 1.0  # between two looks for sessions whose time is up


@dataclass
class Kiosk:
    """Everything the pages use. `reference()` gives the patient's pseudonymous id, None for a walk-in.

    `has_uv`: there is a UV lamp and a measure that reads its picture. Without, no page speaks of UV.
    """

    clinic: str
    simulated: bool
    has_uv: bool
    records: Records
    vault: Vault
    camera: CaptureClient
    outbox: OutboxClient
    courier: Courier
    work: ScanWork
    reference: Callable[[], str | None]
    room_for_a_scan_mb: int = 0
    close_ups: CloseUps | None = None  # None: the board has no close-up camera, so nobody is asked
    sessions: Sessions = field(init=False)
    round_since: float | None = None  # when the present round of house-keeping began

    def __post_init__(self) -> None:
        self.sessions = Sessions(self._leave)

    def closed_because(self) -> str | None:
        """Why no new scan can be taken now (a code of `sentences.TROUBLES`), or None."""
        if self.vault.free_mb() < self.room_for_a_scan_mb:
            return "no_room"
        try:
            fill = float(self.outbox.status().get("fill", 0.0))
        except OutboxUnavailable:
            return None  # the records keep sealed results until the outbox is back
        return "outbox_full" if fill >= FULL else None

    def consent(self, session: Session) -> None:
        """The patient agreed: write the consent down before anything else happens."""
        session.reference = self.reference()
        session.scan = self._new_scan(session)

    def _new_scan(self, session: Session) -> UUID:
        stamp = session.agree() if session.consent is None else session.consent
        scan = self.records.create(stamp.to_dict(), session.reference)
        log.info("scan", scan=str(scan), state="consented")
        return scan

    def begin_scan(self, session: Session, words: Words) -> None:
        """Start the work on the session's scan, its overlays in `words`.

        After a failed try it is a fresh scan with the same consent.
        """
        if session.consent is None or session.scan is None:
            raise RecordsError("There is no consent of this session, so there is no scan.")
        if self.records.scan(session.scan).state != "consented":
            session.scan = self._new_scan(session)
        uv = self.has_uv and session.may_have_uv
        spots = self.close_ups is not None
        self.work.start(session.scan, session.consent, uv, session.progress, words, spots)

    def shred(self, scan: UUID) -> Shredded:
        """Destroy everything kept of one scan, since its patient wants that."""
        return shred(scan, self.records, self.vault, self.courier, self.outbox, by="patient")

    def keeps(self, session: Session) -> bool:
        """Whether pictures of the session's scan are kept here, so that leaving does not undo the scan."""
        scan = session.scan
        if scan is None:
            return False
        return self.records.scan(scan).state not in (states.CONSENTED, *states.GONE)

    def delivery(self, scan: UUID) -> Delivery:
        """What is known of a scan's way to the clinic."""
        return delivery(scan, self.records, self.outbox)

    def _leave(self, session: Session) -> None:
        """The patient goes: the light of the preview goes off, a scan without pictures is abandoned."""
        if session.scan is None:
            return
        if session.state is State.POSITION:
            try:
                self.camera.end(str(session.scan))
            except CaptureFault as error:
                log.warning("preview_not_ended", reason=error.code)
        try:
            self.work.leave(session.scan)
            session.told_of = session.scan if self.keeps(session) else None
        except (RecordsError, KeyringError, OSError) as error:
            log.error("abandon_failed", scan=str(session.scan), why=str(error))

    def keep_house(self, stop: threading.Event) -> None:
        """Finish what a crash interrupted, then wipe late sessions and follow the outbox until `stop`."""
        next_round = 0.0
        while not stop.is_set():
            _guarded("late_sessions", self.sessions.expire)
            next_round -= TURN_S
            if next_round <= 0:
                next_round = ROUND_S
                self.round_since = time.monotonic()
                _guarded("unfinished_scans", self.work.go_on)
                _guarded("courier", self.courier.run_once)
                self.round_since = None
            stop.wait(TURN_S)


def _guarded(task: str, work: Callable[[], object]) -> None:
    """Do one task of the house-keeping; whatever befalls it, the other tasks have their turn."""
    try:
        work()
    except (AnalysisFailed, SealerError, VaultError, RecordsError, KeyringError) as error:
        log.error("house_keeping", task=task, why=str(error))
    except Exception as error:  # noqa: BLE001  a dead thread would silently end all delivery
        log.error("house_keeping", task=task, why=fault(error))
