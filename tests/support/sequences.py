"""What tests of capture sequences ask: to run one, and what the pins did meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from firmware.capture.sequence import Sequence
from hardware.board import Board
from hardware.capture import Capture
from hardware.simulated.pins import PinReader
from tests.support.kiosk_daemons import EVERY_LIGHT, lit

STEPS = ["dark", "white", "parallel", "cross", "dir0", "dir1", "dir2", "dir3", "uv365"]


def lit_lamps(folder: Path) -> set[str]:
    reader = PinReader(folder / "pins.page")
    try:
        return lit(reader)
    finally:
        reader.close()


def impatient(board: Board, deadline_s: float = 0.5) -> Board:
    """The same board, whose camera is given up soon."""
    return board.model_copy(update={"camera": board.camera.model_copy(update={"deadline_s": deadline_s})})


def run(
    sequence: Sequence, uv: bool = True, phase: str = "all", lights: Collection[str] = EVERY_LIGHT
) -> tuple[Capture, list[str]]:
    """The Capture, and the steps that it named on its way."""
    steps: list[str] = []
    capture = sequence.run(lights, uv, lambda light, done, of: steps.append(light), phase)
    return capture, steps


def uv_rises(folder: Path) -> int:
    """How often UV was lit."""
    reader = PinReader(folder / "pins.page")
    history = reader.history()
    reader.close()
    return sum(item.light == "uv365" and item.level > 0 for item in history)
