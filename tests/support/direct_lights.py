"""Lights in this process: a real light core on a pin page, whose clock skips the waits between flashes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from firmware.lights.client import Lights, LightsFault
from firmware.lights.core import LightCore, LightRefused
from firmware.lights.doses import DoseLedger
from firmware.pins.opening import open_light_hardware
from hardware.board import Board
from tests.support.kiosk_daemons import consent, uv_allowance

_CLIENT = 1


class DirectLights(Lights):
    """A lease on the lights of `board`, pins on the page in `run`; UV is allowed."""

    def __init__(self, board: Board, run: Path) -> None:
        super().__init__(run / "none.sock")
        self.hardware = open_light_hardware(board, run)
        self.skipped = 0.0
        self.core = LightCore(
            board,
            self.hardware.pins,
            self.hardware.senses,
            DoseLedger(":memory:"),
            lambda: time.monotonic() + self.skipped,
        )
        self.core.lease(_CLIENT, "s1", consent(), uv_allowance())

    def on(self, light: str, level: float = 1.0) -> int:
        self._skipping(lambda: self.core.on(_CLIENT, light, level))
        return time.monotonic_ns()

    def pulse(self, light: str, seconds: float) -> int:
        self._skipping(lambda: self.core.pulse(_CLIENT, light, seconds))
        return time.monotonic_ns()

    def beat(self) -> None:
        self.core.beat(_CLIENT)

    def off(self) -> None:
        self.core.off(_CLIENT)

    def status(self) -> dict[str, Any]:
        status = {**self.core.status(), **self.core.interlocks()}
        over_ns = status["pulse_over_ns"]
        # As the socket has it, on the clock of the camera.
        return {
            **status,
            "shroud_closed": list(status["shroud_closed"]),
            "pulse_over_ns": over_ns and over_ns - round(self.skipped * 1e9),
        }

    def _skipping(self, call) -> None:
        for _ in range(3):
            try:
                call()
                return
            except LightRefused as refused:
                if refused.retry_s is None:
                    raise LightsFault(refused.code, str(refused)) from refused
                self.skipped += refused.retry_s
                self.core.tick()
        raise AssertionError("the core never let it happen")

    def close(self) -> None:
        self.core.stop()
        self.hardware.close()
