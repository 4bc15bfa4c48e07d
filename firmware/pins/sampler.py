"""Sampler: the newest voltage of each of the lamp's sensors, converted beside the light daemon's loop.

The budget, on a bus at 100 kHz. One channel takes 0.4 ms to write its config, 1.5 ms to convert and 0.9 ms
to read two registers: 2.8 ms. The three of them take 8.5 ms, so that with `_PAUSE_S` a cycle is 10 ms, as
long as one look of the light core at a pulse.

The loop itself never waits for the bus. A transfer that hangs holds only this thread, for as long as the
kernel lets it (`_BUS_TIMEOUT_S` where the adapter can be told, else a second); meanwhile what was read gets
old, and a voltage whose conversion began more than `OLDEST_S` ago is none. So that time is

- longer than three cycles: transfers may go wrong, as they do beside a lamp that is switched;
- shorter than the 50 ms from off to the look at a lamp that must be dark: what is looked at then was
  converted at least 10 ms after it, in the dark;
- far shorter than the 200 ms of a heartbeat: UV is off within one look more once its sensors are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

OLDEST_S = 0.04
_PAUSE_S = 0.0015
_BUS_TIMEOUT_S = 0.02
# A bus that cannot be opened is tried again this often, and one on which nothing answers is opened anew.
_OPEN_AGAIN_S = 0.5
_CLOSE_S = 0.2
# From linux/i2c-dev.h; in units of 10 ms.
_I2C_TIMEOUT = 0x0702


class Converter(Protocol):
    """What gives the voltage of a channel now. Raises OSError."""

    def volts(self, channel: int) -> float: ...


class Sampler:
    """Reads `channels` of the converter that `open_converter` gives, over and over, in a thread of its own.

    `open_converter` raises OSError while there is none; it is asked again. `clock` gives seconds.
    """

    def __init__(
        self,
        open_converter: Callable[[], tuple[Converter, Callable[[], None]]],
        channels: Collection[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._channels, self._clock = open_converter, tuple(channels), clock
        self._newest: dict[int, tuple[float, float]] = {}
        self._trouble = "it was not read yet"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> Sampler:
        self._thread.start()
        return self

    def volts(self, channel: int) -> float:
        """The voltage of `channel`, converted a moment ago. Never waits. Raises OSError."""
        at, volts = self._newest.get(channel, (-OLDEST_S, 0.0))
        if self._clock() - at > OLDEST_S:
            raise OSError(f"the converter of the sensors gives no voltage ({self._trouble})")
        return volts

    def sample(self, converter: Converter) -> bool:
        """One cycle: every channel once; False where none answered.

        A channel that fails keeps its last voltage until that is too old.
        """
        answered = False
        for channel in self._channels:
            begun = self._clock()
            try:
                self._newest[channel] = (begun, converter.volts(channel))
                answered = True
            except OSError as error:
                self._trouble = str(error)
        return answered

    def close(self) -> None:
        """Stop reading; a transfer that hangs is left behind in its thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        go_first()
        while not self._stopping.is_set():
            try:
                converter, close = self._open()
            except OSError as error:
                self._trouble = str(error)
                self._stopping.wait(_OPEN_AGAIN_S)
                continue
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                stack.callback(close)
                answered_at = self._clock()
                while self._clock() - answered_at < _OPEN_AGAIN_S and not self._stopping.wait(_PAUSE_S):
                    if self.sample(converter):
                        answered_at = self._clock()


def bound_bus(bus: Any) -> None:
    """Have the adapter of `bus` (an SMBus) give up on a transfer soon, where it lets itself be told."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(bus.fd, _I2C_TIMEOUT, round(_BUS_TIMEOUT_S / 0.01))


def go_first() -> bool:
    """Ask the kernel to run this thread before all ordinary ones; False where that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(20))
    except OSError:
        return False
    return True
