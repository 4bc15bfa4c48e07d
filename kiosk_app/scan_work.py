"""The work on one scan: pictures, vault, measurement, sealing; after a crash it goes on where it was."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any, Protocol
from uuid import UUID

import structlog

from firmware.capture_client import CaptureClient, CaptureFault
from firmware.stamps import ConsentStamp, UvAllowance
from hardware.capture import Capture
from kiosk_app import records as states
from kiosk_app.analyst import AnalysisFailed, Outcome
from kiosk_app.courier import Courier
from kiosk_app.journey import Progress
from kiosk_app.keyring import KeyringError
from kiosk_app.log import fault
from kiosk_app.phases import UV, take_pictures
from kiosk_app.records import Records, RecordsError
from kiosk_app.sealer import Sealer, SealerError
from kiosk_app.vault import Vault, VaultError, VaultFull
from models.analysis.words import ENGLISH, Words

log = structlog.get_logger()

TRIES = 3  # for one Capture in one run of the application
# The page of the question wipes a silent session long before, even where it was extended ten times.
ASK_S = 1200.0
LOOK_S = 0.1  # between two looks whether the patient has gone away


class Measures(Protocol):
    """What the work needs of the analysis."""

    def measure(self, capture: Capture, scan: UUID, words: Words = ENGLISH) -> Outcome:
        """The Outcome for `capture`, its overlays in `words`."""
        ...


class _Left(Exception):
    """The patient went away before the pictures were kept."""


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
    ) -> None:
        """`lights` are those that the pictures are taken under: what the measures read."""
        self._records, self._vault, self._camera, self._lights = records, vault, camera, lights
        self._analyst, self._sealer, self._courier = analyst, sealer, courier
        self._at_work: dict[UUID, threading.Event] = {}
        self._tries: dict[UUID, int] = {}
        self._lock = threading.Lock()

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
            return
        try:
            self._do(scan, consent, uv, progress, words, left, spots)
        except Exception as error:  # noqa: BLE001  the thread ends here: a patient is never left waiting
            self._fail(scan, progress, "not_measurable", fault(error))
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
            self._capture(scan, consent, uv, progress, left)
            if spots:
                self._take_spots(scan, progress, left)
            self._finish(scan, progress, words)
            progress.state = "ready"
        except _Left:
            self._records.forget(scan, states.ABANDONED)
            self._vault.destroy(scan)
            progress.fail("left")
        except (CaptureFault, VaultError, RecordsError, KeyringError) as error:
            code = "storage_full" if isinstance(error, VaultFull) else getattr(error, "code", "storage")
            self._fail(scan, progress, code, str(error))
        except AnalysisFailed as error:
            progress.fail("analysis_failed")
            log.error("analysis_failed", scan=str(scan), why=str(error))
        except SealerError as error:
            # The measurements are kept; they are sealed after staff have mended the keys.
            progress.state = "ready"
            log.error("seal_failed", scan=str(scan), why=str(error))
        except _Refused as refusal:
            progress.fail(str(refusal))

    def leave(self, scan: UUID) -> None:
        """The patient went away: a scan without kept pictures is abandoned, any other goes on."""
        with self._lock:
            left = self._at_work.get(scan)
            if left is not None:
                left.set()
        if left is None and self._records.scan(scan).state == states.CONSENTED:
            self._records.forget(scan, states.ABANDONED)

    def recover(self) -> None:
        """After a start: finish what was begun, abandon what has no pictures, sweep what a crash left."""
        self._records.finish_rewrap()
        for row in self._records.scans(states.CONSENTED):
            self._records.forget(row.id, states.ABANDONED)
        kept = {row.id for row in self._records.scans() if row.state not in states.GONE}
        swept = self._vault.sweep(kept)
        log.info("recovered", unfinished=len(self._records.scans(*states.UNFINISHED)), swept=swept)

    def go_on(self) -> int:
        """Try once more what is captured or analysed and nobody is working on; how many were finished."""
        finished = 0
        for row in self._records.scans(states.CAPTURED, states.ANALYSED):
            tries = self._tries.get(row.id, 0)
            if tries >= TRIES or self._begin(row.id) is None:
                continue
            self._tries[row.id] = tries + 1
            try:
                self._finish(row.id, Progress(), ENGLISH)
                finished += 1
            except (AnalysisFailed, SealerError, VaultError, RecordsError, KeyringError) as error:
                log.error("not_finished", scan=str(row.id), why=str(error))
            except _Refused:
                finished += 1
            except Exception as error:  # noqa: BLE001  one scan never keeps the others from their turn
                log.error("not_finished", scan=str(row.id), why=fault(error))
            finally:
                self._end(row.id)
        return finished

    def _begin(self, scan: UUID) -> threading.Event | None:
        with self._lock:
            if scan in self._at_work:
                return None
            self._at_work[scan] = threading.Event()
            return self._at_work[scan]

    def _end(self, scan: UUID) -> None:
        with self._lock:
            self._at_work.pop(scan, None)

    def _fail(self, scan: UUID, progress: Progress, reason: str, why: str | list[str]) -> None:
        """Without kept pictures the scan is abandoned with the reason, and its key is destroyed.

        With them it stays as it is, and is measured again.
        """
        log.error("scan_failed", scan=str(scan), reason=reason, why=why)
        try:
            if self._records.scan(scan).state == states.CONSENTED:
                self._records.forget(scan, states.ABANDONED, reason)
            else:
                reason = "analysis_failed"
        except Exception as problem:  # noqa: BLE001  the page is told below, whatever this is
            # A full disk refuses this too; recover() abandons the scan after the next start.
            log.error("abandon_failed", scan=str(scan), why=fault(problem))
        progress.fail(reason)

    def _capture(
        self,
        scan: UUID,
        consent: ConsentStamp,
        uv: bool,
        progress: Progress,
        left: threading.Event,
    ) -> None:
        def on_progress(light: str, done: int, of: int) -> None:
            if left.is_set():
                raise _Left
            stage = {UV: "uv", "done": progress.stage}.get(light, "pictures")
            progress.stage, progress.done, progress.of = stage, done, of

        waited = 0.0

        def ask(why: str | None) -> UvAllowance | None:
            nonlocal waited
            asked = time.monotonic()
            try:
                return self._ask(progress, why, left)
            finally:
                waited += time.monotonic() - asked

        began = time.monotonic()
        asks = ask if uv else None
        capture = take_pictures(self._camera, str(scan), consent, self._lights, asks, on_progress)
        taken, taken_at = time.monotonic(), datetime.now(timezone.utc)
        if left.is_set():
            raise _Left
        progress.stage, progress.done, progress.of = "keeping", 0, 0
        size = self._vault.put_capture(scan, self._records.dek(scan), capture)
        seconds = {"capture": _since(began, taken - waited), "vault": _since(taken)}
        facts = {
            "frames": len(capture.frames),
            "missing": dict(capture.missing),
            "vault_bytes": size,
            "captured_at": taken_at.isoformat(),
        }
        with self._lock:  # who has left by now was not told that anything is kept
            if left.is_set():
                raise _Left
            self._records.advance(scan, states.CONSENTED, states.CAPTURED, seconds=seconds, **facts)
        taken_under_uv = capture.frame(UV) is not None
        log.info("scan", scan=str(scan), state=states.CAPTURED, frames=len(capture.frames), uv=taken_under_uv)

    def _ask(self, progress: Progress, why: str | None, left: threading.Event) -> UvAllowance | None:
        """The patient's word about the eyes; None where they do without UV. Raises _Left."""
        progress.ask(why)
        deadline = time.monotonic() + ASK_S
        while not left.is_set():
            with contextlib.suppress(queue.Empty):
                return progress.answers.get(timeout=LOOK_S)
            if time.monotonic() > deadline:
                progress.answer(None)
        raise _Left

    def _take_spots(self, scan: UUID, progress: Progress, left: threading.Event) -> None:
        """Wait until the patient has marked the last spot or gone away, and keep what was taken until then.

        The pictures of the face are kept already: whatever happens here, they are a whole scan.
        """
        progress.mark()
        deadline = time.monotonic() + ASK_S
        while not progress.marking.over.wait(LOOK_S) and not left.is_set():
            if time.monotonic() > deadline:
                break
        progress.marked()
        taken = progress.marking.marked
        if not taken:
            return
        try:
            size = self._vault.add_close_ups(scan, self._records.dek(scan), taken)
        except VaultError as error:
            log.error("close_ups_not_kept", scan=str(scan), why=str(error))
            return
        pictures = sum(frame is not None for _, frame in taken)
        self._records.note(scan, close_ups=pictures, close_up_bytes=size)
        log.info("scan", scan=str(scan), state="close_ups_kept", close_ups=pictures, marked=len(taken))

    def _finish(self, scan: UUID, progress: Progress, words: Words) -> None:
        row = self._records.scan(scan)
        if row.state == states.CAPTURED:
            progress.stage = "measuring"
            self._analyse(scan, words)
        progress.stage = "sealing"
        if self._records.scan(scan).state == states.ANALYSED:
            began = time.monotonic()
            message = self._seal(scan)
            self._records.note(scan, seconds={"seal": _since(began)})
            log.info("scan", scan=str(scan), state=states.SEALED, sealed_bytes=message.size)
        began = time.monotonic()
        self._courier.run_once()
        self._records.note(scan, seconds={"submit": _since(began)})

    def _seal(self, scan: UUID) -> states.Message:
        findings = self._records.findings(scan)
        if findings is None:
            raise RecordsError("An analysed scan has no Findings in the records.")
        row = self._records.scan(scan)
        taken_at = row.figures.get("captured_at")
        facts: dict[str, Any] = {
            "scan": scan,
            "patient_reference": self._records.patient_reference(scan),
            # An earlier version did not note it.
            "captured_at": datetime.fromisoformat(taken_at) if taken_at else row.created,
            "consent": row.consent,
            "findings": findings,
            "supersedes": self._records.superseded(scan),
        }
        return self._records.add_message(
            scan,
            "result",
            self._sealer.epoch,
            lambda message, sequence: self._sealer.seal_result(message, sequence, **facts),
            after=states.SEALED,
        )

    def _analyse(self, scan: UUID, words: Words) -> None:
        dek = self._records.dek(scan)
        began = time.monotonic()
        outcome = self._analyst.measure(self._vault.get_capture(scan, dek), scan, words)
        seconds = {"analysis": _since(began)} | {f"analysis.{k}": v for k, v in outcome.seconds.items()}
        if outcome.findings is None:
            reason = outcome.refused or "no_answer"
            self._records.note(scan, seconds=seconds)
            self._records.forget(scan, states.REFUSED, reason)
            self._vault.destroy(scan)
            log.info("scan", scan=str(scan), state=states.REFUSED, reason=reason)
            raise _Refused(reason)
        for name, picture in outcome.overlays.items():
            self._vault.add(scan, dek, f"overlay.{name}", picture)
        self._records.keep_findings(
            scan,
            outcome.findings,
            seconds=seconds,
            findings=len(outcome.findings["findings"]),
            overlays=list(outcome.overlays),
            peak_rss_mb=round(outcome.peak_rss_mb, 1),
        )
        log.info("scan", scan=str(scan), state=states.ANALYSED, seconds=seconds["analysis"])


class _Refused(Exception):
    """The analysis read the pictures and refused them; str() is the reason's code."""


def _since(began: float, ended: float | None = None) -> float:
    return round((time.monotonic() if ended is None else ended) - began, 3)
