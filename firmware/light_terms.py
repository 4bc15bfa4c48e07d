"""The terms of the light core: its refusals, what it needs of the hardware, lease, pulse, check."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from firmware.doses import Dose, DoseRefused
from firmware.stamps import ConsentStamp, UvAllowance

# Whether the photodiode sees the UV lamp lit, and whether the current sense does; None where one of them
# cannot be read.
UvSeen = tuple[bool | None, bool | None]


class LightRefused(Exception):
    """The light core says no. `code` names why; `retry_s` is set where waiting that long helps."""

    exit_status = 1

    def __init__(self, code: str, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.retry_s = retry_s


@contextlib.contextmanager
def refusals_of_the_ledger() -> Iterator[None]:
    """What the ledger refuses, the light core refuses."""
    try:
        yield
    except DoseRefused as refused:
        raise LightRefused(refused.code, str(refused)) from refused


def staff_name(staff: str) -> str:
    """The name that `staff` give, for what only they may do. Raises LightRefused where there is none."""
    name = staff.strip()
    if not name or not name.isprintable() or len(name) > 100:
        raise LightRefused("bad_request", "This is done under the name of a member of staff: give one.")
    return name


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


LIT: UvSeen = (True, True)
DARK: UvSeen = (False, False)


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


@dataclass
class Lease:
    """One client's right to the lights for one session, kept alive by heartbeats."""

    client: int
    session: str
    consent: ConsentStamp
    uv: UvAllowance | None
    beat_at: float


@dataclass
class Pulse:
    """A UV pulse under way, in monotonic seconds; `seen` says whether both of the lamp's own sensors saw it,
    once looked.
    """

    light: str
    begun_at: float
    ends_at: float
    irradiance_w_m2: float
    charged: Dose
    seen: bool | None = None


@dataclass
class Check:
    """A light check that `staff` began to clear a fault, through `client`."""

    client: int
    staff: str
    seen: bool = False
