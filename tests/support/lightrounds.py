"""Rounds of the real light daemon in real time: random clients and faults, the pins' history judged."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from firmware.lights.client import Lights, LightsFault
from firmware.line.link import Link, LinkError
from firmware.line.stamps import UvAllowance
from hardware.simulated.pins import PinReader
from tests.support import faulty_lightd as switch
from tests.support.faulty_lightd import Switchboard
from tests.support.kiosk_daemons import ROOT, SIMULATED, consent
from tests.support.lighttape import EVERYONE, Grant, Judge, Tape

# On a machine with other work, a look of the daemon and a note of ours may each come this much late.
_GRACE_S = 0.1
_IRRADIANCE = 8.0
TROUBLES = (
    "open the first switch",
    "open the second switch",
    "flicker the shroud",
    "heat the lamp",
    "lose the senses",
    "blind the photodiode",
    "blind the current sense",
    "stick the lamp",
    "lock the ledger",
    "set the clock ahead",
    "set the clock back",
    "fall silent",
    "hang up",
    "send nonsense",
    "intrude",
    "stop the daemon for a while",
    "terminate the daemon",
    "kill the daemon",
)


class Rounds:
    """One light daemon after another in `folder`; `tape` has everything that happened to all of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.state, self.random = folder / "k", Random(seed)
        self.state.mkdir(parents=True)
        self._socket = self.state / "run" / "light.sock"
        self.switches = Switchboard(folder / "switches")
        self.tape = Tape(_GRACE_S, _IRRADIANCE)
        self.troubles: Counter[str] = Counter()
        self._switches_path = folder / "switches"
        self._start()

    def close(self) -> list[str]:
        """End the daemon; what the judge finds."""
        self._end_daemon(signal.SIGTERM)
        self.tape.pins.sort()
        self.tape.end = time.monotonic()
        return Judge(self.tape).violations()

    def give_up(self) -> None:
        """Leave no daemon behind, where something raised before `close` was done."""
        if self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait(60)
            self._pins.close()

    def play(self, number: int) -> None:
        """One round: a client lights and beats, something goes wrong, all is mended."""
        random, patient = self.random, f"p{number // 2}"
        trouble = random.choice(TROUBLES)
        self.troubles[trouble] += 1
        before = random.random() < 0.2
        lights = Lights(self._socket)
        with contextlib.suppress(LightsFault):
            if before:
                self._make(trouble, lights)
            for _ in range(random.randint(1, 3)):
                self._one_light(lights, number, patient, None if before else trouble)
        self._note_gone(number)
        lights.close()
        self._mend(number)
        if trouble.startswith("set the clock"):
            # A ledger that has seen tomorrow allows no UV today: the next round has a new one.
            self._end_daemon(signal.SIGTERM)
            # So that it is not one that was lost, its mark goes too.
            for name in ("doses.sqlite", "doses.made"):
                (self.state / "light" / name).unlink()
            self.tape.new_ledgers.append(time.monotonic())
            self._start()

    def _one_light(self, lights: Lights, number: int, patient: str, trouble: str | None) -> None:
        random = self.random
        wall = time.time() + 3600.0 * self.tape_hours
        uv = UvAllowance(patient, True, wall)
        lights.lease(f"scan {number}", consent(), uv)
        seconds = random.choice([0.1, 0.4, 0.9])
        if random.random() < 0.2:
            at = lights.on("white") / 1e9
        else:
            at = lights.pulse("uv365", seconds) / 1e9
            self.tape.grants.append(Grant(at, number, f"scan {number}", patient, True, wall, wall))
        self.tape.beats.append((at, number))
        when, done = at + random.uniform(0.0, min(seconds, 0.5)), False
        while time.monotonic() < at + seconds + 0.1:
            if not done and time.monotonic() >= when:
                done = True
                if trouble is not None:
                    self._make(trouble, lights)
                if trouble in ("fall silent", "hang up"):
                    time.sleep(random.choice([0.4, 2.6]))
                    return
            self.tape.beats.append((time.monotonic(), number))
            lights.beat()
            time.sleep(random.uniform(0.03, 0.1))
        if random.random() < 0.5:
            lights.off()
        time.sleep(random.uniform(0.0, 0.2))

    def _make(self, trouble: str, lights: Lights) -> None:
        now, switches = time.monotonic(), self.switches
        if trouble == "flicker the shroud":
            for _ in range(6):
                self._open(switch.OPEN_A, not switches[switch.OPEN_A])
                time.sleep(self.random.uniform(0.001, 0.03))
        elif trouble in _INTERLOCKS:
            self._open(_INTERLOCKS[trouble], True)
        elif trouble.startswith("blind"):
            switches[switch.BLIND if "photodiode" in trouble else switch.NUMB] = 1
            self.tape.blind.append((now, True))
        elif trouble == "stick the lamp":
            switches[switch.STUCK] = 1
            self.tape.stuck.append((now, True))
        elif trouble == "lock the ledger":
            self._lock_the_ledger()
        elif trouble == "set the clock ahead":
            switches[switch.CLOCK] = 30
        elif trouble == "set the clock back":
            switches[switch.CLOCK] = 128 + 30
        elif trouble == "hang up":
            self._note_gone(self.tape.beats[-1][1] if self.tape.beats else EVERYONE)
            lights.close()
        elif trouble == "send nonsense":
            self._send_nonsense()
        elif trouble == "intrude":
            self._intrude()
        elif trouble == "stop the daemon for a while":
            os.kill(self.daemon.pid, signal.SIGSTOP)
            time.sleep(self.random.choice([0.05, 0.3, 1.2]))
            os.kill(self.daemon.pid, signal.SIGCONT)
            self.tape.stalls.append((now, time.monotonic()))
        elif trouble in ("terminate the daemon", "kill the daemon"):
            self._end_daemon(signal.SIGKILL if trouble.startswith("kill") else signal.SIGTERM)
            self._start()

    def _open(self, which: int, is_open: bool) -> None:
        self.switches[which] = int(is_open)
        self.tape.open.append((time.monotonic(), is_open))

    def _lock_the_ledger(self) -> None:
        """Another process holds the ledger's file, for longer than the daemon waits for it."""
        ledger = sqlite3.connect(self.state / "light" / "doses.sqlite", isolation_level=None)
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(ledger):
            self.tape.ledger_failing.append((time.monotonic(), True))
            ledger.execute("BEGIN EXCLUSIVE")
            with contextlib.suppress(LightsFault), contextlib.closing(self._stranger()) as stranger:
                stranger.pulse("uv365", 0.1)
            time.sleep(0.2)
        self.tape.ledger_failing.append((time.monotonic(), False))

    def _send_nonsense(self) -> None:
        for data in (b"", b"{", b"[]", b"\xff" * 900, b'{"v":1,"do":"pulse","light":"uv365","seconds":1e9}'):
            with contextlib.suppress(OSError, LinkError), Link.connect(self._socket, 1) as link:
                os.write(link.fileno(), data)

    def _intrude(self) -> None:
        with contextlib.closing(self._stranger()) as stranger:
            for ask in (
                lambda: stranger.on("white"),
                lambda: stranger.pulse("uv365", 0.5),
                lambda: stranger.lease("other", consent()),
            ):
                with contextlib.suppress(LightsFault):
                    ask()

    def _stranger(self) -> Lights:
        return Lights(self._socket, timeout=0.3)

    def _mend(self, number: int) -> None:
        """Everything as it should be; staff clears what has latched."""
        now = time.monotonic()
        self.switches.reset()
        for changes in (self.tape.open, self.tape.stuck, self.tape.blind):
            changes.append((now, False))
        time.sleep(0.1)
        with contextlib.closing(Lights(self._socket, timeout=60.0)) as staff:
            if staff.status()["fault"] is None:
                return
            wall = time.time()
            with contextlib.suppress(LightsFault):
                passed = staff.clear("nurse") is None
                grants = [at for at, light, level in self._history() if light == "uv365" and level > 0]
                check = Grant(grants[-1], -2, f"check {number}", "light check", True, wall, wall, check=True)
                self.tape.grants.append(check)
                if passed:
                    self.tape.cleared.append(time.monotonic())

    @property
    def tape_hours(self) -> int:
        """How many hours the daemon's wall clock is ahead."""
        hours = self.switches[switch.CLOCK]
        return hours if hours < 128 else 128 - hours

    def _note_gone(self, client: int) -> None:
        self.tape.gone.append((time.monotonic(), client))

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.support.faulty_lightd", str(self._switches_path)]
        command += ["--board", str(SIMULATED), "--state", str(self.state)]
        log = self.state / "lightd.log"
        with log.open("wb") as stream:
            self.daemon = subprocess.Popen(command, cwd=ROOT, stderr=stream, stdout=stream)
        deadline = time.monotonic() + 120
        while b'"ready"' not in log.read_bytes():
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.01)
        self._pins = PinReader(self.state / "run" / "pins.page")
        self._pins.history()

    def _end_daemon(self, number: int) -> None:
        self._note_gone(EVERYONE)
        self.daemon.send_signal(number)
        self.daemon.wait(60)
        history = self._history()
        self.tape.pins += history
        if number == signal.SIGKILL:
            self.tape.killed += [at for at, _, level in history if level == 0.0][-1:]
        self.tape.restarts.append(time.monotonic())
        self._pins.close()

    def _history(self) -> list[tuple[float, str, float]]:
        return [(item.at_ns / 1e9, item.light, item.level) for item in self._pins.history()]


_INTERLOCKS = {
    "open the first switch": switch.OPEN_A,
    "open the second switch": switch.OPEN_B,
    "heat the lamp": switch.HOT,
    "lose the senses": switch.SENSE_FAILS,
}
