"""Opening the pins and senses that a board names: real ones or simulated ones, never another kind instead."""

from __future__ import annotations

from pathlib import Path

from firmware.pins.light_pins import LightHardware, LightPins, NoSenses
from firmware.pins.real import open_real_pins
from hardware.board import Board


def open_light_hardware(board: Board, run: Path) -> LightHardware:
    """The pins and senses that `board` names; `run` is the folder for sockets. Raises DriverMissing."""
    if board.pin_factory == "none":
        return LightHardware(LightPins(board, None), NoSenses(), lambda: None, lambda: None)
    if board.pin_factory != "mock":
        return open_real_pins(board)
    from hardware.simulated.pin_factory import PageFactory
    from hardware.simulated.pins import PinPage
    from hardware.simulated.senses import SimulatedSenses

    path = run / "pins.page"
    page = PinPage(path, list(board.lights))
    factory = PageFactory(
        page, {light.pin: name for name, light in board.lights.items() if light.pin is not None}
    )
    pins = LightPins(board, factory)
    senses = SimulatedSenses(board, path)

    def close() -> None:
        senses.close()
        factory.close()

    return LightHardware(pins, senses, page.alive, close)
