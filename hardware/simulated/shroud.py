"""The simulated shroud: closed, unless its board says otherwise or the patient opens it."""

from __future__ import annotations

from pathlib import Path

from hardware.board import Board
from hardware.simulated.pins import PinReader


class SimulatedShroud:
    """The shroud of `board`, opened by the patient at a moment that the pins on `reader`'s page tell.

    Staff hold it open for as long as there is a file at `held_open`. Every process of a simulated kiosk has
    one of its own, and all of them agree.
    """

    def __init__(self, board: Board, reader: PinReader, held_open: Path | None = None) -> None:
        self._simulation, self._reader, self._held_open = board.simulation, reader, held_open
        self._opened_ns: int | None = None

    def closed(self, at_ns: int) -> tuple[bool, bool]:
        """What the two switches say at `at_ns` (monotonic); a welded one says closed."""
        if self._held_open is not None and self._held_open.exists():
            return self._simulation.welded_switches
        if self._opened_ns is None:
            self._opened_ns = self._opening_ns()
        if self._opened_ns is not None:
            open_s = (at_ns - self._opened_ns) / 1e9
            if 0 <= open_s < self._simulation.patient_opens_shroud_s:
                return (False, False)
        return self._simulation.shroud_closed

    def _opening_ns(self) -> int | None:
        moment = self._simulation.patient_opens_shroud_at
        if moment is None:
            return None
        rise_ns = self._reader.rise_ns(moment.light, moment.nth)
        return None if rise_ns is None else rise_ns + round(moment.after_s * 1e9)
