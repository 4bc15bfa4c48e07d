"""LampHours: how long each lamp has been lit in its life, kept over restarts and power cuts.

Lamps fade by the hour. The count is taken where the pins are switched and costs a clock reading there; it is
written by a thread of its own, at most `EVERY_S` late, so that no light ever waits for a disk. A power cut
loses less than a minute.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from firmware.pins.protocols import Pins
from hardware.host.durable import rename, write_whole
from hardware.host.regular_file import read_regular_file

EVERY_S = 30.0
_CLOSE_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True)
class _Tally:
    """Seconds lit until `since` and how often it was renewed, by lamp; `lit` is on since then."""

    seconds: Mapping[str, float]
    renewals: Mapping[str, int]
    lit: str | None = None
    since: float = 0.0

    def seconds_at(self, now: float) -> dict[str, float]:
        if self.lit is None:
            return dict(self.seconds)
        lit = self.seconds.get(self.lit, 0.0) + max(0.0, now - self.since)
        return {**self.seconds, self.lit: lit}

    def at(self, now: float, lit: str | None) -> _Tally:
        """The same until `now`, from when on `lit` is on."""
        return replace(self, seconds=self.seconds_at(now), lit=lit, since=now)


class LampHours:
    """`pins`, with the hours of each lamp counted into the file at `path`. `monotonic` gives seconds.

    A file that cannot be read is kept beside the new one, which begins at 0.
    """

    def __init__(self, pins: Pins, path: Path, monotonic: Callable[[], float]) -> None:
        self._pins, self._path, self._monotonic = pins, path, monotonic
        # Replaced as a whole at each change, because the writer reads it at any time.
        self._tally = self._written = _Tally(*_read(path))
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._has_written = threading.Condition()
        self._writer = threading.Thread(target=self._keep_writing, name="lamp hours", daemon=True)

    def start(self) -> LampHours:
        """Begin to write."""
        self._writer.start()
        return self

    def set(self, light: str, level: float) -> None:
        """See Pins.set; any level counts in full. Raises OSError."""
        now = self._monotonic()
        self._tally = self._tally.at(now, light if level > 0 else None)
        self._pins.set(light, level)

    def all_low(self) -> None:
        """See Pins.all_low. Raises OSError."""
        self._pins.all_low()
        self._tally = self._tally.at(self._monotonic(), None)

    def hours(self) -> dict[str, float]:
        """Hours lit, for each lamp that ever was."""
        seconds = self._tally.seconds_at(self._monotonic())
        return {light: round(lit / 3600, 4) for light, lit in seconds.items()}

    def renewals(self) -> dict[str, int]:
        """How often a new lamp was put in, for each light where one was."""
        return dict(self._tally.renewals)

    def renew(self, light: str) -> None:
        """A new lamp is in: `light` begins at 0."""
        tally = self._tally.at(self._monotonic(), self._tally.lit)
        renewals = {**tally.renewals, light: tally.renewals.get(light, 0) + 1}
        self._tally = replace(tally, seconds={**tally.seconds, light: 0.0}, renewals=renewals)

    def write(self) -> None:
        """Write the hours until now, durably. Raises OSError."""
        tally = self._tally
        kept = {
            light: {"seconds": seconds, "renewals": tally.renewals.get(light, 0)}
            for light, seconds in tally.seconds_at(self._monotonic()).items()
        }
        write_whole(self._path, json.dumps(kept))

    def written(self, within_s: float) -> bool:
        """Have the writer write what is counted now; whether it has, after so many seconds at most."""
        tally = self._tally
        self._wake.set()
        with self._has_written:
            return self._has_written.wait_for(lambda: self._written is tally, within_s)

    def close(self) -> None:
        """Write a last time, unless the disk takes too long."""
        self._stopping.set()
        self._wake.set()
        if self._writer.ident is not None:
            self._writer.join(_CLOSE_S)

    def _keep_writing(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            stopping = self._stopping.is_set()
            tally = self._tally
            if tally is self._written and tally.lit is None:
                continue
            try:
                self.write()
            except OSError as error:
                log.warning("lamp_hours_not_written", why=str(error))
                continue
            with self._has_written:
                self._written = tally
                self._has_written.notify_all()


def _read(path: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds lit and renewals by lamp; none where there is no file yet, or no readable one.

    Where a lamp has a bare number, it is of a time before renewals were counted: its seconds.
    """
    try:
        kept = {
            str(light): one if isinstance(one, dict) else {"seconds": one, "renewals": 0}
            for light, one in json.loads(read_regular_file(path)).items()
        }
        seconds = {light: float(one["seconds"]) for light, one in kept.items()}
        renewals = {light: int(one["renewals"]) for light, one in kept.items() if one["renewals"]}
        if all(0 <= one < float("inf") for one in (*seconds.values(), *renewals.values())):
            return seconds, renewals
        why = "it has a count that cannot be"
    except FileNotFoundError:
        return {}, {}
    except (
        OSError,
        ValueError,
        OverflowError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        why = error.strerror or "unknown" if isinstance(error, OSError) else "the file is damaged"
    log.error("lamp_hours_unreadable", why=why, begin_at=0)
    try:
        rename(path, path.with_suffix(".damaged"))
    except OSError as error:
        log.error("lamp_hours_not_set_aside", why=str(error))
    return {}, {}
