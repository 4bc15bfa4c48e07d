"""RealSenses: what the light daemon reads of a real board's shroud and UV lamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from firmware.pins.protocols import UvSeen
from hardware.profile import LightSensor, Sensor, Sensors

# A sensor that works stays well inside 3.3 V above ground. Beyond this its output is at a rail, or is not
# connected to the ground of the converter: shorted, open, or without its supply.
PLAUSIBLE_V = (-0.1, 3.1)

# The voltage at a channel of the converter now. Raises OSError.
Volts = Callable[[int], float]


class Shroud(Protocol):
    """The shroud's two inputs. `closed` raises OSError when they cannot be read."""

    def closed(self) -> tuple[bool, bool]: ...

    def close(self) -> None: ...


class RealSenses:
    """The senses of a board: `shroud` reads its switches, `lamp` are its sensors at the UV lamp, with what
    reads a channel of their converter in volts.

    Either is None on a board without; whatever is missing cannot be read, and that counts as open.
    """

    def __init__(self, shroud: Shroud | None, lamp: tuple[Sensors, Volts] | None) -> None:
        self._shroud, self._lamp = shroud, lamp

    def shroud_closed(self) -> tuple[bool, bool]:
        if self._shroud is None:
            raise OSError("this board has no shroud")
        return self._shroud.closed()

    def lamp_temperature_c(self) -> float:
        sensors, volts = self._at_lamp()
        return _reading(sensors.lamp_temperature, volts)

    def photodiode_w_m2(self) -> float:
        sensors, volts = self._at_lamp()
        return _reading(sensors.photodiode, volts)

    def lamp_current_a(self) -> float:
        sensors, volts = self._at_lamp()
        return _reading(sensors.lamp_current, volts)

    def uv_seen(self) -> UvSeen:
        if self._lamp is None:
            return (None, None)
        sensors, volts = self._lamp
        return _lit(sensors.photodiode, volts), _lit(sensors.lamp_current, volts)

    def _at_lamp(self) -> tuple[Sensors, Volts]:
        if self._lamp is None:
            raise OSError("this board has no sensors at its lamp")
        return self._lamp


def _lit(sensor: LightSensor, volts: Volts) -> bool | None:
    try:
        return _reading(sensor, volts) > sensor.lit_above
    except OSError:
        return None


def _reading(sensor: Sensor, volts: Volts) -> float:
    """In the sensor's unit. Raises OSError where its voltage cannot be had, or believed."""
    found = volts(sensor.channel)
    low, high = PLAUSIBLE_V
    if not low <= found <= high:
        raise OSError(f"{sensor.part} gives {found:.2f} V: it or its wire is shorted or open")
    return sensor.reading(found)
