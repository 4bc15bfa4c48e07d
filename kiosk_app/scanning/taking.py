"""The pictures of one scan, taken and kept before the next step begins; then those of the patient's spots."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from uuid import UUID

import structlog

from firmware.capture.client import CaptureClient
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.capture import Frame, Spot
from kiosk_app.kept.records import Records
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.vault import Vault, VaultError
from kiosk_app.scanning.close_ups import NOT_KEPT, Marked, without_picture
from kiosk_app.scanning.phases import UV, take_pictures
from kiosk_app.scanning.progress import Progress, Stage, since

log = structlog.get_logger()

# The page of the question wipes a silent session long before, even where it was extended ten times.
ASK_S = 1200.0
LOOK_S = 0.1  # between two looks whether the patient has gone away


class PatientLeft(Exception):
    """The patient went away before the pictures were kept."""


class Taking:
    """Has the pictures of a consented scan taken, and keeps them in the vault."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        camera: CaptureClient,
        lights: Collection[str],
        keeping: threading.Lock,
        knows_the_time: Callable[[], bool],
    ) -> None:
        """`lights` are those that the pictures are taken under; `keeping` is held while it is noted that they
        are kept. `knows_the_time` says whether something vouches for the clock."""
        self._records, self._vault, self._camera, self._lights = records, vault, camera, lights
        self._keeping, self._knows_the_time = keeping, knows_the_time

    def take(
        self,
        scan: UUID,
        consent: ConsentStamp,
        uv: bool,
        progress: Progress,
        left: threading.Event,
    ) -> bytes:
        """Take the pictures and keep them; the key under which they are. Raises PatientLeft."""
        if left.is_set():
            raise PatientLeft

        def on_progress(light: str, done: int, of: int) -> None:
            if left.is_set():
                raise PatientLeft
            stage = {UV: Stage.UV, "done": progress.stage}.get(light, Stage.PICTURES)
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
            raise PatientLeft
        progress.stage, progress.done, progress.of = Stage.KEEPING, 0, 0
        dek = self._records.dek(scan)
        size = self._vault.put_capture(scan, dek, capture)
        seconds = {"capture": since(began, taken - waited), "vault": since(taken)}
        facts = {
            "frames": len(capture.frames),
            "missing": dict(capture.missing),
            "vault_bytes": size,
            "captured_at": taken_at.isoformat(),
            "clock_unsure": not self._knows_the_time(),
        }
        # Who has left by now was not told that anything is kept. Who leaves during the write waits for it, as
        # does each beginning and end of another scan: up to LOCKED_S of the file of the records.
        with self._keeping:
            if left.is_set():
                raise PatientLeft
            self._records.advance(scan, ScanState.CONSENTED, ScanState.CAPTURED, seconds=seconds, **facts)
        taken_under_uv = capture.frame(UV) is not None
        log.info(
            "scan", scan=str(scan), state=ScanState.CAPTURED, frames=len(capture.frames), uv=taken_under_uv
        )
        return dek

    def _ask(self, progress: Progress, why: str | None, left: threading.Event) -> UvAllowance | None:
        """The patient's word about the eyes; None where they do without UV. Raises PatientLeft."""
        progress.ask(why)
        deadline = time.monotonic() + ASK_S
        while not left.is_set():
            with contextlib.suppress(queue.Empty):
                return progress.answers.get(timeout=LOOK_S)
            if time.monotonic() > deadline:
                progress.answer(None)
        raise PatientLeft

    def take_spots(self, scan: UUID, dek: bytes, progress: Progress, left: threading.Event) -> None:
        """Wait until the patient has marked the last spot or gone away, and keep what was taken until then.

        The pictures of the face are kept already: whatever happens here, they are a whole scan. With their
        key at hand, close-ups are kept also while another process holds the keys.
        """
        progress.mark()
        deadline = time.monotonic() + ASK_S
        while not progress.marking.over.wait(LOOK_S) and not left.is_set():
            if time.monotonic() > deadline:
                break
        progress.marked()
        marked = progress.marking.marked
        if not marked:
            return
        try:
            kept, size = self._keep_spots(scan, dek, marked)
        except VaultError as error:
            log.error("spots_not_kept", scan=str(scan), marked=len(marked), why=str(error))
            return
        pictures = sum(frame is not None for _, frame in kept)
        self._records.note(scan, close_ups=pictures, close_up_bytes=size)
        log.info("scan", scan=str(scan), state="close_ups_kept", close_ups=pictures, marked=len(kept))

    def _keep_spots(self, scan: UUID, dek: bytes, marked: Marked) -> tuple[Marked, int]:
        """What could be kept of the spots, and its size: a picture that cannot be kept costs no other."""
        kept: list[tuple[Spot, Frame | None]] = []
        size = 0
        for number, (spot, frame) in enumerate(marked):
            try:
                size += 0 if frame is None else self._vault.add_close_up(scan, dek, number, frame)
                kept.append((spot, frame))
            except VaultError as error:
                log.error("close_up_not_kept", scan=str(scan), number=number, why=str(error))
                kept.append(without_picture(spot, NOT_KEPT))
        return tuple(kept), size + self._vault.add_spots(scan, dek, kept)
