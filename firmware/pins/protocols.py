"""Pins and Senses: what the light core needs of a board's light pins, and of what senses its lamp."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

# Whether the photodiode sees the UV lamp lit, and whether the current sense does; None where one of them
# cannot be read.
UvSeen = tuple[bool | None, bool | None]


class Pins(Protocol):
    """The light pins. `set` raises OSError when it fails; `all_low` tries every pin first."""

    def set(self, light: str, level: float) -> None: ...

    def all_low(self) -> None: ...


class Senses(Protocol):
    """What the daemon reads by itself, trusting no one. Each raises OSError when it cannot be read."""

    def shroud_closed(self) -> tuple[bool, bool]: ...

    def lamp_temperature_c(self) -> float: ...

    def photodiode_w_m2(self) -> float: ...

    def lamp_current_a(self) -> float: ...

    def uv_seen(self) -> UvSeen:
        """What the photodiode and the current sense say of the UV lamp, without raising."""


UV_LIT: UvSeen = (True, True)
UV_DARK: UvSeen = (False, False)


def readings(senses: Senses) -> dict[str, float | None]:
    """What each of the lamp's sensors reads now, in its unit; None where it cannot be read."""
    reads: dict[str, Callable[[], float]] = {
        "photodiode_w_m2": senses.photodiode_w_m2,
        "lamp_current_a": senses.lamp_current_a,
        "lamp_temperature_c": senses.lamp_temperature_c,
    }
    found: dict[str, float | None] = dict.fromkeys(reads)
    for name, read in reads.items():
        with contextlib.suppress(OSError):
            found[name] = round(read(), 3)
    return found
