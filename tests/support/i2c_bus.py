"""An I²C bus with an ADS1115 on it, below smbus2: what the kernel would make of each request."""

from __future__ import annotations

import errno
import threading
import types

import pytest
import smbus2.smbus2 as smbus

from firmware.pins import sampler

I2C_TIMEOUT = 0x0702
_FULL_SCALE_V = 4.096
_FD = 77


# A lamp that is lit: 0.1 V per W/m², 1 V per A; and its heat sink at 35 °C: 0.5 V and 10 mV for each °C.
LIT_V, LIT_A, WARM = 0.8, 0.5, 0.85


class Chip:
    """The ADS1115's registers and inputs. `volts` has what each input is at; faults are for tests to set.

    `conversions_take` is how many looks at the config register a conversion lasts.
    """

    def __init__(self, address: int = 0x48) -> None:
        self.address = address
        self.volts = [0.0, 0.0, 0.85, 0.0]
        self.gone = False
        self.stuck_lines: int | None = None
        self.stuck_value = False
        self.never_ends = False
        self.conversions_take = 1
        self.hangs = threading.Event()
        self.hangs.set()
        self.registers = {0: 0x0000, 1: 0x8583}
        self._looks = 0

    def write(self, register: int, value: int) -> None:
        self.registers[register] = value & ~0x8000
        if register == 1 and value & 0x8000:
            self._looks = 0
            assert value & 0x0100, "the chip would go on converting"
            assert value & 0x00E0 == 0x00E0, "slower than 860 samples a second"
            assert value & 0x0E00 == 0x0200, "not ±4.096 V"
            if not self.stuck_value:
                channel = (value >> 12 & 7) - 4
                code = round(self.volts[channel] / _FULL_SCALE_V * 32_768)
                self.registers[0] = max(-32_768, min(32_767, code)) & 0xFFFF

    def read(self, register: int) -> int:
        if self.stuck_lines is not None:
            return self.stuck_lines
        value = self.registers[register]
        if register == 1:
            self._looks += 1
            done = self._looks >= self.conversions_take and not self.never_ends
            value |= 0x8000 if done else 0
        return value


class Bus:
    """The adapter of one bus number: `ioctl` answers as i2c-dev does. `timeout` is what it was told."""

    def __init__(self, chip: Chip, number: int = 1) -> None:
        self.chip, self.path = chip, f"/dev/i2c-{number}"
        self.missing = False
        self.opened = 0
        self.timeout: int | None = None
        self._address = -1

    def open(self, path: str, flags: int) -> int:
        del flags
        if self.missing or path != self.path:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self.opened += 1
        return _FD

    def ioctl(self, fd: int, request: int, argument: object = 0) -> int:
        assert fd == _FD
        if request == smbus.I2C_SLAVE:
            self._address = int(argument)  # type: ignore[call-overload]
        elif request == I2C_TIMEOUT:
            self.timeout = int(argument)  # type: ignore[call-overload]
        elif request == smbus.I2C_SMBUS:
            self._transfer(argument)
        return 0

    def _transfer(self, message: object) -> None:
        chip = self.chip
        chip.hangs.wait()
        if chip.gone or self._address != chip.address:
            raise OSError(errno.EREMOTEIO, "Remote I/O error")
        block, register = message.data.contents.block, message.command  # type: ignore[attr-defined]
        if message.read_write == smbus.I2C_SMBUS_WRITE:  # type: ignore[attr-defined]
            assert block[0] == 2
            chip.write(register, block[1] << 8 | block[2])
        else:
            value = chip.read(register)
            block[1], block[2] = value >> 8, value & 0xFF


def wire(monkeypatch: pytest.MonkeyPatch, bus: Bus) -> Bus:
    """From here on smbus2, in this process, talks to `bus` in place of the kernel."""
    system = types.SimpleNamespace(open=bus.open, close=lambda fd: None, O_RDWR=2)
    monkeypatch.setattr(smbus, "os", system)
    monkeypatch.setattr(smbus, "ioctl", bus.ioctl)
    monkeypatch.setattr(sampler, "fcntl", types.SimpleNamespace(ioctl=bus.ioctl))
    return bus


def set_lamp(chip: Chip, lit: bool) -> None:
    """What photodiode and current sense give of a lamp that is `lit`, or dark."""
    chip.volts[0], chip.volts[1] = (LIT_V, LIT_A) if lit else (0.0, 0.0)
