"""The self-test: every light seen, every interlock read, storage, clock and power looked at."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from firmware.calibration import newest_calibration
from firmware.camera import CameraFrozen, reflectance
from firmware.grey_card import why_not_to_scan
from firmware.lights import Lights, LightsFault
from firmware.stamps import UvAllowance
from firmware.workbench import Workbench
from hardware.board import Board, DriverMissing
from hardware.targets import GREY_REFLECTANCE

# A card seen under a light that is lit comes out within this share of what it should.
_LEVEL = (0.7, 1.3)
_DARK = 0.005
_LEAST_FREE_BYTES = 2 * 1024**3
_BUILT = datetime(2026, 1, 1, tzinfo=timezone.utc)
_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_CPU_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")
_CPU_HOT_C = 80.0


@dataclass(frozen=True)
class Result:
    """One line of the table: what was checked, whether it is well (None: not tested), what was found."""

    check: str
    ok: bool | None
    found: str


def run_selftest(
    board: Board, state: Path, put: Callable[[str], None], hood_empty: bool = False
) -> list[Result]:
    """Every check, each in its own line whatever becomes of the others. `put` as for the Workbench."""
    results = [_light_daemon(state)]
    results += _lights(board, state, put, hood_empty)
    results += [_calibration(board, state), _storage(state), _clock(), _temperature(), _power()]
    return results


def _light_daemon(state: Path) -> Result:
    lights = Lights(state / "run" / "light.sock")
    try:
        status = lights.status()
    except LightsFault as fault:
        return Result("light daemon", False, str(fault))
    finally:
        lights.close()
    latched = status.get("fault")
    found = "no fault latched" if latched is None else f"latched: {latched}"
    return Result("light daemon", latched is None, found)


def _lights(board: Board, state: Path, put: Callable[[str], None], hood_empty: bool) -> list[Result]:
    """Each light as the camera sees it on the grey card: its own pin lights it, and it goes out."""
    # A reference of its own: the dose ledger counts what the self-test uses, against no patient.
    uv = UvAllowance("selftest", True, time.time()) if hood_empty else None
    results = []
    try:
        with Workbench(board, state, put, uv) as bench:
            bench.show("grey")
            results.append(_darkness(bench))
            for name, light in board.lights.items():
                if light.is_uv and uv is None:
                    results.append(Result(f"light {name}", None, "needs --hood-empty"))
                    results.append(Result(f"interlocks of {name}", None, "needs --hood-empty"))
                elif light.is_uv:
                    results += _uv(bench, name)
                else:
                    results.append(_seen(bench, name))
            results.append(_darkness(bench, "dark again"))
    except (LightsFault, CameraFrozen, DriverMissing, OSError) as error:
        results.append(Result("lights and camera", False, str(error)))
    return results


def _level(bench: Workbench, name: str | None) -> float:
    """Reflectance, as the nominal calibration has it, in the middle of the picture."""
    counts, exposure = bench.expose(name)[0]
    height, width = counts.shape[:2]
    middle = counts[3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8]
    return float(reflectance(bench.board, name or "dark", middle, exposure).mean()) / 65_535


def _darkness(bench: Workbench, check: str = "dark") -> Result:
    level = _level(bench, None)
    return Result(check, level < _DARK, f"{100 * level:.2f} % of white with all lights off")


def _seen(bench: Workbench, name: str) -> Result:
    wanted = GREY_REFLECTANCE * (0.5 if name in ("parallel", "cross") else 1.0)
    try:
        share = _level(bench, name) / wanted
    except LightsFault as fault:
        return Result(f"light {name}", False, str(fault))
    well = _LEVEL[0] <= share <= _LEVEL[1]
    return Result(f"light {name}", well, f"camera sees {100 * share:.0f} % of nominal")


def _uv(bench: Workbench, name: str) -> list[Result]:
    """UV lit once, with all its interlocks asked by the light daemon, which then looks at the photodiode."""
    check = f"interlocks of {name}"
    try:
        level = _level(bench, name)
    except LightsFault as fault:
        return [
            Result(f"light {name}", None, "was not lit"),
            Result(check, False, f"the light daemon refused: {fault}"),
        ]
    results = [Result(f"light {name}", level > _DARK, f"camera sees {100 * level:.1f} % of white")]
    deadline = time.monotonic() + 1.0
    fault_code = None
    while time.monotonic() < deadline and fault_code is None:
        fault_code = bench.status().get("fault")
        time.sleep(0.05)
    if fault_code is None:
        results.append(Result(check, True, "closed; the photodiode saw the lamp go out"))
    else:
        results.append(Result(check, False, f"latched: {fault_code}"))
    return results


def _calibration(board: Board, state: Path) -> Result:
    calibration = newest_calibration(state, board)
    why_not = why_not_to_scan(state, board, calibration)
    if why_not is not None:
        return Result("calibration", False, why_not)
    if calibration is None:
        return Result("calibration", None, "never calibrated: nominal constants apply")
    days = (datetime.now(timezone.utc) - calibration.made_at).days
    return Result("calibration", True, f"{calibration.id}, {days} days old")


def _storage(state: Path) -> Result:
    try:
        state.mkdir(parents=True, mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=state, prefix=".selftest") as file:
            written = os.urandom(4096)
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            if file.read() != written:
                return Result("storage", False, "what was written reads back different")
        free = shutil.disk_usage(state).free
    except OSError as error:
        return Result("storage", False, f"{state} cannot be written: {error.strerror or error}")
    return Result("storage", free >= _LEAST_FREE_BYTES, f"{free / 1024**3:.1f} GiB free")


def _clock() -> Result:
    now = datetime.now(timezone.utc)
    return Result("clock", now > _BUILT, now.isoformat(timespec="seconds"))


def _temperature() -> Result:
    with contextlib.suppress(OSError, ValueError):
        celsius = int(_CPU_TEMPERATURE.read_text()) / 1000
        return Result("processor temperature", celsius < _CPU_HOT_C, f"{celsius:.0f} °C")
    return Result("processor temperature", None, "this machine has no such sensor")


def _power() -> Result:
    """The Raspberry Pi's flags: bit 0 under-voltage now, bit 16 since start."""
    with contextlib.suppress(OSError, ValueError):
        flags = int(_THROTTLED.read_text(), 16)
        if flags & 1:
            return Result("power", False, "under-voltage now: use the supply from the bill of materials")
        if flags & 1 << 16:
            return Result("power", False, "under-voltage since start: look at supply and cable")
        return Result("power", True, "no under-voltage since start")
    return Result("power", None, "this machine does not report under-voltage")
