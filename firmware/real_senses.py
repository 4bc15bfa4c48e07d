"""RealSenses: what the light daemon reads of a real board's shroud and UV lamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from firmware.light_terms import UvSeen
from hardware.board import LightSensor, Sensor, Sensors

# A sensor that works stays well inside 3.3 V above ground. Beyond this its output is at a rail, or is not
# connected to the ground of the converter: shorted, open, or without its supply.
PLAUSIBLE_V = (-0.1, 3.1)


class Shroud(Protocol):
    """The shroud's two inputs. `closed` raises OSError when they cannot be read."""

    def closed(self) -> tuple[bool, bool]: ...

    def close(self) -> None: ...


class RealSenses:
    """The senses of a board: `shroud` reads its switches, `volts(channel)` the converter of `sensors`.

    Either is None on a board without; whatever is missing cannot be read, and that counts as open.
    """

    def __init__(
        self, shroud: Shroud | None, sensors: Sensors | None, volts: Callable[[int], float] | None
    ) -> None:
        self._shroud, self._sensors, self._volts = shroud, sensors, volts

    def shroud_closed(self) -> tuple[bool, bool]:
        if self._shroud is None:
            raise OSError("this board has no shroud")
        return self._shroud.closed()

    def lamp_temperature_c(self) -> float:
        sensor = self._named().lamp_temperature
        return sensor.reading(self._read(sensor))

    def photodiode_w_m2(self) -> float:
        sensor = self._named().photodiode
        return sensor.reading(self._read(sensor))

    def lamp_current_a(self) -> float:
        sensor = self._named().lamp_current
        return sensor.reading(self._read(sensor))

    def uv_seen(self) -> UvSeen:
        if self._sensors is None:
            return (None, None)
        return self._lit(self._sensors.photodiode), self._lit(self._sensors.lamp_current)

    def _lit(self, sensor: LightSensor) -> bool | None:
        try:
            return sensor.reading(self._read(sensor)) > sensor.lit_above
        except OSError:
            return None

    def _named(self) -> Sensors:
        if self._sensors is None:
            raise OSError("this board has no sensors at its lamp")
        return self._sensors

    def _read(self, sensor: Sensor) -> float:
        if self._volts is None:
            raise OSError("the converter of the sensors has no driver")
        volts = self._volts(sensor.channel)
        low, high = PLAUSIBLE_V
        if not low <= volts <= high:
            raise OSError(f"{sensor.part} gives {volts:.2f} V: it or its wire is shorted or open")
        return volts
