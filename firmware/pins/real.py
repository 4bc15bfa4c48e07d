"""The drivers of a real board's pins and sensors, each imported when a board asks for it."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

from gpiozero import GPIOZeroError

from firmware.pins.ads1115 import Ads1115
from firmware.pins.light_pins import LightHardware, LightPins, OwnedPins
from firmware.pins.line_pins import LinePins
from firmware.pins.sampler import Converter, Sampler, bound_bus
from firmware.pins.senses import RealSenses, Shroud
from firmware.pins.shroud import ShroudDevices, ShroudLines
from hardware.board import Board, DriverMissing
from hardware.profile import Sensors

Load = Callable[[str], Any]


def open_real_pins(board: Board, load: Load = importlib.import_module) -> LightHardware:
    """Pins and senses of a real `board` through the drivers it names; `load` imports. Raises DriverMissing.

    Pins must open. A converter that does not answer is no reason not to start: there is no UV, then.
    """
    with contextlib.ExitStack() as undo:
        lamp = None if board.sensors is None else (board.sensors, _sampler(board, board.sensors, load))
        try:
            pins, shroud = _open_gpio(board, load, undo)
        except ImportError as error:
            raise DriverMissing(
                f"pin_factory = '{board.pin_factory}' in board '{board.name}' needs the Python package"
                f" '{board.pin_factory}', which is not here ({error}): install it."
            ) from error
        except OSError as error:
            raise DriverMissing(
                f"pin_factory = '{board.pin_factory}' in board '{board.name}' cannot have this machine's"
                f" GPIO ({error}): check that the board is the right one, and that this user is in the group"
                " gpio."
            ) from error
        senses = RealSenses(shroud, None)
        if lamp is not None:
            sensors, sampler = lamp
            undo.callback(sampler.start().close)
            senses = RealSenses(shroud, (sensors, sampler.volts))
        return LightHardware(pins, senses, lambda: None, undo.pop_all().close)
    raise AssertionError("unreachable")


def _open_gpio(board: Board, load: Load, undo: contextlib.ExitStack) -> tuple[OwnedPins, Shroud | None]:
    """The light pins, and the shroud's inputs where there are some; `undo` lets go of the latter.

    Raises OSError, whatever the driver raises.
    """
    shroud: Shroud | None = None
    if board.pin_factory == "gpiod":
        gpiod, chip = load("gpiod"), board.gpio_chip or "/dev/gpiochip0"
        pins: OwnedPins = LinePins(board, chip, gpiod)
        if board.interlocks is not None:
            shroud = ShroudLines(board.interlocks, chip, gpiod)
    else:
        factory, error = _lgpio_factory(load)
        undo.callback(factory.close)
        try:
            pins = LightPins(board, factory, error)
            if board.interlocks is not None:
                shroud = ShroudDevices(board.interlocks, factory, error)
        except (GPIOZeroError, error) as failed:
            raise OSError(str(failed)) from failed
    if shroud is not None:
        undo.callback(shroud.close)
    return pins, shroud


def _lgpio_factory(load: Load) -> tuple[Any, type[Exception]]:
    """gpiozero's own factory over lgpio, and what lgpio raises; it leaves a FIFO in whatever folder it is
    imported in.
    """
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="lgpio-") as folder:
        os.chdir(folder)
        try:
            lgpio = load("lgpio")
            module = load("gpiozero.pins.lgpio")
        finally:
            os.chdir(before)
    failure: type[Exception] = getattr(lgpio, "error", OSError)
    try:
        return module.LGPIOFactory(), failure
    except (GPIOZeroError, failure) as error:
        raise OSError(str(error)) from error


def _sampler(board: Board, sensors: Sensors, load: Load) -> Sampler:
    """What reads the converter of `sensors`; not started. Raises DriverMissing."""
    try:
        smbus2 = load("smbus2")
    except ImportError as error:
        raise DriverMissing(
            f"sensors.adc in board '{board.name}' needs the Python package 'smbus2', which is not here"
            f" ({error}): install it."
        ) from error

    def open_converter() -> tuple[Converter, Callable[[], None]]:
        bus = smbus2.SMBus(sensors.adc.bus)
        bound_bus(bus)
        return Ads1115(sensors.adc, bus), bus.close

    channels = (sensors.photodiode, sensors.lamp_current, sensors.lamp_temperature)
    return Sampler(open_converter, [sensor.channel for sensor in channels])
