"""The light pins of a board, through gpiozero and the pin factory that the board names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from gpiozero import DigitalOutputDevice, GPIOZeroError, PWMOutputDevice

from firmware.pins.protocols import UV_DARK, Pins, Senses, UvSeen
from hardware.board import Board


class LightPins:
    """Every light pin of `board`, low until told otherwise. Only the light daemon makes one.

    A light without a pin is the room's: it takes orders like the others, and nothing happens. `error` is what
    the driver of `factory` raises besides OSError; opening raises it as it comes.
    """

    def __init__(self, board: Board, factory: Any, error: type[Exception] = OSError) -> None:
        self._errors = (GPIOZeroError, OSError, error)
        self._devices: dict[str, Any] = {}
        with contextlib.ExitStack() as opened:
            for name, light in board.lights.items():
                if light.pin is None:
                    continue
                if light.pwm_hz is None:
                    device = DigitalOutputDevice(light.pin, pin_factory=factory)
                else:
                    device = PWMOutputDevice(light.pin, frequency=light.pwm_hz, pin_factory=factory)
                opened.callback(device.close)
                self._devices[name] = device
            self._opened = opened.pop_all()

    def set(self, light: str, level: float) -> None:
        """`light` at `level` in 0…1. Raises OSError."""
        device = self._devices.get(light)
        try:
            if device is not None:
                device.value = level
        except self._errors as error:
            raise OSError(f"{light}: {error}") from error

    def all_low(self) -> None:
        """Every pin low; each is tried, then the first failure is raised as OSError."""
        first: Exception | None = None
        for device in self._devices.values():
            try:
                device.off()
            except self._errors as error:
                first = first or error
        if first is not None:
            raise OSError(f"A light pin does not go low: {first}") from first

    def close(self) -> None:
        """Let go of every pin, whatever another one does; then the last failure is raised as OSError."""
        try:
            self._opened.close()
        except self._errors as error:
            raise OSError(f"A light pin cannot be let go of: {error}") from error


class NoSenses:
    """The senses of a board without lamps: no shroud to close, so nothing that needs one is allowed."""

    def shroud_closed(self) -> tuple[bool, bool]:
        return (False, False)

    def lamp_temperature_c(self) -> float:
        raise OSError("this board has no lamp")

    def photodiode_w_m2(self) -> float:
        raise OSError("this board has no photodiode")

    def lamp_current_a(self) -> float:
        raise OSError("this board has no lamp")

    def uv_seen(self) -> UvSeen:
        return UV_DARK


class OwnedPins(Pins, Protocol):
    """Pins that can be let go of."""

    def close(self) -> None: ...


class LightHardware:
    """Pins and senses of one board, opened together and closed together.

    `mark_alive` is called a few times a second by the daemon's loop.
    """

    def __init__(
        self,
        pins: OwnedPins,
        senses: Senses,
        mark_alive: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self.pins, self.senses, self.mark_alive = pins, senses, mark_alive
        self._close = close

    def close(self) -> None:
        """Pins first, then the rest, whatever the pins do."""
        try:
            self.pins.close()
        finally:
            self._close()
