"""Clock: whether something vouches for this machine's wall clock.

At the start systemd sets it to the last time that it has kept, so that it looks credible and is early by as
long as the machine was off.
"""

from __future__ import annotations

from pathlib import Path

# There once systemd-timesyncd has had the time from a server since the machine was started.
_SYNCHRONIZED = Path("run/systemd/timesync/synchronized")
_BATTERY_CLOCKS = "sys/class/rtc/*/since_epoch"
# A battery clock says whole seconds, and drifts by some in a day.
_AGREE_S = 60.0


def vouched_by(wall: float, root: Path = Path("/")) -> str | None:
    """What vouches for `wall` (Unix seconds): "a time server", "the battery clock", or None."""
    if (root / _SYNCHRONIZED).exists():
        return "a time server"
    for clock in root.glob(_BATTERY_CLOCKS):
        try:
            if abs(int(clock.read_text(encoding="utf-8")) - wall) <= _AGREE_S:
                return "the battery clock"
        except (OSError, ValueError):
            continue
    return None
