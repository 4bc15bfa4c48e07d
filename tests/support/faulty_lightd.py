"""The real light daemon whose senses, clock and photodiode obey a switchboard file, for the soak run."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import Any

from firmware.lights.doses import Moment
from firmware.pins.protocols import UV_LIT, Senses, UvSeen

# One byte a switch, in one page; a byte is read whole or not at all.
OPEN_A, OPEN_B, HOT, BLIND, NUMB, STUCK, SENSE_FAILS, CLOCK = range(8)
_SIZE = 4096


class Switchboard:
    """Shared switches at `path`; every one is 0 at first."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, _SIZE)
        self._map = mmap.mmap(fd, _SIZE)
        os.close(fd)

    def __getitem__(self, switch: int) -> int:
        return self._map[switch]

    def __setitem__(self, switch: int, value: int) -> None:
        self._map[switch] = value

    def reset(self) -> None:
        self._map[:16] = bytes(16)


class SwitchedSenses:
    """The simulated senses, with what the switchboard says on top."""

    def __init__(self, senses: Senses, switches: Switchboard) -> None:
        self._senses, self._switches = senses, switches

    def shroud_closed(self) -> tuple[bool, bool]:
        if self._switches[SENSE_FAILS]:
            raise OSError("switched off")
        return not self._switches[OPEN_A], not self._switches[OPEN_B]

    def lamp_temperature_c(self) -> float:
        return 61.0 if self._switches[HOT] else 35.0

    def photodiode_w_m2(self) -> float:
        return self._senses.photodiode_w_m2()

    def lamp_current_a(self) -> float:
        return self._senses.lamp_current_a()

    def uv_seen(self) -> UvSeen:
        light, current = UV_LIT if self._switches[STUCK] else self._senses.uv_seen()
        return light and not self._switches[BLIND], current and not self._switches[NUMB]


def main() -> None:
    """`lightd` with switches: the first argument is their file, the others are lightd's own."""
    import firmware.lights.daemon as lightd
    from firmware.lights import cli
    from kiosk_app import log

    switches = Switchboard(Path(sys.argv[1]))
    opened, core, now = lightd.open_light_hardware, lightd.LightCore, Moment.now

    def open_switched(*arguments: Any) -> Any:
        hardware = opened(*arguments)
        hardware.senses = SwitchedSenses(hardware.senses, switches)
        return hardware

    def moment() -> Moment:
        """Both clocks; the switch sets the wall clock ahead by so many hours (or, from 128, back)."""
        true, hours = now(), switches[CLOCK]
        return Moment(
            true.wall + 3600.0 * (hours if hours < 128 else 128 - hours), true.since_boot, true.boot
        )

    lightd.open_light_hardware = open_switched  # type: ignore[assignment]
    lightd.LightCore = lambda *a, **k: core(*a, **{**k, "moment": moment})  # type: ignore[assignment,misc]
    log.configure(debug=False)
    cli.lightd.main(sys.argv[2:], standalone_mode=False)


if __name__ == "__main__":
    main()
