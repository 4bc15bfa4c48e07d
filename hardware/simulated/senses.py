"""What the light daemon's own sensors would read in a simulated kiosk: shroud, lamp temperature, UV light."""

from __future__ import annotations

import time
from pathlib import Path

from hardware.board import Board
from hardware.simulated.pins import PinReader


class SimulatedSenses:
    """Senses of `board` over the pin page at `page`: the photodiode sees what the pins and faults light."""

    def __init__(self, board: Board, page: Path) -> None:
        self._simulation = board.simulation
        self._uv = [name for name, light in board.lights.items() if light.is_uv]
        self._reader = light_reader(board, page)

    def shroud_closed(self) -> tuple[bool, bool]:
        return self._simulation.shroud_closed

    def lamp_temperature_c(self) -> float:
        return self._simulation.lamp_temperature_c

    def uv_seen(self) -> bool:
        now = time.monotonic_ns()
        levels = self._reader.levels(now - 1_000_000, now)
        return any(levels.get(name, 0.0) > 0.5 for name in self._uv)

    def close(self) -> None:
        self._reader.close()


def light_reader(board: Board, page: Path) -> PinReader:
    """The light of a simulated kiosk: its pins, the lamp's one-shot, and the faults its profile names."""
    one_shot = {name: board.interlocks.one_shot_s for name, light in board.lights.items() if light.is_uv}
    return PinReader(page, one_shot, board.simulation.dead_lamps, board.simulation.stuck_lamps)
