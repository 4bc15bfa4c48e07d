"""LinePins: the light pins of a board whose lines libgpiod drives, such as a Jetson."""

from __future__ import annotations

from typing import Any

from hardware.board import Board


class LinePins:
    """Every light pin of `board`, requested together as outputs and low until told otherwise.

    `gpiod` is the libgpiod 2 binding. It switches lines and has no PWM; a board profile
    that asks for some is refused as it is read.
    """

    def __init__(self, board: Board, chip: str, gpiod: Any) -> None:
        self._values = gpiod.line.Value
        self._lines = {name: light.pin for name, light in board.lights.items() if light.pin is not None}
        settings = gpiod.LineSettings(
            direction=gpiod.line.Direction.OUTPUT, output_value=self._values.INACTIVE
        )
        config = {tuple(self._lines.values()): settings} if self._lines else {}
        self._request = gpiod.request_lines(chip, config=config, consumer="dermakiosk-lightd")

    def set(self, light: str, level: float) -> None:
        """`light` on for a level above 0, else off. Raises OSError."""
        if light in self._lines:
            value = self._values.ACTIVE if level > 0 else self._values.INACTIVE
            self._request.set_value(self._lines[light], value)

    def all_low(self) -> None:
        """Every pin low; each is tried, then the first failure is raised as OSError."""
        first: OSError | None = None
        for pin in self._lines.values():
            try:
                self._request.set_value(pin, self._values.INACTIVE)
            except OSError as error:
                first = first or error
        if first is not None:
            raise OSError(f"A light pin does not go low: {first}") from first

    def close(self) -> None:
        self._request.release()
