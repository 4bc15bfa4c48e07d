"""What the engines' kernels are chosen by: this machine's instruction set, in a short name."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# By the machine, the widest first: the flag in /proc/cpuinfo, and what is said of it.
_SETS = {
    "x86_64": (
        ("avx512_vnni", "avx512-vnni"),
        ("avx512bw", "avx512"),
        ("avx_vnni", "avx-vnni"),
        ("avx2", "avx2"),
        ("avx", "avx"),
        ("sse4_1", "sse4"),
    ),
    "aarch64": (("i8mm", "i8mm"), ("asimddp", "dotprod"), ("asimd", "neon")),
}
_MACHINES = {"x86_64": "x86-64"}


@lru_cache(maxsize=1)
def instruction_set() -> str:
    """Such as "x86-64 avx512-vnni", "x86-64 avx2" or "aarch64 dotprod"; without flags, the machine alone."""
    try:
        return named(platform.machine(), CPUINFO.read_text(encoding="utf-8"))
    except OSError:
        return named(platform.machine(), "")


def named(machine: str, cpuinfo: str) -> str:
    """The name for a `machine` as uname gives it, with its /proc/cpuinfo."""
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    best = next((name for flag, name in _SETS.get(machine, ()) if flag in flags), "")
    return f"{_MACHINES.get(machine, machine)} {best}".strip()
