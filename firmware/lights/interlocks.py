"""The interlocks of UV that the light daemon reads by itself: the shroud, and the lamp's temperature.

What an open one does to a pulse is in `firmware.lights.core`.
"""

from __future__ import annotations

from typing import Any

from firmware.pins.protocols import Senses
from hardware.profile import Limits


def open_interlock(senses: Senses, limits: Limits) -> str | None:
    """Which is open now: "shroud_open", "lamp_hot", or "sense_failed" where one cannot be read; else None."""
    try:
        if senses.shroud_closed() != (True, True):
            return "shroud_open"
        # Written so that a reading that is not a number counts as too hot.
        if not senses.lamp_temperature_c() < limits.lamp_temperature_c:
            return "lamp_hot"
    except OSError:
        return "sense_failed"
    return None


def interlocks(senses: Senses, limits: Limits) -> dict[str, Any]:
    """Which interlock is open now, and each of the shroud's switches (None where they cannot be read)."""
    try:
        shroud: tuple[bool, bool] | None = senses.shroud_closed()
    except OSError:
        shroud = None
    return {"interlock": open_interlock(senses, limits), "shroud_closed": shroud}
