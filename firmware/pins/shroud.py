"""The shroud's two switches as inputs of a real board: high while closed, pulled down by the board as well.

The gate board has pull-downs of its own. The board's are for a wire torn between the two, which would leave
the input floating; where a board has none to switch on, asking for them does nothing.
"""

from __future__ import annotations

from typing import Any

from gpiozero import DigitalInputDevice, GPIOZeroError

from hardware.profile import Interlocks


class ShroudDevices:
    """The inputs through gpiozero and `factory`; `error` is what its driver raises besides OSError."""

    def __init__(self, interlocks: Interlocks, factory: Any, error: type[Exception] = OSError) -> None:
        self._error = error
        self._devices = [
            DigitalInputDevice(pin, pull_up=False, pin_factory=factory) for pin in interlocks.shroud_pins
        ]

    def closed(self) -> tuple[bool, bool]:
        """Whether each switch says so. Raises OSError."""
        try:
            first, second = (bool(device.value) for device in self._devices)
        except (GPIOZeroError, self._error) as error:
            raise OSError(f"the shroud's switches cannot be read: {error}") from error
        return first, second

    def close(self) -> None:
        for device in self._devices:
            device.close()


class ShroudLines:
    """The inputs as lines of `chip`, through `gpiod`, the libgpiod 2 binding."""

    def __init__(self, interlocks: Interlocks, chip: str, gpiod: Any) -> None:
        self._pins, self._active = list(interlocks.shroud_pins), gpiod.line.Value.ACTIVE
        settings = gpiod.LineSettings(direction=gpiod.line.Direction.INPUT, bias=gpiod.line.Bias.PULL_DOWN)
        config = {tuple(self._pins): settings}
        self._request = gpiod.request_lines(chip, config=config, consumer="dermakiosk-lightd")

    def closed(self) -> tuple[bool, bool]:
        """Whether each switch says so. Raises OSError."""
        first, second = self._request.get_values(self._pins)
        return first is self._active, second is self._active

    def close(self) -> None:
        self._request.release()
