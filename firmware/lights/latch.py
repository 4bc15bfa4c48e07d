"""FaultLatch: the fault that keeps the lights locked until staff clears it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from firmware.lights.doses import (
    FAULT_UNKNOWN,
    LAMP_NEW,
    LEDGER_NEW,
    UV_ONLY,
    DoseRefused,
    Ledger,
    Moment,
)

_STUCK = "shade the photodiode from daylight, and look for a lamp, a driver or a sensor that is stuck"
# For staff: what each fault says, and what to do. Then it is cleared by 'dermakiosk lights clear'.
FAULT_WORDS = {
    "light_after_off": f"UV was seen 50 ms after it was put out: {_STUCK}",
    "light_unasked": f"UV was seen that nobody had asked for: {_STUCK}",
    "uv_overran": "a UV pulse was longer than it may be, for this computer was held up: see what"
    " else runs on it",
    "pin_failed": "a light pin could not be switched: look at the board and its GPIO driver",
    "uv_unseen": "photodiode or current sense did not see a UV pulse: look at lamp, sensors and wires",
    "dark_unseen": "photodiode or current sense did not answer after a UV pulse: look at it and its wires",
    LAMP_NEW: "the UV lamp is new: measure it and write that into the board profile",
    LEDGER_NEW: "the dose ledger was lost, or is an older copy or damaged, and with it the doses of the last"
    " 24 h: clear this, and UV comes back 24 h later",
    FAULT_UNKNOWN: "the dose ledger (doses.sqlite) was lost, is an older copy or damaged, or cannot be read,"
    " and with it any fault that was latched: see to its disk, and that no lamp stays on",
}
_OF_A_CHECK = {
    **{fault: FAULT_WORDS[fault] for fault in ("light_after_off", "pin_failed", "uv_unseen", "dark_unseen")},
    "shroud_open": "the shroud was open: close it",
    "lamp_hot": "the UV lamp grew too hot: let it cool down",
    "sense_failed": "the shroud's switches or the lamp's thermometer could not be read: look at their wires",
    "interrupted": "another program put the lights out, or this computer was too busy to see the lamp: see"
    " what else runs on it",
    "ledger_failed": "what it found could not be written down: look at the disk",
}
# The same of a light check that failed, as sentences: the fault that it found, or what ended it.
CHECK_WORDS = {why: f"{words[0].upper()}{words[1:]}, then try again" for why, words in _OF_A_CHECK.items()}


class FaultLatch:
    """Holds at most one fault, in memory and in the ledger, so that it outlives this process: FAULT_UNKNOWN
    until the ledger was read.

    `on_fault(fault)` is called for every fault, and with the ledger's code when the ledger fails.
    """

    def __init__(self, ledger: Ledger, moment: Callable[[], Moment], on_fault: Callable[[str], None]) -> None:
        self._ledger, self._moment, self._on_fault = ledger, moment, on_fault
        self.fault: str | None = FAULT_UNKNOWN
        self._unwritten = False
        self._unread: str | None = None
        try:
            self.read()
        except DoseRefused as refused:
            self._on_fault(refused.code)

    @property
    def locks_all(self) -> bool:
        """Whether every light is locked, not UV alone."""
        return self.fault is not None and self.fault not in UV_ONLY

    @property
    def why_unknown(self) -> str | None:
        """Why the ledger cannot say which fault there is: until it can there is nothing to clear."""
        return self._unread if self.fault == FAULT_UNKNOWN else None

    def read(self) -> None:
        """Take over what the ledger has latched: an earlier process did it, or the ledger is a new one.

        Raises DoseRefused. To go on after that is not safe: the next call may find a new ledger.
        """
        try:
            kept = self._ledger.latched()
        except DoseRefused as refused:
            self._unread = str(refused)
            raise
        self._unread = None
        if self.fault == FAULT_UNKNOWN or (kept is not None and not self.locks_all):
            self.fault = kept

    def set(self, fault: str) -> bool:
        """Latch `fault`, for `write` to keep; False when what is latched already locks as much."""
        # One that is known says more than one that is not.
        locks_as_much = self.locks_all and self.fault != FAULT_UNKNOWN
        if locks_as_much or (self.fault is not None and fault in UV_ONLY):
            return False
        self.fault = fault
        self._unwritten = True
        self._on_fault(fault)
        return True

    def write(self) -> None:
        """Write down what is latched and was not written yet.

        Where that fails it stays latched in memory, and a ledger that cannot be written allows no UV.
        """
        try:
            self.keep()
        except DoseRefused as refused:
            self._on_fault(refused.code)

    def try_again(self) -> None:
        """Read what could not be read, write what could not be written; that it fails was said then."""
        with contextlib.suppress(DoseRefused):
            if self.fault == FAULT_UNKNOWN:
                self.read()
            self.keep()

    def keep(self) -> None:
        """`write`, where nothing may go on without it. Raises DoseRefused."""
        if self._unwritten and self.fault is not None:
            self._ledger.latch(self.fault, self._moment())
            self._unwritten = False

    def clear(self, staff: str, only: str | None = None) -> None:
        """Staff, by name, has seen to it, or to `only` that fault. Raises DoseRefused, and stays latched,
        when that is not kept.
        """
        self.keep()
        self._ledger.clear(staff, self._moment(), only)
        self.fault = self._ledger.latched()
