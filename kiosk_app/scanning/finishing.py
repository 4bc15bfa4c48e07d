"""What kept pictures still lack to a result that is on its way: measurement, sealing, the outbox."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import structlog

from hardware.capture import Capture
from hardware.host.errors import Fault
from kiosk_app.kept.keyring import KeyGone
from kiosk_app.kept.messages import Message
from kiosk_app.kept.records import Records, ScanRow
from kiosk_app.kept.records_file import RecordsError
from kiosk_app.kept.states import GONE, ScanState
from kiosk_app.kept.vault import Vault, VaultError
from kiosk_app.scanning.analyst import AnalysisOutcome
from kiosk_app.scanning.courier import Courier
from kiosk_app.scanning.progress import Progress, Stage, since
from kiosk_app.scanning.sealer import Sealer
from kiosk_app.scanning.shred import destroy
from models.analysis.words import ENGLISH, Words

log = structlog.get_logger()
DELETED = "deleted"  # the code of a scan that staff had deleted while it was worked on
CLOCK_UNSURE = "clock_unsure"  # the flag of a result: nothing vouched for the time of its pictures


class Measures(Protocol):
    """What the work needs of the analysis."""

    def measure(self, capture: Capture, scan: UUID, words: Words = ENGLISH) -> AnalysisOutcome:
        """The AnalysisOutcome for `capture`, its overlays in `words`."""
        ...


class PicturesRefused(Fault):
    """The analysis read the pictures and refused them; `code` is its reason."""


class ScanUnreadable(Fault):
    """What is kept of the scan cannot be read."""

    def __init__(self) -> None:
        super().__init__("unreadable", "What is kept of this scan cannot be read: there is no result of it.")


class ScanGone(Fault):
    """The scan was deleted meanwhile."""

    def __init__(self) -> None:
        super().__init__(DELETED, "This scan was deleted while it was worked on.")


class Finishing:
    """Measures, seals and hands over; each step is durable before the next, and one that is done is left."""

    def __init__(
        self, records: Records, vault: Vault, analyst: Measures, sealer: Sealer, courier: Courier
    ) -> None:
        self._records, self._vault = records, vault
        self._analyst, self._sealer, self._courier = analyst, sealer, courier

    def finish(self, scan: UUID, progress: Progress, words: Words) -> None:
        row = self._records.scan(scan)
        if row.state in GONE:
            raise ScanGone
        if row.state == ScanState.CAPTURED:
            progress.measure()
            self._analyse(scan, words)
        progress.stage = Stage.SEALING
        if self._records.scan(scan).state == ScanState.ANALYSED:
            began = time.monotonic()
            message = self._seal(scan)
            self._note(scan, seal=since(began))
            log.info("scan", scan=str(scan), state=ScanState.SEALED, sealed_bytes=message.size)
        began = time.monotonic()
        self._courier.run_once(scan)
        self._note(scan, submit=since(began))

    def _note(self, scan: UUID, **seconds: float) -> None:
        """Note how long a stage took. The scan is sealed or refused by now, and fails by nothing any more."""
        try:
            self._records.note(scan, seconds=seconds)
        except RecordsError as error:
            log.warning("not_noted", scan=str(scan), why=str(error))

    @contextlib.contextmanager
    def _reading(self, scan: UUID, state: ScanState) -> Iterator[None]:
        """What this reads of a scan in `state` is all that a result could be made of. Raises ScanUnreadable.

        Nothing of it is destroyed: the vault or the key file may be another one than the records belong to,
        and the right one put back. A new start tries it once more, see `ScanWork.recover`.
        """
        try:
            yield
        except (VaultError, KeyGone) as error:
            if self._records.scan(scan).state in GONE:
                raise ScanGone from error
            self._records.advance(scan, state, ScanState.UNREADABLE)
            log.error("unreadable", scan=str(scan), why=str(error))
            raise ScanUnreadable from error

    def _seal(self, scan: UUID) -> Message:
        with self._reading(scan, ScanState.ANALYSED):
            findings = self._records.findings(scan)
            reference = self._records.patient_reference(scan)
        if findings is None:
            raise RecordsError("An analysed scan has no Findings in the records.")
        row = self._records.scan(scan)
        if row.figures.get("clock_unsure"):
            findings = findings.model_copy(update={"quality": (*findings.quality, CLOCK_UNSURE)})
        facts: dict[str, Any] = {
            "scan": scan,
            "patient_reference": reference,
            "captured_at": _captured_at(row),
            "consent": row.consent,
            "findings": findings,
            "supersedes": self._records.messages.superseded(scan),
        }
        return self._records.messages.add(
            scan,
            "result",
            self._sealer.epoch,
            lambda message, sequence: self._sealer.seal_result(message, sequence, **facts),
            after=ScanState.SEALED,
        )

    def _analyse(self, scan: UUID, words: Words) -> None:
        began = time.monotonic()
        taken_at = _captured_at(self._records.scan(scan))
        with self._reading(scan, ScanState.CAPTURED):
            dek = self._records.dek(scan)
            capture = replace(self._vault.get_capture(scan, dek), captured_at=taken_at)
        outcome = self._analyst.measure(capture, scan, words)
        seconds = {"analysis": since(began)} | {f"analysis.{k}": v for k, v in outcome.seconds.items()}
        if outcome.findings is None:
            reason = outcome.refused or "no_answer"
            destroy(scan, ScanState.REFUSED, reason, self._records, self._vault)
            self._note(scan, **seconds)
            log.info("scan", scan=str(scan), state=ScanState.REFUSED, reason=reason)
            raise PicturesRefused(reason, outcome.sentence or "The analysis did not measure these pictures.")
        for name, picture in outcome.overlays.items():
            self._vault.add(scan, dek, f"overlay.{name}", picture)
        self._records.keep_findings(
            scan,
            outcome.findings,
            seconds=seconds,
            findings=len(outcome.findings.findings),
            overlays=list(outcome.overlays),
            peak_rss_mb=round(outcome.peak_rss_mb, 1),
        )
        log.info("scan", scan=str(scan), state=ScanState.ANALYSED, seconds=seconds["analysis"])


def _captured_at(row: ScanRow) -> datetime:
    """When the pictures were taken; where an earlier version did not note it, when the patient consented."""
    noted = row.figures.get("captured_at")
    return datetime.fromisoformat(noted) if noted else row.created
