"""Phases: the pictures of one visit, those with the eyes open first, the UV one with the eyes closed last."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

import structlog

from firmware.capture.client import CaptureFault
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.capture import Capture

log = structlog.get_logger()

UV = "uv365"
ASKS = 3  # so often a patient is asked to close the eyes; then the scan goes on without UV
# What the look at the eyes right before UV says when they are not seen closed, and a word that came too late.
# No UV was lit then, so asking once more costs no dose.
ASK_AGAIN = frozenset(("eyes_open", "no_face", "two_faces", "eyes_not_confirmed"))

Ask = Callable[[str | None], UvAllowance | None]
OnProgress = Callable[[str, int, int], None]


class TakesPhases(Protocol):
    """What is needed of `firmware.capture.client.CaptureClient`."""

    def capture(
        self,
        session: str,
        consent: ConsentStamp,
        lights: Collection[str],
        uv: UvAllowance | None,
        on_progress: OnProgress | None = None,
        phase: str = "all",
    ) -> Capture: ...


def take_pictures(
    camera: TakesPhases,
    session: str,
    consent: ConsentStamp,
    lights: Collection[str],
    ask: Ask | None,
    on_progress: OnProgress,
) -> Capture:
    """One Capture under `lights`: the phase "lit", then the phase "uv" if the patient has closed the eyes.

    `ask(why)` asks the patient to close them and returns their word, given just now, or None for a scan
    without UV; `why` is a code of ASK_AGAIN from the second time on. Without `ask` this visit has no UV.
    Raises CaptureFault where the lit pictures fail. Whatever the UV phase meets after that, a camera that is
    gone included, the Capture is whole and `missing` says why it has no UV. Until it is returned it is in
    this process's memory only: if `ask` raises, or the power fails at the question, there is no scan.
    """
    if ask is None:
        return camera.capture(session, consent, lights, None, on_progress)
    lit = camera.capture(session, consent, lights, None, on_progress, phase="lit")
    why: str | None = None
    for _ in range(ASKS):
        allowance = ask(why)
        if allowance is None:
            why = "skipped"
            break
        try:
            under_uv = camera.capture(session, consent, lights, allowance, on_progress, phase="uv")
            joined = lit.joined(under_uv)
        except CaptureFault as fault:
            log.warning("uv_left_out", scan=session, reason=fault.code, why=str(fault))
            why = fault.code
            break
        why = joined.missing.get(UV)
        if why is None:
            return joined
        if why not in ASK_AGAIN:
            break
    return replace(lit, missing={**lit.missing, UV: why or "skipped"})
