"""The terms of the light core: its refusals, what it needs of the hardware, lease, pulse, check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from firmware.doses import Dose
from firmware.stamps import ConsentStamp, UvAllowance


class LightRefused(Exception):
    """The light core says no. `code` names why; `retry_s` is set where waiting that long helps."""

    exit_status = 1

    def __init__(self, code: str, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.retry_s = retry_s


class Pins(Protocol):
    """The light pins. `set` raises OSError when it fails; `all_low` tries every pin first."""

    def set(self, light: str, level: float) -> None: ...

    def all_low(self) -> None: ...


class Senses(Protocol):
    """What the daemon reads by itself, trusting no one. Each raises OSError when it cannot be read."""

    def shroud_closed(self) -> tuple[bool, bool]: ...

    def lamp_temperature_c(self) -> float: ...

    def uv_seen(self) -> bool: ...


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
    """A UV pulse under way, in monotonic seconds; `seen` says whether the photodiode saw it, once looked."""

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
