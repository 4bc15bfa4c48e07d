"""The running kiosk: its parts put together, with the work that goes on behind the pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from firmware.capture.client import CaptureClient, CaptureFault
from firmware.line.stamps import ConsentStamp
from hardware.host.errors import PlainError
from kiosk_app.kept.keyring import KeyringBusy, KeyringError
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsError, RecordsHeld
from kiosk_app.kept.reserve import DiskFull
from kiosk_app.kept.states import GONE, ScanState, is_kept
from kiosk_app.kept.vault import Vault, VaultError
from kiosk_app.log import Told, why
from kiosk_app.patient.journey import Session, State
from kiosk_app.patient.sessions import Sessions
from kiosk_app.scanning.close_ups import CloseUps
from kiosk_app.scanning.courier import Courier
from kiosk_app.scanning.delivery import Delivery, delivery
from kiosk_app.scanning.scan_work import ScanWork
from kiosk_app.scanning.shred import Shredded, shred
from models.analysis.words import Words
from sync.kiosk.client import OutboxClient, OutboxUnavailable

log = structlog.get_logger()

ROUND_S = 2.0  # between two rounds of the courier
TURN_S = 1.0  # between two looks for sessions whose time is up


class NotDeleted(PlainError):
    """A deletion did not begin; what it came of says why."""


class StorageLost(PlainError):
    """No scan can be begun, for it could not be kept; what it came of says why."""


@dataclass
class KioskParts:
    """Everything the pages use. `reference()` gives the patient's pseudonymous id, None for a walk-in.

    `why_not_licensed()` is why no patient may be measured with its networks, for staff; None where they may.
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
    why_not_licensed: Callable[[], str | None]
    room_for_a_scan_mb: int = 0
    close_ups: CloseUps | None = None  # None: the board has no close-up camera, so nobody is asked
    sessions: Sessions = field(init=False)
    told: Told = field(init=False, default_factory=Told)
    shown_at: float = field(default_factory=time.monotonic)  # when a page last asked, or this began
    round_since: float | None = None  # when the present round of house-keeping began

    def __post_init__(self) -> None:
        self.sessions = Sessions(self._leave)

    def closed_because(self) -> str | None:
        """Why no new scan can be taken now (a code of `sentences.TROUBLES`), or None."""
        if (unlicensed := self.why_not_licensed()) is not None:
            if self.told.begins("licence", unlicensed):
                log.error("closed", why=unlicensed)
            return "research_only"
        self.told.over("licence")
        if (fault := self._storage_fault()) is not None:
            if self.told.begins("storage", fault):
                log.error("closed", why=fault)
            return "storage_lost"
        self.told.over("storage")
        if self.vault.free_mb() < self.room_for_a_scan_mb:
            return "no_room"
        try:
            accepting = self.outbox.status()["accepting"]
        except OutboxUnavailable:
            return None  # the records keep sealed results until the outbox is back
        return None if accepting else "outbox_full"

    def _storage_fault(self) -> str | None:
        """Why no scan can be kept, for staff; None also where another one holds what it would be kept in."""
        try:
            self.records.keyring.generations()
            self.records.knows_any()
            self.vault.free_mb()
        except RecordsHeld:
            return None
        except (KeyringError, RecordsError, VaultError) as error:
            return str(error)
        return None

    def consent(self, session: Session) -> None:
        """The patient agreed: write the consent down before anything else happens."""
        session.reference = self.reference()
        stamp = session.stamp()
        session.scan = self._new_scan(stamp, session.reference)
        session.consent = stamp  # a tap whose consent could not be written down was none

    def _new_scan(self, stamp: ConsentStamp, reference: str | None) -> UUID:
        try:
            scan = self.records.create(stamp.to_dict(), reference)
        except (KeyringBusy, RecordsHeld, DiskFull):
            raise
        except (KeyringError, RecordsError) as error:
            raise StorageLost from error
        log.info("scan", scan=str(scan), state="consented")
        return scan

    def begin_scan(self, session: Session, words: Words) -> None:
        """Start the work on the session's scan, its overlays in `words`.

        After any try it is a fresh scan with the same consent.
        """
        if session.consent is None or session.scan is None:
            raise RecordsError("There is no consent of this session, so there is no scan.")
        if not self.work.is_fresh(session.scan):
            session.scan = self._new_scan(session.consent, session.reference)
        uv = self.has_uv and session.may_have_uv
        spots = self.close_ups is not None
        self.work.start(session.scan, session.consent, uv, session.progress, words, spots)

    def shred(self, scan: UUID) -> Shredded:
        """Destroy everything kept of one scan, since its patient wants that.

        What ends half-way, and what is written at this moment, is destroyed by the house-keeping. A deletion
        that could not be begun leaves everything as it was.
        """
        try:
            return shred(scan, self.records, self.vault, self.courier.run_once, self.outbox, by="patient")
        finally:
            self.work.see_to(scan)

    def delete(self, session: Session) -> None:
        """`shred` the session's scan, if it has one. What stumbles over a scan that is gone goes on later.

        Raises NotDeleted, KeyringBusy, RecordsHeld: the scan is as it was.
        """
        if session.scan is None:
            return
        try:
            self.shred(session.scan)
        except (DiskFull, VaultError, RecordsError, KeyringError) as error:
            if self._is_known_to_be_gone(session):
                log.warning("not_deleted_at_once", scan=str(session.scan), why=str(error))
            elif isinstance(error, (KeyringBusy, RecordsHeld)):
                raise
            else:
                raise NotDeleted from error

    def _is_known_to_be_gone(self, session: Session) -> bool:
        try:
            return self.is_gone(session)
        except RecordsError:
            return False

    def keeps(self, session: Session) -> bool:
        """Whether pictures of the session's scan are kept here, so that leaving does not undo the scan."""
        scan = session.scan
        if scan is None:
            return False
        return is_kept(self.records.state(scan))

    def lets_go(self, session: Session) -> bool:
        """Whether the patient can go and nothing of the scan stays; from then on no pictures of it are kept.

        Those that are being noted as kept at this moment are waited for. Where pictures are kept nothing is
        changed: the patient may come back.
        """
        return session.scan is None or self.work.leave_unless_kept(session.scan)

    def is_gone(self, session: Session) -> bool:
        """Whether the session's scan is one of which nothing may stay: who has the right may delete it."""
        return session.scan is not None and self.records.state(session.scan) in GONE

    def is_destroyed(self, scan: UUID) -> bool:
        """Whether neither a picture nor a key is left of a scan that is gone."""
        return not self.vault.holds(scan) and len(self.records.keyring.generations()) == 1

    def is_unreadable(self, scan: UUID) -> bool:
        """Whether its pictures could not be read, so that there is no result of it."""
        return self.records.state(scan) == ScanState.UNREADABLE

    def delivery(self, scan: UUID) -> Delivery | None:
        """What is known of a scan's way to the clinic; None where nothing of it is to go there."""
        return None if self.is_unreadable(scan) else delivery(scan, self.records, self.outbox)

    def _leave(self, session: Session) -> None:
        """The patient goes: the light of the preview goes off, a scan without pictures is to be abandoned.

        This waits for no keys: whoever asks for a page meanwhile would wait too.
        """
        if session.scan is None:
            return
        if session.state is State.POSITION:
            try:
                self.camera.end(str(session.scan))
            except CaptureFault as error:
                log.warning("preview_not_ended", reason=error.code)
        self.work.leave(session.scan)
        try:
            session.told_of = session.scan if self.keeps(session) else None
        except RecordsError as error:
            log.error("not_told", scan=str(session.scan), why=str(error))

    def keep_house(self, stop: threading.Event) -> None:
        """Finish what a crash interrupted, then wipe late sessions and follow the outbox until `stop`."""
        next_round, told = 0.0, Told()
        while not stop.is_set():
            _guarded(told, "late_sessions", self.sessions.expire)
            next_round -= TURN_S
            if next_round <= 0:
                next_round = ROUND_S
                self.round_since = time.monotonic()
                _guarded(told, "unfinished_scans", self.work.go_on)
                _guarded(told, "courier", self.courier.run_once)
                self.round_since = None
            stop.wait(TURN_S)


def _guarded(told: Told, task: str, work: Callable[[], object]) -> None:
    """Do one task of the house-keeping; whatever befalls it, the other tasks have their turn."""
    try:
        work()
        told.over(task)
    except Exception as error:  # noqa: BLE001  a dead thread would silently end all delivery
        said = why(error)
        if told.begins(task, str(said)):
            log.error("house_keeping", task=task, why=said)
