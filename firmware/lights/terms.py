"""The terms of the light core: its refusals, lease, pulse, check."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from firmware.lights.doses import Dose, DoseRefused
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.host.errors import Fault


class LightRefused(Fault):
    """The light core says no. `code` names why; `retry_s` is set where waiting that long helps."""

    def __init__(self, code: str, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(code, sentence)
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
    """A light check that `staff` began, through `client`, to clear what is latched, or `only` that fault;
    `seen` as a Pulse's.
    """

    client: int
    staff: str
    only: str | None = None
    seen: bool | None = None
