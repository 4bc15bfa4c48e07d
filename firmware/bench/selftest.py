"""The self-test: every light seen, every interlock exercised, storage, clock and power looked at."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from firmware.bench.card import middle, seen_share
from firmware.bench.interlock_check import CheckResult, check_interlocks
from firmware.bench.workbench import Workbench
from firmware.cameras.calibration import lamps_aged, newest_calibration
from firmware.cameras.camera import CameraFrozen
from firmware.cameras.exposing import DARK
from firmware.cameras.grey_card_check import why_not_to_scan
from firmware.cameras.reflectance import reflectance
from firmware.lights.client import Lights, LightsFault
from firmware.lights.latch import FAULT_WORDS
from hardware.board import Board, DriverMissing
from hardware.counts import counted, rounded
from hardware.host.clock import vouched_by
from hardware.host.folders import make_folder
from hardware.profile import Light
from hardware.targets import GREY_REFLECTANCE

# A card seen under a light that is lit comes out within this share of what it should.
_LEVEL = (0.7, 1.3)
_DARK = 0.005
# A UV lamp that was measured, and its photodiode adjusted to that, reads within this share of its irradiance.
_UV_LEVEL = (0.6, 1.2)
_LEAST_FREE_BYTES = 2 * 1024**3
_BUILT = datetime(2026, 1, 1, tzinfo=timezone.utc)
# The Raspberry Pi's firmware; on a Pi 5 its folder has an address in its name.
_THROTTLED = "devices/platform/soc*/soc*:firmware/get_throttled"
_CPU_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")
_CPU_HOT_C = 80.0
# By their key in the light daemon's status, in the order of its `uv_seen`.
_SENSORS = (("photodiode_w_m2", "photodiode", "W/m²"), ("lamp_current_a", "current sense", "A"))


def run_selftest(
    board: Board, state: Path, put: Callable[[str], None], hood_empty: bool = False
) -> list[CheckResult]:
    """Every check, each in its own line whatever becomes of the others. `put` as for the Workbench."""
    results = [_light_daemon(state)]
    results += _lights(board, state, put, hood_empty)
    results += check_interlocks(board, state, put, hood_empty)
    status = {"lamp_hours": {}, "lamp_renewals": {}, **_status(state)}
    results += [_lamp_hours(board, status["lamp_hours"]), _calibration(board, state, status)]
    results += [_storage(state), _clock(board), _temperature(), _power()]
    return results


def _status(state: Path) -> dict[str, Any]:
    """The light daemon's status; without one, what is wrong under "unavailable"."""
    lights = Lights(state / "run" / "light.sock")
    try:
        return lights.status()
    except LightsFault as fault:
        return {"unavailable": str(fault)}
    finally:
        lights.close()


def _light_daemon(state: Path) -> CheckResult:
    status = _status(state)
    if "unavailable" in status:
        return CheckResult("light daemon", False, status["unavailable"])
    latched = status["fault"]
    found = "no fault latched" if latched is None else f"latched: {latched}, {FAULT_WORDS.get(latched)}"
    return CheckResult("light daemon", latched is None, found)


def _lights(board: Board, state: Path, put: Callable[[str], None], hood_empty: bool) -> list[CheckResult]:
    """Each light as the camera sees it on the grey card: its own pin lights it, and it goes out."""
    results = []
    try:
        with Workbench(board, state, put, hood_empty) as bench:
            bench.show("grey")
            if board.room_lit:
                return [CheckResult("camera", True, f"sees {100 * _level(bench, 'white'):.0f} % of white")]
            results.append(_darkness(bench))
            for name, light in board.lights.items():
                if light.is_uv and not hood_empty:
                    results.append(CheckResult(f"light {name}", None, "needs --hood-empty"))
                    continue
                # The sensors first: one that is dead locks UV after this pulse.
                if board.has_uv:
                    results.append(_sensed(bench, name))
                results.append(_glows(bench, name) if light.is_uv else _seen(bench, name))
            results.append(_darkness(bench, "dark again"))
    except (LightsFault, CameraFrozen, DriverMissing, OSError) as error:
        results.append(CheckResult("lights and camera", False, str(error)))
    return results


def _sensed(bench: Workbench, name: str) -> CheckResult:
    """What photodiode and current sense read with light `name` off, on, and off again."""
    check = f"sensors, {name}"
    try:
        steps = bench.sense(name)
    except LightsFault as fault:
        return CheckResult(check, False, str(fault))
    wanted = [False, bench.board.lights[name].is_uv, False]
    found, wrong, values = [], [], {}
    for which, (key, sensor, unit) in enumerate(_SENSORS):
        values[key] = [step["sensors"][key] for step in steps]
        # The sensor's noise around 0 is no negative light: + 0.0 takes the sign off a zero.
        words = ["–" if value is None else f"{round(value, 2) + 0.0:.2f}" for value in values[key]]
        found.append(f"{sensor} {', '.join(words)} {unit}")
        wrong += _sensor_wrong(sensor, name, [step["uv_seen"][which] for step in steps], wanted)
    if wanted[1] and not wrong:
        wrong += _brightness_wrong(bench.board.lights[name], name, steps[1]["sensors"]["photodiode_w_m2"])
    return CheckResult(
        check, not wrong, "; ".join(wrong or found) + ("" if wrong else " (off, on, off)"), values
    )


def _brightness_wrong(light: Light, name: str, seen_w_m2: float | None) -> list[str]:
    """What is wrong with UV light `name` where the photodiode sees `seen_w_m2`; the dose is reckoned by its
    `irradiance_w_m2`.
    """
    wanted = light.irradiance_w_m2 or 0.0
    low, high = (share * wanted for share in _UV_LEVEL)
    if seen_w_m2 is None or low <= seen_w_m2 <= high:
        return []
    than = "brighter than" if seen_w_m2 > high else "not as bright as"
    return [
        f"{name} gives {seen_w_m2:.1f} W/m² by the photodiode, {than} the {wanted:g} W/m² of the profile:"
        " clean lamp and photodiode, then measure the lamp again"
    ]


