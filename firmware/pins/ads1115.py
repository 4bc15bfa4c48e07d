"""Ads1115: the converter that a board's analogue sensors share, one channel at a time.

Registers and times are those of the data sheet, SBAS444. A single conversion at 860 samples a second takes
1.16 ms, 10 % more where the chip's own clock is slow, and 0.11 ms to wake up: 1.4 ms at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hardware.profile import Adc

_CONVERSION, _CONFIG = 0x00, 0x01
# Config register: begin (when read: idle), input against ground, ±4.096 V, single conversion, 860 samples a
# second, comparator off.
_BEGIN, _SINGLE_ENDED, _RANGE, _SINGLE, _RATE, _NO_COMPARATOR = 0x8000, 0x4000, 0x0200, 0x0100, 0x00E0, 0x0003
_CHANNEL_SHIFT = 12
_FULL_SCALE_V, _FULL_SCALE = 4.096, 32_768
_CONVERSION_S = 0.0015
_LOOKS = 4


class Ads1115:
    """The converter `adc` on `bus`, an SMBus of smbus2 or one that does as that does."""

    def __init__(self, adc: Adc, bus: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        self._bus, self._address, self._sleep = bus, adc.address, sleep

    def volts(self, channel: int) -> float:
        """The voltage between input `channel` and ground, converted now.

        Raises OSError where the chip does not answer, does not end, or has not done what it was told: a bus
        line that is stuck reads as zeros or ones, and either is no config.
        """
        config = _SINGLE_ENDED | channel << _CHANNEL_SHIFT | _RANGE | _SINGLE | _RATE | _NO_COMPARATOR
        told = (_BEGIN | config).to_bytes(2, "big")
        self._bus.write_i2c_block_data(self._address, _CONFIG, list(told))
        for _ in range(_LOOKS):
            self._sleep(_CONVERSION_S)
            now = self._read(_CONFIG)
            if now & ~_BEGIN != config:
                raise OSError(f"the converter was told {config:#06x} and says {now:#06x}")
            if now & _BEGIN:
                code = self._read(_CONVERSION)
                return (code - 2 * (code & 0x8000)) * _FULL_SCALE_V / _FULL_SCALE
        raise OSError("the converter does not end a conversion")

    def _read(self, register: int) -> int:
        return int.from_bytes(bytes(self._bus.read_i2c_block_data(self._address, register, 2)), "big")
