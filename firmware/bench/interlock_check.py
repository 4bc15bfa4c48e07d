"""The interlocks' part of the self-test: each is opened, or asked for UV that it has to refuse or to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from firmware.bench.workbench import a_session, empty_hood, staff_consent
from firmware.lights.client import Lights, LightsFault
from firmware.lights.core import OVERRUN_S
from hardware.board import Board
from hardware.counts import rounded
from hardware.profile import Limits

_SHORT_S = 0.1
_LONG_S = 0.6
_STATE_S = 2.0
_POLL_S = 0.01
_TRIES = 2


@dataclass(frozen=True)
class CheckResult:
    """One line of the self-test: what was checked, whether it is well (None: not tested), what was found.

    `values` are the numbers behind it.
    """

    check: str
    ok: bool | None
    found: str
    values: Mapping[str, Any] = field(default_factory=dict)


def check_interlocks(
    board: Board, state: Path, put: Callable[[str], None], hood_empty: bool
) -> list[CheckResult]:
    """Every interlock of `board`'s UV, in a line each. `put` as for the Workbench.

    UV is asked for only where the shroud is closed and `hood_empty`.
    """
    light = next((name for name, profile in board.lights.items() if profile.is_uv), None)
    if light is None:
        return []
    path = state / "run" / "light.sock"
    results: list[CheckResult] = []
    try:
        with closing(Lights(path)) as lights:
            lights.status()
            results += [_shroud(lights, put), _temperature(lights, board.limits)]
            if not hood_empty:
                return [*results, CheckResult("UV that is refused", None, "needs --hood-empty")]
            results += [_refused(lights, *one) for one in _refusals(lights, light, board.limits)]
        results.append(_ends_by_itself(path, light))
        results.append(_without_heartbeat(path, light, board.limits))
        results.append(_hung_up(path, light, board.limits))
    except LightsFault as fault:
        results.append(CheckResult("interlocks", False, str(fault)))
    return results


def _shroud(lights: Lights, put: Callable[[str], None]) -> CheckResult:
    """Both switches, opened and closed by staff. No UV is asked for meanwhile: the reading is the test."""
    wrong = []
    try:
        put("shroud_open")
        wrong += _switches_not(lights, is_closed=False)
    finally:
        put("shroud_closed")
    wrong += _switches_not(lights, is_closed=True)
    return CheckResult("shroud", not wrong, "; ".join(wrong) or "both switches open and close")


def _switches_not(lights: Lights, is_closed: bool) -> list[str]:
    """What is wrong with the switches of a shroud that `is_closed`; they are given some time."""
    deadline = time.monotonic() + _STATE_S
    while (closed := lights.status()["shroud_closed"]) != [is_closed] * 2 and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if closed is None:
        return ["the switches cannot be read"]
    truth, said = ("closed", "open") if is_closed else ("open", "closed")
    return [
        f"switch {n} says {said}, the shroud is {truth}"
        for n, one in enumerate(closed, 1)
        if one is not is_closed
    ]


def _temperature(lights: Lights, limits: Limits) -> CheckResult:
    celsius = lights.status()["sensors"]["lamp_temperature_c"]
    if celsius is None:
        return CheckResult(
            "lamp temperature", False, "the thermometer cannot be read: look at it and its wire"
        )
    found = f"{celsius:.0f} °C; UV is off from {limits.lamp_temperature_c:g} °C on"
    return CheckResult("lamp temperature", celsius < limits.lamp_temperature_c, found, {"celsius": celsius})


def _refusals(lights: Lights, light: str, limits: Limits) -> list[tuple[str, str, Callable[[], object]]]:
    """(check, code of the refusal, what asks) for each thing that UV must not be had without."""

    def pulse(seconds: float = _SHORT_S, **lacking: Any) -> Callable[[], object]:
        def ask() -> object:
            lights.lease(a_session(), staff_consent(), replace(empty_hood(), **lacking))
            return lights.pulse(light, seconds)

        return ask

    def without_allowance() -> object:
        lights.lease(a_session(), staff_consent(), None)
        return lights.pulse(light, _SHORT_S)

    def without_lease() -> object:
        lights.release()
        return lights.pulse(light, _SHORT_S)

    def not_in_a_pulse() -> object:
        lights.lease(a_session(), staff_consent(), empty_hood())
        return lights.on(light)

    long_ago = time.time() - 2 * limits.eye_protection_s - 1
    much = limits.uv_dose_per_day_j_m2
    return [
        ("UV without a lease", "no_lease", without_lease),
        ("UV without an allowance", "not_allowed", without_allowance),
        ("UV for nobody", "no_reference", pulse(patient_reference="")),
        ("UV without screening", "not_screened", pulse(screened=False)),
        ("UV without eye protection", "eyes_not_confirmed", pulse(eyes_closed_confirmed_at=long_ago)),
        ("UV beyond the dose", "dose_limit", pulse(dose_elsewhere_j_m2=much)),
        ("UV for too long", "pulse_too_long", pulse(limits.uv_pulse_s + _SHORT_S)),
        ("UV not in a pulse", "uv_needs_pulse", not_in_a_pulse),
    ]


def _refused(lights: Lights, check: str, code: str, ask: Callable[[], object]) -> CheckResult:
    """Whether `ask` is refused with `code`; what was wrongly lit is off after it."""
    try:
        ask()
    except LightsFault as fault:
        return CheckResult(check, fault.code == code, f"refused: {fault}")
    finally:
        lights.off()
    return CheckResult(check, False, "was lit: switch the lamps' supply off and call for service")


def _ends_by_itself(path: Path, light: str) -> CheckResult:
    with closing(Lights(path)) as lights:
        lit = _lit_for(lights, light, _SHORT_S, lights.beat)
    return _in_time("UV ends by itself", lit, _SHORT_S + OVERRUN_S)


def _without_heartbeat(path: Path, light: str, limits: Limits) -> CheckResult:
    with closing(Lights(path)) as lights:
        lit = _lit_for(lights, light, min(_LONG_S, limits.uv_pulse_s - OVERRUN_S), lambda: None)
    return _in_time("UV without heartbeat", lit, limits.heartbeat_s + OVERRUN_S)


def _hung_up(path: Path, light: str, limits: Limits) -> CheckResult:
    """The client of a pulse goes away; another one asks when it went dark."""
    check, limit_s = "UV after its client", limits.heartbeat_s / 2
    with closing(Lights(path)) as witness:
        for _ in range(_TRIES):
            with closing(Lights(path)) as client:
                client.lease(a_session(), staff_consent(), empty_hood())
                begun_ns = client.pulse(light, min(_LONG_S, limits.uv_pulse_s - OVERRUN_S))
                going_ns = time.monotonic_ns()
            gone_ns = time.monotonic_ns()
            dark_ns = _over_ns(witness)
            # Well before the missing heartbeat would have ended it: this is the test of the hanging up.
            if gone_ns - begun_ns <= limit_s * 1e9:
                return _in_time(check, dark_ns - going_ns, limit_s)
    return CheckResult(check, False, "this computer was too busy to time it: run the self-test again")


def _lit_for(lights: Lights, light: str, seconds: float, meanwhile: Callable[[], None]) -> int:
    """How long a pulse of `seconds` was lit, in ns, with `meanwhile` called all along."""
    lights.lease(a_session(), staff_consent(), empty_hood())
    begun_ns = lights.pulse(light, seconds)
    over_ns = _over_ns(lights, meanwhile)
    lights.release()
    return over_ns - begun_ns


def _over_ns(lights: Lights, meanwhile: Callable[[], None] = lambda: None) -> int:
    """When the pulse that is on has ended, in monotonic ns."""
    deadline = time.monotonic() + _STATE_S
    while (status := lights.status())["pulse"] and time.monotonic() < deadline:
        meanwhile()
        time.sleep(_POLL_S)
    if status["pulse"]:
        raise LightsFault("uv_overran", "A UV pulse does not end: switch the lamps' supply off.")
    return int(status["pulse_over_ns"])


def _in_time(check: str, lit_ns: int, limit_s: float) -> CheckResult:
    seconds = max(0.0, lit_ns / 1e9)
    found = f"dark after {rounded(1000 * seconds, 'ms')}, {1000 * limit_s:g} ms are allowed"
    return CheckResult(check, seconds <= limit_s, found, {"seconds": round(seconds, 3)})
