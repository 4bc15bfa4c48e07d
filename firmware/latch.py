"""FaultLatch: the fault that keeps the lights locked until staff clears it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from firmware.doses import LAMP_NEW, DoseRefused, Ledger, Moment

# With these, UV alone is locked: white light needs neither the lamp nor the photodiode.
UV_ONLY = frozenset({"uv_unseen", "dark_unseen", LAMP_NEW})


class FaultLatch:
    """Holds at most one fault, in memory and in the ledger, so that it outlives this process.

    `on_fault(fault)` is called for every fault, and with the ledger's code when the ledger fails.
    """

    def __init__(self, ledger: Ledger, moment: Callable[[], Moment], on_fault: Callable[[str], None]) -> None:
        self._ledger, self._moment, self._on_fault = ledger, moment, on_fault
        self.fault: str | None = None
        self._read = False
        self._unwritten = False
        self.read()

    @property
    def locks_all(self) -> bool:
        """Whether every light is locked, not UV alone."""
        return self.fault is not None and self.fault not in UV_ONLY

    def read(self) -> None:
        """Take over what an earlier process latched, once the ledger can be read."""
        if self._read:
            return
        try:
            kept = self._ledger.latched()
        except DoseRefused as refused:
            # Without a ledger there is no UV; white light needs none.
            self._on_fault(refused.code)
            return
        self._read = True
        if kept is not None and not self.locks_all:
            self.fault = kept

    def set(self, fault: str) -> bool:
        """Latch `fault`, for `write` to keep; False when what is latched already locks as much."""
        if self.locks_all or (self.fault is not None and fault in UV_ONLY):
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
            self._write()
        except DoseRefused as refused:
            self._on_fault(refused.code)

    def write_again(self) -> None:
        """The same, for what could not be written when it happened; that it fails was said then."""
        with contextlib.suppress(DoseRefused):
            self._write()

    def _write(self) -> None:
        if self._unwritten and self.fault is not None:
            self._ledger.latch(self.fault, self._moment())
            self._unwritten = False

    def clear(self, staff: str) -> None:
        """Staff, by name, has seen to it. Raises DoseRefused, and stays latched, when that is not kept."""
        self._write()
        self._ledger.clear(staff)
        self.fault, self._unwritten = None, False