def _sensor_wrong(sensor: str, light: str, seen: list[bool | None], wanted: list[bool]) -> list[str]:
    """What is wrong with `sensor`, which saw the UV lamp as `seen` says; at most one sentence."""
    if None in seen:
        return [f"the {sensor} cannot be read: look at it, its wire and the converter"]
    if seen == wanted:
        return []
    if not any(seen):
        return [
            f"the {sensor} does not see {light} lit: it is dead or covered, its wire is torn, or the lamp"
        ]
    if wanted[1]:
        return [f"the {sensor} sees {light} lit while it is off: a lamp or the sensor is stuck"]
    return [f"the {sensor} takes {light} for the UV lamp: other light falls on it"]


def _level(bench: Workbench, name: str) -> float:
    """Reflectance, as the nominal calibration has it, in the middle of the picture."""
    counts, exposure = bench.expose(name)[0]
    return float(reflectance(bench.board, name, middle(counts), exposure).mean()) / 65_535


def _darkness(bench: Workbench, check: str = "dark") -> CheckResult:
    level = _level(bench, DARK)
    return CheckResult(check, level < _DARK, f"{100 * level:.2f} % of white with all lights off")


def _seen(bench: Workbench, name: str) -> CheckResult:
    wanted = GREY_REFLECTANCE * seen_share(name)
    try:
        share = _level(bench, name) / wanted
    except LightsFault as fault:
        return CheckResult(f"light {name}", False, str(fault))
    well = _LEVEL[0] <= share <= _LEVEL[1]
    return CheckResult(f"light {name}", well, f"camera sees {100 * share:.0f} % of nominal")


def _glows(bench: Workbench, name: str) -> CheckResult:
    """A UV light, as the camera sees it: no target has a nominal glow."""
    try:
        level = _level(bench, name)
    except LightsFault as fault:
        return CheckResult(f"light {name}", False, f"not lit: {fault}")
    return CheckResult(f"light {name}", level > _DARK, f"camera sees {100 * level:.1f} % of white")


def _lamp_hours(board: Board, hours: Mapping[str, float]) -> CheckResult:
    """Lamps beyond what their maker rates them for."""
    worn = [
        f"{name} has {rounded(hours.get(name, 0.0), 'h')} of {light.rated_h:g} h: put in a new lamp, then run"
        " 'dermakiosk lights new-lamp'"
        for name, light in board.lights.items()
        if light.rated_h is not None and hours.get(name, 0.0) > light.rated_h
    ]
    lit = ", ".join(f"{name} {rounded(hours[name], 'h', 1)}" for name in board.lights if name in hours)
    return CheckResult("lamp hours", not worn, "; ".join(worn) or lit or "no lamp was ever lit", dict(hours))


def _calibration(board: Board, state: Path, status: Mapping[str, Any]) -> CheckResult:
    calibration = newest_calibration(state, board)
    why_not = why_not_to_scan(state, board, calibration)
    if why_not is not None:
        return CheckResult("calibration", False, why_not)
    if calibration is None:
        return CheckResult("calibration", None, "never calibrated: nominal constants apply")
    aged = lamps_aged(board, calibration, status)
    if aged is not None:
        return CheckResult("calibration", False, aged)
    days = (datetime.now(timezone.utc) - calibration.made_at).days
    old = counted(days, "day") if days else "less than a day"
    return CheckResult("calibration", True, f"{calibration.id}, {old} old")


def _storage(state: Path) -> CheckResult:
    """The disk, in the one folder that whoever runs this may write on an installed kiosk."""
    folder = state / "calibration"
    try:
        make_folder(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".selftest") as file:
            written = os.urandom(4096)
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            if file.read() != written:
                return CheckResult("storage", False, "what was written reads back different")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return CheckResult("storage", False, f"{folder} cannot be written: {error.strerror or error}")
    return CheckResult("storage", free >= _LEAST_FREE_BYTES, f"{free / 1024**3:.1f} GiB free")


def _clock(board: Board) -> CheckResult:
    now = datetime.now(timezone.utc)
    said = now.isoformat(timespec="seconds")
    if board.simulated or not board.has_uv:
        return CheckResult("clock", now > _BUILT, said)
    by = vouched_by(now.timestamp())
    why = f"by {by}" if by else "neither a time server nor a battery clock vouches for it, so there is no UV"
    return CheckResult("clock", now > _BUILT and by is not None, f"{said}, {why}")


def _temperature() -> CheckResult:
    with contextlib.suppress(OSError, ValueError):
        celsius = int(_CPU_TEMPERATURE.read_text(encoding="utf-8")) / 1000
        return CheckResult("processor temperature", celsius < _CPU_HOT_C, f"{celsius:.0f} °C")
    return CheckResult("processor temperature", None, "this machine has no such sensor")


def _power(system: Path = Path("/sys")) -> CheckResult:
    """The Raspberry Pi's flags: bit 0 under-voltage now, bit 16 since start."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        flags = int(next(system.glob(_THROTTLED)).read_text(encoding="utf-8"), 16)
        if flags & 1:
            return CheckResult("power", False, "under-voltage now: use the supply from the bill of materials")
        if flags & 1 << 16:
            return CheckResult("power", False, "under-voltage since start: look at supply and cable")
        return CheckResult("power", True, "no under-voltage since start")
    return CheckResult("power", None, "this machine does not report under-voltage")
