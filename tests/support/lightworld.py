"""A world for the light core: clocks, pins with a history, failing senses, with a judge of what was lit."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

from firmware.doses import DoseLedger, DoseRefused, Moment
from firmware.lightcore import LightCore
from firmware.stamps import ConsentStamp, UvAllowance
from hardware.board import Board, load_board

BOARD = Path(__file__).parents[2] / "hardware" / "boards" / "simulated.toml"
CONSENT = ConsentStamp("1", "en", datetime(2026, 1, 1, tzinfo=timezone.utc))
# A daemon's loop looks every 10 ms; the judge allows it one look and a little.
LOOP_S = 0.01
GRACE_S = 0.011


class World:
    """Drives one LightCore over injected clocks; `pins`, `senses` and `ledger` are this object."""

    def __init__(self, irradiance: float = 33.0) -> None:
        board = load_board(BOARD)
        uv = board.lights["uv365"].model_copy(update={"irradiance_w_m2": irradiance})
        self.board: Board = board.model_copy(update={"lights": {**board.lights, "uv365": uv}})
        self.irradiance = irradiance
        self.now = 1_000.0
        self.wall_offset = 1_800_000_000.0
        self.shroud = [True, True]
        self.temperature = 35.0
        self.sense_fails = False
        self.pin_fails = False
        self.ledger_fails = False
        self.uv_stuck = False
        self.levels: dict[str, float] = {}
        self.history: list[tuple[float, str, float]] = []
        self.opened: list[tuple[float, bool]] = [(self.now, False)]
        self.faults: list[str] = []
        self._database = DoseLedger(":memory:")
        self.core = self.start()

    def start(self) -> LightCore:
        """A light core in a fresh process: pins fall low, the ledger is what it was."""
        self.levels = dict.fromkeys(self.levels, 0.0)
        self.core = LightCore(self.board, self, self, self, lambda: self.now, self.moment, self.faults.append)
        return self.core

    def moment(self) -> Moment:
        return Moment(self.now + self.wall_offset, self.now, "boot")

    def allowance(self, patient: str = "p1", age: float = 1.0) -> UvAllowance:
        return UvAllowance(patient, True, self.moment().wall - age)

    def advance(self, seconds: float, beat: int | None = None) -> None:
        """Let time pass as the daemon's loop does; `beat` names a client that beats every 100 ms."""
        end, next_beat = self.now + seconds, self.now
        while self.now < end:
            if beat is not None and self.now >= next_beat:
                self.core.beat(beat)
                next_beat = self.now + 0.1
            self.now = min(end, self.now + max(0.001, min(self.core.next_tick_s(), LOOP_S)))
            self.core.tick()

    def skip(self, seconds: float) -> None:
        """Let a long time pass at once, in the dark."""
        self.advance(0.2)
        self.now += seconds
        self.core.tick()

    def set_interlock(self, shroud: tuple[bool, bool], temperature: float) -> None:
        self.shroud, self.temperature = list(shroud), temperature
        self.opened.append((self.now, shroud != (True, True) or not temperature < 60.0))

    # The pins.
    def set(self, light: str, level: float) -> None:
        if self.pin_fails:
            raise OSError("pin failed")
        self._write(light, level)

    def all_low(self) -> None:
        for light in list(self.levels):
            self._write(light, 0.0)
        if self.pin_fails:
            raise OSError("pin failed")

    def _write(self, light: str, level: float) -> None:
        if self.levels.get(light, 0.0) != level:
            self.levels[light] = level
            self.history.append((self.now, light, level))

    # The senses.
    def shroud_closed(self) -> tuple[bool, bool]:
        if self.sense_fails:
            raise OSError("no answer")
        return self.shroud[0], self.shroud[1]

    def lamp_temperature_c(self) -> float:
        return self.temperature

    def uv_seen(self) -> bool:
        return self.uv_stuck or self.levels.get("uv365", 0.0) > 0

    # The ledger: a real one that can be made to fail.
    def charge(self, *arguments: object) -> None:
        self._fail()
        self._database.charge(*arguments)  # type: ignore[arg-type]

    def own_up(self, *arguments: object) -> None:
        self._fail()
        self._database.own_up(*arguments)  # type: ignore[arg-type]

    def latch(self, *arguments: object) -> None:
        self._fail()
        self._database.latch(*arguments)  # type: ignore[arg-type]

    def latched(self) -> str | None:
        self._fail()
        return self._database.latched()

    def clear(self, staff: str) -> None:
        self._fail()
        self._database.clear(staff)

    def _fail(self) -> None:
        if self.ledger_fails:
            raise DoseRefused("ledger_failed", "The disk is full.")

    def uv_intervals(self) -> list[tuple[float, float]]:
        """When UV was lit, from the pins' own history."""
        intervals, since = [], None
        for at, light, level in self.history:
            if light != "uv365":
                continue
            if level > 0:
                since = at
            elif since is not None:
                intervals.append((since, at))
                since = None
        if since is not None:
            intervals.append((since, self.now))
        return intervals


class Judge:
    """Says what was wrong with a World's pin history, knowing nothing of how the core decides."""

    def __init__(self, world: World) -> None:
        self.world = world
        # (when it was accepted, patient, session, last beat before it went out)
        self.pulses: list[tuple[float, str, str]] = []
        self.beats: list[float] = []

    def violations(self) -> list[str]:
        world, found = self.world, []
        intervals = world.uv_intervals()
        for begin, end in intervals:
            if end - begin > 1.0 + 1e-9:
                found.append(f"UV for {end - begin:.3f} s")
            if self._open_within(begin, end):
                found.append("UV with an interlock open")
            beats = [begin, *(beat for beat in self.beats if begin < beat <= end), end]
            if any(later - earlier > 0.2 + GRACE_S for earlier, later in zip(beats, beats[1:], strict=False)):
                found.append("UV without heartbeat")
        found += self._doses(intervals)
        rises = self._rises()
        found += ["flashing" for a, b in zip(rises, rises[1:], strict=False) if b - a < 1 / 3 - 1e-9]
        return found

    def _open_within(self, begin: float, end: float) -> bool:
        changes = [*self.world.opened, (self.world.now + 1e9, False)]
        for (since, is_open), (until, _) in zip(changes, changes[1:], strict=False):
            overlap = min(end, until) - max(begin, since)
            if is_open and (overlap > GRACE_S or since < begin < until):
                return True
        return False

    def _doses(self, intervals: list[tuple[float, float]]) -> list[str]:
        found, by_session, by_patient = [], defaultdict(list), defaultdict(list)
        starts = {begin: (patient, session) for begin, patient, session in self.pulses}
        for begin, end in intervals:
            if begin not in starts:
                found.append("UV that nobody was granted")
                continue
            patient, session = starts[begin]
            dose = (end - begin) * self.world.irradiance
            by_session[session].append(dose)
            by_patient[patient].append((begin, dose))
        for doses in by_session.values():
            if len(doses) > 6 or sum(doses) > 150 + 1e-6:
                found.append(f"{len(doses)} pulses, {sum(doses):.0f} J/m² in a scan")
        for doses in by_patient.values():
            for begin, _ in doses:
                day = sum(dose for at, dose in doses if begin <= at < begin + 86_400)
                if day > 450 + 1e-6:
                    found.append(f"{day:.0f} J/m² in 24 h")
        return found

    def _rises(self) -> list[float]:
        levels: dict[str, float] = {}
        rises = []
        for at, light, level in self.world.history:
            if level > levels.get(light, 0.0):
                rises.append(at)
            levels[light] = level
        return rises
