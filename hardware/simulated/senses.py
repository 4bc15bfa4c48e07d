"""What the light daemon's own sensors read in a simulated kiosk: they follow from what the pins light."""

from __future__ import annotations

import random
import time
from pathlib import Path

from hardware.board import Board
from hardware.simulated.lamp import LampHeat
from hardware.simulated.pins import PinReader
from hardware.simulated.shroud import SimulatedShroud

# What a sensor adds of its own (standard deviation), and the time over which it takes the mean.
_NOISE = {"photodiode": 0.02, "lamp_current": 0.005, "lamp_temperature": 0.1}
_MEAN_NS = 1_000_000
_LAMP_MA = 700
# Without a threshold of the board's, a lamp is lit that gives half of what it should.
_LIT_SHARE = 0.5


class SimulatedSenses:
    """Senses of `board` over the pin page at `page`; each reading has noise, and the board's faults in it."""

    def __init__(self, board: Board, page: Path) -> None:
        self._simulation = board.simulation
        self._lamps = {name: light for name, light in board.lights.items() if light.is_uv}
        self._reader = light_reader(board, page)
        hold_shroud(page, is_open=False)
        self._shroud = SimulatedShroud(board, self._reader, _held_open(page))
        self._heat = LampHeat(board.simulation, time.monotonic_ns())
        self._noise = random.Random(1)
        full_w_m2 = sum(light.irradiance_w_m2 or 0.0 for light in self._lamps.values())
        full_a = sum(light.current_ma or _LAMP_MA for light in self._lamps.values()) / 1000
        sensors = board.sensors
        self._lit_above = (
            (sensors.photodiode.lit_above, sensors.lamp_current.lit_above)
            if sensors
            else (_LIT_SHARE * full_w_m2, _LIT_SHARE * full_a)
        )

    def shroud_closed(self) -> tuple[bool, bool]:
        return self._shroud.closed(time.monotonic_ns())

    def lamp_temperature_c(self) -> float:
        """°C of the UV lamp. Raises OSError when the thermometer is dead."""
        if "lamp_temperature" in self._simulation.dead_senses:
            raise OSError("the lamp's temperature sensor does not answer")
        shone = [interval for name in self._lamps for interval in self._reader.shone(name)]
        above = self._heat.above_rest_c(sorted(shone), time.monotonic_ns())
        return self._read("lamp_temperature", self._simulation.lamp_temperature_c + above)

    def photodiode_w_m2(self) -> float:
        """UV at the eye plane in W/m²."""
        lit = [level * (self._lamps[name].irradiance_w_m2 or 0.0) for name, level in self._levels().items()]
        return self._read("photodiode", sum(lit))

    def lamp_current_a(self) -> float:
        """Current through the UV lamps in A."""
        lit = [level * (self._lamps[name].current_ma or _LAMP_MA) for name, level in self._levels().items()]
        return self._read("lamp_current", sum(lit) / 1000)

    def uv_seen(self) -> tuple[bool, bool]:
        """Whether the photodiode sees the lamp lit, and whether the current sense does."""
        if not self._lamps:
            return (False, False)
        light, current = self._lit_above
        return self.photodiode_w_m2() > light, self.lamp_current_a() > current

    def close(self) -> None:
        self._reader.close()

    def _levels(self) -> dict[str, float]:
        now = time.monotonic_ns()
        levels = self._reader.levels(now - _MEAN_NS, now)
        return {name: levels.get(name, 0.0) for name in self._lamps}

    def _read(self, sense: str, true: float) -> float:
        if sense in self._simulation.dead_senses:
            true = 0.0
        return true + self._noise.gauss(0.0, _NOISE[sense])


def hold_shroud(page: Path, is_open: bool) -> None:
    """Staff at the simulated kiosk whose pins are on `page` open the shroud, or close it again."""
    if is_open:
        _held_open(page).touch()
    else:
        _held_open(page).unlink(missing_ok=True)


def _held_open(page: Path) -> Path:
    """The file that is there while staff hold the shroud open."""
    return page.with_name("shroud.open")


def light_reader(board: Board, page: Path) -> PinReader:
    """The light of a simulated kiosk: its pins, the lamp's one-shot, and the faults its profile names."""
    limit = board.interlocks
    one_shot = {name: limit.one_shot_s for name, light in board.lights.items() if limit and light.is_uv}
    return PinReader(page, one_shot, board.simulation.dead_lamps, board.simulation.stuck_lamps)
