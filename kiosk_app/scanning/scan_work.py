"""The work on one scan: pictures, vault, measurement, sealing; after a crash it goes on where it was."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from uuid import UUID

import structlog

from firmware.capture.client import CaptureClient, CaptureFault
from firmware.line.stamps import ConsentStamp
from hardware.host.patience import waiting_at_most
from kiosk_app.kept.keyring import KeyringBusy, KeyringError
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsError, RecordsHeld
from kiosk_app.kept.reserve import DiskFull
from kiosk_app.kept.states import GONE, UNFINISHED, ScanState, is_kept
from kiosk_app.kept.storage import unknown_scans
from kiosk_app.kept.vault import Vault, VaultError
from kiosk_app.log import Told, why
from kiosk_app.scanning.analyst import AnalysisFailed
from kiosk_app.scanning.courier import Courier
from kiosk_app.scanning.finishing import (
    DELETED,
    Finishing,
    Measures,
    PicturesRefused,
    ScanGone,
    ScanUnreadable,
)
from kiosk_app.scanning.progress import Progress, Step
from kiosk_app.scanning.sealer import Sealer, SealerError
from kiosk_app.scanning.taking import PatientLeft, Taking
from kiosk_app.scanning.to_destroy import ToDestroy
from models.analysis.words import ENGLISH, Words

log = structlog.get_logger()

# Between two tries to finish one scan, each longer: to measure one again and again would keep the processor
# from the next patient.
FIRST_AGAIN_S, LONGEST_AGAIN_S = 30.0, 600.0
ENOUGH_S = 10.0  # after which a round of finishing scans begins no other
REMAINS_S = 600.0  # between two looks for what another process left of a scan
# A patient whose scan failed waits so long for the keys; after that the house-keeping abandons it.
ABANDON_S = 1.0


class ScanWork:
    """Takes a scan from consent to the outbox. Each step is durable before the next begins."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        camera: CaptureClient,
        analyst: Measures,
        sealer: Sealer,
        courier: Courier,
        lights: Collection[str],
        knows_the_time: Callable[[], bool] = lambda: True,
    ) -> None:
        """`lights` are those that the pictures are taken under: what the measures read.

        `knows_the_time` says whether something vouches for the clock. Where nothing does, the clinic is told.
        """
        self._records, self._vault = records, vault
        self._at_work: dict[UUID, threading.Event] = {}
        self._failed: dict[UUID, tuple[int, float]] = {}  # how often, and when it is tried again
        self._to_destroy = ToDestroy(records, vault)
        self._look_at = 0.0  # when to look for remains
        self._old_key_left = False  # by the round before
        self._told = Told()
        self._lock = threading.Lock()
        self._taking = Taking(records, vault, camera, lights, self._lock, knows_the_time)
        self._finishing = Finishing(records, vault, analyst, sealer, courier)

    def start(
        self,
        scan: UUID,
        consent: ConsentStamp,
        uv: bool,
        progress: Progress,
        words: Words = ENGLISH,
        spots: bool = False,
    ) -> threading.Thread:
        """Do the whole scan in a thread of its own; `progress` tells the page how far it is.

        With `uv` the patient is asked to close the eyes once the other pictures are there, with `spots` to
        mark spots for a close-up once all are kept.
        The patient's overlays are in `words`. A scan that is finished later, without them, is in English.
        """
        thread = threading.Thread(
            target=self.do, args=(scan, consent, uv, progress, words, spots), name="scan", daemon=True
        )
        thread.start()
        return thread

    def do(
        self,
        scan: UUID,
        consent: ConsentStamp,
        uv: bool,
        progress: Progress,
        words: Words = ENGLISH,
        spots: bool = False,
    ) -> None:
        """Take the pictures of a consented scan, then finish it. Never raises for what life brings."""
        left = self._begin(scan)
        if left is None:
            progress.fail("busy")
            return
        try:
            self._do(scan, consent, uv, progress, words, left, spots)
        except Exception as error:  # noqa: BLE001  the thread ends here: a patient is never left waiting
            self._fail(scan, progress, "not_measurable", why(error))
        finally:
            self._end(scan)

    def _do(
        self,
        scan: UUID,
        consent: ConsentStamp,
        uv: bool,
        progress: Progress,
        words: Words,
        left: threading.Event,
        spots: bool,
    ) -> None:
        try:
            dek = self._taking.take(scan, consent, uv, progress, left)
            if spots:
                self._taking.take_spots(scan, dek, progress, left)
            self._finishing.finish(scan, progress, words)
            progress.state = Step.READY
        except PatientLeft:
            self._give_up(scan, None)
            progress.fail("left")
        except ScanGone as gone:
            self._give_up(scan, None)
            progress.fail(gone.code)
        except DiskFull as error:
            self._fail(scan, progress, "storage_full", str(error))
        except (CaptureFault, VaultError, RecordsError, KeyringError) as error:
            self._fail(scan, progress, getattr(error, "code", "storage"), str(error))
        except AnalysisFailed as error:
            progress.fail("analysis_failed")
            log.error("analysis_failed", scan=str(scan), why=str(error))
        except SealerError as error:
            # The measurements are kept; they are sealed after staff have mended the keys.
            progress.state = Step.READY
            log.error("seal_failed", scan=str(scan), why=str(error))
        except (PicturesRefused, ScanUnreadable) as error:
            progress.fail(error.code)

    def leave(self, scan: UUID) -> None:
        """The patient went away: a scan without kept pictures is abandoned, any other goes on.

        This only notes it; the scan's own thread or the next `go_on` does it. While its pictures are being
        noted as kept this waits until they are: see `Taking.take`.
        """
        with self._lock:
            self._leave(scan)

    def leave_unless_kept(self, scan: UUID) -> bool:
        """`leave`, where no pictures of the scan are kept; whether it is so. Where they are, all goes on."""
        with self._lock:
            if is_kept(self._records.state(scan)):
                return False
            self._leave(scan)
            return True

    def _leave(self, scan: UUID) -> None:
        left = self._at_work.get(scan)
        if left is not None:
            left.set()
        else:
            self._to_destroy.note(scan)

    def see_to(self, scan: UUID) -> None:
        """Let `go_on` destroy what is left of a scan that is gone by then, or is being written still."""
        self._to_destroy.note(scan)

    def is_fresh(self, scan: UUID) -> bool:
        """Whether a consented scan has had no try: each try has a scan of its own."""
        with self._lock:
            had_one = scan in self._at_work or scan in self._to_destroy
        return not had_one and self._records.state(scan) == ScanState.CONSENTED

    def recover(self) -> None:
        """After a start: finish what was begun, abandon what has no pictures, sweep what a crash left.

        Scans in the vault that the records do not know stay as they are, and are named to staff.

        Where keys or records do not allow it now, `go_on` does.
        """
        for scan in self._records.states(ScanState.CONSENTED):
            self._to_destroy.note(scan)
        try:
            self._alone("still_unreadable", self._try_unreadable)  # which `go_on` does not, and needs no keys
            self._destroy_what_is_due()
        except (KeyringBusy, RecordsHeld) as error:
            log.error("not_recovered", why=str(error))
        swept = self._vault.sweep(self._records.states(*GONE).keys())
        log.info("recovered", unfinished=len(self._records.states(*UNFINISHED)), swept=swept)
        unknown = unknown_scans(self._records, self._vault)
        if unknown:
            log.warning("scans_unknown", scans=[str(scan) for scan in unknown])

    def _try_unreadable(self) -> None:
        """Let `go_on` measure what could not be read once more: the cause may be mended by now."""
        for scan in self._records.states(ScanState.UNREADABLE):
            self._alone("still_unreadable", self._try_again, scan)

    def _try_again(self, scan: UUID) -> None:
        self._records.advance(scan, ScanState.UNREADABLE, ScanState.CAPTURED)

    def _destroy_what_is_due(self) -> None:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + FIRST_AGAIN_S
            if self._alone("remains_left", self._look_for_remains):
                self._look_at = time.monotonic() + REMAINS_S
        enough = time.monotonic() + ENOUGH_S
        for scan in self._to_destroy.scans():
            if self._begin(scan) is None:
                continue  # its own thread is not done with it
            try:
                self._alone("abandon_failed", self._to_destroy.destroy, scan)
            finally:
                self._end(scan)
            if time.monotonic() >= enough:
                break
        self._alone("old_key_left", self._end_old_key)

    def _end_old_key(self) -> None:
        """Whoever uses the records while a scan is deleted leaves its old key, as a crash does.

        Told where two rounds in a row cannot end it: one may have met whoever uses them for a moment.
        """
        left_before, self._old_key_left = self._old_key_left, not self._records.finish_rewrap()
        if not self._old_key_left:
            self._told.over("old_key_left")
        elif left_before and self._told.begins("old_key_left"):
            log.warning("old_key_left")

    def _look_for_remains(self) -> None:
        """Of scans that are gone: a failed deletion, or a command that was ended, leaves pictures."""
        for scan in self._records.states(*GONE):
            if self._vault.holds(scan):
                self._to_destroy.note(scan)
        self._vault.reserve.fill()

    def _alone(self, event: str, step: Callable[..., object], *scan: UUID) -> bool:
        """Take one step of a round, about one scan or none; whether it came to its end.

        It fails for itself, told by `event` when that begins. Only what each other step would wait for anew
        ends the round.
        """
        try:
            step(*scan)
        except Exception as error:
            if isinstance(error, (KeyringBusy, RecordsHeld)):
                raise
            said = why(error)  # it has its turn again
            if self._told.begins((event, *scan), str(said)):
                about = {"scan": str(scan[0])} if scan else {}
                log.error(event, why=said, **about)
            return False
        self._told.over((event, *scan))
        return True

    def go_on(self) -> int:
        """Try once more what is captured or analysed and nobody is working on; how many were finished.

        First what is left behind is destroyed. After ENOUGH_S of either no other scan is begun: what else the
        house-keeping does has its turn, and so has the watchdog. Where another process holds the keys or the
        records the round ends, and counts as no try: each other scan would wait for them anew.
        """
        finished = 0
        try:
            self._destroy_what_is_due()
            enough = time.monotonic() + ENOUGH_S
            scans = self._records.states(ScanState.CAPTURED, ScanState.ANALYSED)
            for scan in self._failed.keys() - scans.keys():
                del self._failed[scan]
                self._told.over(("not_finished", scan))
            for scan in scans:
                _, due = self._failed.get(scan, (0, 0.0))
                if time.monotonic() < due or self._begin(scan) is None:
                    continue
                finished += self._go_on_with(scan)
                if time.monotonic() >= enough:
                    break
            self._told.over("round")
        except (KeyringBusy, RecordsHeld) as error:
            if self._told.begins("round", str(error)):
                log.error("round_ended", why=str(error))
        return finished

    def _go_on_with(self, scan: UUID) -> bool:
        done = False
        try:
            done = self._alone("not_finished", self._finish_later, scan)
            if not done:
                failures = self._failed.get(scan, (0, 0.0))[0] + 1
                wait_s = min(LONGEST_AGAIN_S, FIRST_AGAIN_S * 2.0 ** min(failures - 1, 16))
                self._failed[scan] = failures, time.monotonic() + wait_s
        finally:
            if not done:
                self.see_to(scan)  # it may have been refused, and be gone in part
            self._end(scan)
        return done

    def _finish_later(self, scan: UUID) -> None:
        self._records.note(scan)  # a measurement that could not be kept afterwards is not begun
        with contextlib.suppress(PicturesRefused, ScanGone, ScanUnreadable):
            self._finishing.finish(scan, Progress(), ENGLISH)

    def _begin(self, scan: UUID) -> threading.Event | None:
        """Take a scan to work on; the event says that its patient has left. None while it is at work."""
        with self._lock:
            if scan in self._at_work:
                return None
            left = self._at_work[scan] = threading.Event()
            if scan in self._to_destroy:
                left.set()
            return left

    def _end(self, scan: UUID) -> None:
        with self._lock:
            self._at_work.pop(scan, None)

    def _give_up(self, scan: UUID, reason: str | None) -> None:
        """Abandon a scan that has ended, now where that can be done soon, else in the next `go_on`."""
        self._to_destroy.note(scan, reason)
        try:
            with waiting_at_most(ABANDON_S):
                self._to_destroy.destroy(scan)
        except Exception as error:  # noqa: BLE001  it stays left behind; recover() does it after a new start
            log.error("abandon_failed", scan=str(scan), why=why(error))

    def _fail(self, scan: UUID, progress: Progress, reason: str, said: str | list[str]) -> None:
        """Without kept pictures the scan is abandoned with the reason, and its key is destroyed.

        With them it stays as it is: what is missing to its result is done again later. One that was refused
        is said to be that, whatever failed after it. Where the records do not say which it is, the patient is
        told neither.
        """
        log.error("scan_failed", scan=str(scan), reason=reason, why=said)
        self._give_up(scan, reason)
        try:
            row = self._records.scan(scan)
        except Exception as error:  # noqa: BLE001  a patient is never left waiting
            log.error("state_unknown", scan=str(scan), why=why(error))
            progress.fail("state_unknown")
            return
        if row.state == ScanState.SHREDDED:
            progress.fail(DELETED)
        elif row.state == ScanState.REFUSED:
            progress.fail(row.reason or reason)
        elif row.state in (ScanState.CONSENTED, *GONE):
            progress.fail(reason)
        elif row.state in (ScanState.CAPTURED, ScanState.ANALYSED):
            progress.fail("analysis_failed")
        else:
            progress.state = Step.READY
