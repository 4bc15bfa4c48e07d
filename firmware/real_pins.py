"""The drivers of real light pins, each imported when a board asks for it."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

from firmware.line_pins import LinePins
from firmware.pins import LightHardware, LightPins
from hardware.board import Board, DriverMissing


class UnreadSenses:
    """Senses that cannot be read: every interlock counts as open, so there is no UV."""

    def shroud_closed(self) -> tuple[bool, bool]:
        raise OSError("the shroud's switches have no driver")

    def lamp_temperature_c(self) -> float:
        raise OSError("the lamp's temperature sensor has no driver")

    def uv_seen(self) -> bool:
        raise OSError("the photodiode has no driver")


def open_real_pins(board: Board, load: Callable[[str], Any] = importlib.import_module) -> LightHardware:
    """The pins of a real `board` through the driver it names; `load` imports. Raises DriverMissing."""
    try:
        if board.pin_factory == "gpiod":
            chip = board.gpio_chip or "/dev/gpiochip0"
            line_pins = LinePins(board, chip, load("gpiod"))
            return LightHardware(line_pins, UnreadSenses(), lambda: None, lambda: None)
        factory = _lgpio_factory(load)
    except ImportError as error:
        raise DriverMissing(
            f"pin_factory = '{board.pin_factory}' in board '{board.name}' needs the Python package"
            f" '{board.pin_factory}', which is not here ({error}): install it."
        ) from error
    except OSError as error:
        raise DriverMissing(
            f"pin_factory = '{board.pin_factory}' in board '{board.name}' cannot have this machine's GPIO"
            f" ({error}): check that the board is the right one, and that this user is in the group gpio."
        ) from error
    return LightHardware(LightPins(board, factory), UnreadSenses(), lambda: None, factory.close)


def _lgpio_factory(load: Callable[[str], Any]) -> Any:
    """gpiozero's own factory over lgpio, which leaves a FIFO in whatever folder it is imported in."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="lgpio-") as folder:
        os.chdir(folder)
        try:
            lgpio = load("lgpio")
            module = load("gpiozero.pins.lgpio")
        finally:
            os.chdir(before)
    try:
        return module.LGPIOFactory()
    except getattr(lgpio, "error", OSError) as error:
        raise OSError(str(error)) from error
