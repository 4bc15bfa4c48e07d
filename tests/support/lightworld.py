"""A world for the light core: clocks, pins, senses and a ledger, which can fail, and the tape of it all."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from firmware.lights.core import LightCore, LightRefused
from firmware.lights.doses import (
    FAULT_UNKNOWN,
    Dose,
    DoseLedger,
    DoseRefused,
    Moment,
)
from firmware.line.stamps import ConsentStamp, UvAllowance
from firmware.pins.protocols import UvSeen
from hardware.board import Board, load_board
from hardware.profile import Limits
from tests.support.lighttape import EVERYONE, Grant, Judge, Tape, lit_intervals

BOARD = Path(__file__).parents[2] / "hardware" / "boards" / "simulated.toml"
CONSENT = ConsentStamp("1", "en", datetime(2026, 1, 1, tzinfo=timezone.utc))
# A daemon's loop looks every 10 ms; the judge allows it one look and a little.
LOOP_S = 0.01
GRACE_S = 0.011
_MESSAGE_S = 1e-5
_EPOCH = date(1970, 1, 1)


@functools.cache
def _board() -> Board:
    return load_board(BOARD)


class World:
    """Drives one LightCore over injected clocks; `pins`, `senses` and `ledger` are this object."""

    def __init__(
        self,
        irradiance: float = 33.0,
        calibrated_on: date | str = "simulated",
        limits: dict[str, float] | None = None,
        core: type[LightCore] = LightCore,
        ledger: type[DoseLedger] = DoseLedger,
    ) -> None:
        board = _board()
        uv = board.lights["uv365"].model_copy(
            update={"irradiance_w_m2": irradiance, "calibrated_on": calibrated_on}
        )
        self.board: Board = board.model_copy(
            update={
                "lights": {**board.lights, "uv365": uv},
                "limits": board.limits.model_copy(update=limits or {}),
            }
        )
        self.irradiance = irradiance
        self.now = 1_000.0
        self.wall_offset = 1_800_000_000.0
        self.clock_known = True
        self.shroud = [True, True]
        self.temperature = 35.0
        self.sense_fails = False
        self.pin_fails = False
        self.low_fails = False
        self.ledger_fails = False
        self.ledger_takes = 0.0
        self.when_charged: Callable[[], None] = lambda: None
        self.uv_stuck = False
        # What fails of (photodiode, current sense): "blind" sees nothing, "lost" does not answer.
        self.lamp_senses: list[str] = ["", ""]
        self.levels: dict[str, float] = {}
        self.faults: list[str] = []
        self.tape = Tape(GRACE_S, irradiance, rows=[])
        if isinstance(calibrated_on, date):
            self.tape.calibrated.append((-1.0, (calibrated_on - _EPOCH).days))
        self.lamp_is_new = False
        self.renewals: Counter[str] = Counter()
        self.leases: dict[int, tuple[str, UvAllowance | None]] = {}
        self._core_class = core
        self._ledger_class = ledger
        self._database = ledger(":memory:")
        self.core = self.start()

    def start(self) -> LightCore:
        """A light core in a fresh process: pins fall low, the ledger is what it was."""
        self.levels = dict.fromkeys(self.levels, 0.0)
        clocks = (lambda: self.now, self.moment)
        self.core = self._core_class(
            self.board, self, self, self, *clocks, self.faults.append, lambda: self.renewals
        )
        return self.core

    @property
    def history(self) -> list[tuple[float, str, float]]:
        return self.tape.pins

    def wall(self) -> float:
        return self.now + self.wall_offset

    def moment(self) -> Moment:
        return Moment(self.wall(), self.now, "boot", self.clock_known)

    # What clients do, as the daemon would pass it on; the tape keeps what was said and granted.
    def lease(self, client: int, session: str, uv: UvAllowance | None) -> None:
        self.core.lease(client, session, CONSENT, uv)
        self.leases[client] = (session, uv)
        self.tape.beats.append((self.now, client))

    def on(self, client: int, light: str, level: float = 1.0) -> None:
        self.core.on(client, light, level)
        self.tape.beats.append((self.now, client))

    def pulse(self, client: int, seconds: float) -> None:
        asked = self.now
        begun = self.core.pulse(client, "uv365", seconds)
        session, uv = self.leases.get(client, ("", None))
        uv = uv or UvAllowance("", False, 0.0)
        told = (uv.patient_reference, uv.screened, uv.eyes_closed_confirmed_at)
        wall = begun + self.wall_offset
        self.tape.grants.append(
            Grant(begun, client, session, *told, wall, uv.dose_elsewhere_j_m2, False, asked, self.clock_known)
        )

    def beat(self, client: int) -> None:
        self.core.beat(client)
        self.tape.beats.append((self.now, client))

    def hang_up(self, client: int) -> None:
        self.now += _MESSAGE_S
        self.core.release(client)
        self.tape.gone.append((self.now, client))

    def clear_by_staff(self, client: int = 9) -> None:
        """Staff's light check, from asking to its end."""
        self.core.clear(client, "nurse")
        white_only = self.core.status()["fault"] == FAULT_UNKNOWN
        session = self.tape.rows[-1][2] if self.tape.rows else ""
        grant = Grant(self.now, client, session, "light check", True, self.wall(), self.wall(), check=True)
        self.tape.grants.append(grant)
        self.advance(0.4)
        if self.core.status()["check"] == "passed":
            (self.tape.white_cleared if white_only else self.tape.cleared).append(self.now)

    def lose_ledger(self, *, another: bool = False) -> None:
        """The ledger's file is gone, and who opens it next makes it anew; or `another` is there."""
        with TemporaryDirectory() as folder:
            Path(folder, "doses.made").write_text("what it held" if another else "")
            made = self._ledger_class(Path(folder, "doses.sqlite"))
            if another:
                assert self._database._database is not None
                with contextlib.closing(sqlite3.connect(Path(folder, "doses.sqlite"))) as copy:
                    self._database._database.backup(copy)
            made.latched()
            # In memory it goes on as the others do.
            there, made._database = made._database, sqlite3.connect(":memory:", isolation_level=None)
            assert there is not None
            there.backup(made._database)
            there.close()
            made._witness = None
        self._database.close()
        self._database = made
        self.tape.lost_ledgers.append(self.now)

    def renew_lamp(self) -> None:
        """Staff put in a new UV lamp."""
        self.core.new_lamp("uv365", "nurse")
        self.renewals["uv365"] += 1
        self.tape.renewed.append((self.now, self.wall()))
        self.lamp_is_new = True

    def measure_lamp(self) -> None:
        """Staff measure the UV lamp, write that into the profile, and restart the daemon."""
        today = datetime.fromtimestamp(self.wall(), timezone.utc).date()
        lamp = self.board.lights["uv365"].model_copy(update={"calibrated_on": today})
        self.board = self.board.model_copy(update={"lights": {**self.board.lights, "uv365": lamp}})
        self.restart()
        self.tape.calibrated.append((self.now, (today - _EPOCH).days))
        self.lamp_is_new = False

    def terminate(self) -> None:
        """SIGTERM, then a new daemon."""
        self.now += _MESSAGE_S
        self.core.stop()
        self.tape.gone.append((self.now, EVERYONE))
        self.advance(0.4)
        self.restart()

    def restart(self) -> None:
        """Killed, and started anew; the pins fall low in between."""
        self.now += _MESSAGE_S
        self.tape.gone.append((self.now, EVERYONE))
        self.tape.killed.append(self.now)
        for light in list(self.levels):
            self._write(light, 0.0)
        self.now += 0.4
        self.tape.restarts.append(self.now)
        self.leases.clear()
        self.start()

    def allowance(self, patient: str = "p1", age: float = 1.0) -> UvAllowance:
        return UvAllowance(patient, True, self.moment().wall - age)

    def advance(self, seconds: float, beat: int | None = None) -> None:
        """Let time pass as the daemon's loop does; `beat` names a client that beats every 100 ms."""
        end, next_beat = self.now + seconds, self.now
        while self.now < end:
            if beat is not None and self.now >= next_beat:
                # A client that is told of a fault goes on asking.
                with contextlib.suppress(LightRefused):
                    self.beat(beat)
                next_beat = self.now + 0.1
            self.now = min(end, self.now + max(0.001, min(self.core.next_tick_s(), LOOP_S)))
            self.core.tick()

    def skip(self, seconds: float) -> None:
        """Let a long time pass at once, in the dark."""
        self.core.off(0)
        self.advance(0.2)
        self.now += seconds
        self.core.tick()

    def stall(self, seconds: float) -> None:
        """The daemon gets no processor for so long."""
        self.tape.stalls.append((self.now, self.now + seconds))
        self.now += seconds
        self.core.tick()

    def set_uv_stuck(self, stuck: bool) -> None:
        self.uv_stuck = stuck
        self.tape.stuck.append((self.now, stuck))

    def set_blind(self, blind: bool, which: int = 0) -> None:
        """The photodiode (0) or the current sense (1) sees nothing."""
        self._set_lamp_sense(which, "blind" if blind else "")

    def set_lost(self, lost: bool, which: int = 0) -> None:
        """The photodiode (0) or the current sense (1) does not answer."""
        self._set_lamp_sense(which, "lost" if lost else "")

    def _set_lamp_sense(self, which: int, how: str) -> None:
        self.lamp_senses[which] = how
        tape, now = self.tape, self.now
        tape.blind.append((now, any(self.lamp_senses)))
        tape.sightless.append((now, all(self.lamp_senses)))
        tape.lost.append((now, "lost" in self.lamp_senses))

    def set_ledger_fails(self, fails: bool) -> None:
        self.ledger_fails = fails
        self.tape.ledger_failing.append((self.now, fails))

    def set_sense_fails(self, fails: bool) -> None:
        self.sense_fails = fails
        self._note_interlock()

    def set_interlock(self, shroud: tuple[bool, bool], temperature: float) -> None:
        self.shroud, self.temperature = list(shroud), temperature
        self._note_interlock()

    def _note_interlock(self) -> None:
        hot = not self.temperature < 60.0
        self.tape.open.append((self.now, self.shroud != [True, True] or hot or self.sense_fails))

    # The pins.
    def set(self, light: str, level: float) -> None:
        if self.pin_fails:
            raise OSError("pin failed")
        self._write(light, level)

    def all_low(self) -> None:
        for light in list(self.levels):
            self._write(light, 0.0)
        if self.low_fails:
            self.tape.low_failed.append(self.now)
            self.now += _MESSAGE_S
        if self.pin_fails or self.low_fails:
            raise OSError("pin failed")

    def _write(self, light: str, level: float) -> None:
        if self.levels.get(light, 0.0) != level:
            self.levels[light] = level
            self.tape.pins.append((self.now, light, level))

    # The senses.
    def shroud_closed(self) -> tuple[bool, bool]:
        if self.sense_fails:
            raise OSError("no answer")
        return self.shroud[0], self.shroud[1]

    def lamp_temperature_c(self) -> float:
        return self.temperature

    def photodiode_w_m2(self) -> float:
        return self.irradiance if self.uv_seen()[0] else 0.0

    def lamp_current_a(self) -> float:
        return 0.5 if self.uv_seen()[1] else 0.0

    def uv_seen(self) -> UvSeen:
        lit = self.uv_stuck or self.levels.get("uv365", 0.0) > 0
        light, current = ({"": lit, "blind": False, "lost": None}[how] for how in self.lamp_senses)
        return light, current

    # The ledger: a real one that can be made to fail.
    def charge(self, dose: Dose, elsewhere_j_m2: float, limits: Limits, at: Moment) -> None:
        self._fail()
        self.now += self.ledger_takes
        self._database.charge(dose, elsewhere_j_m2, limits, at)
        self._note_row(dose)
        self.when_charged()
        self.when_charged = lambda: None

    def own_up(self, dose: Dose, at: Moment) -> None:
        self._fail()
        self._database.own_up(dose, at)
        self._note_row(dose)

    def _note_row(self, dose: Dose) -> None:
        if self.tape.rows is not None:
            self.tape.rows.append((self.now, dose.reference, dose.session, dose.j_m2))

    def latch(self, *arguments: object) -> None:
        self._fail()
        self._database.latch(*arguments)  # type: ignore[arg-type]

    def latched(self) -> str | None:
        self._fail()
        return self._database.latched()

    def clear(self, staff: str, at: Moment, only: str | None = None) -> None:
        self._fail()
        self._database.clear(staff, at, only)

    def refuse_unknown_day(self, at: Moment) -> None:
        self._fail()
        self._database.refuse_unknown_day(at)

    def renew(self, light: str, staff: str, at: Moment) -> None:
        self._fail()
        self._database.renew(light, staff, at)

    def renewed_at(self, light: str) -> float | None:
        self._fail()
        return self._database.renewed_at(light)

    def _fail(self) -> None:
        if self.ledger_fails:
            raise DoseRefused("ledger_failed", "The disk is full.")

    def uv_intervals(self) -> list[tuple[float, float]]:
        """When UV was lit, from the pins' own history."""
        self.tape.end = self.now
        return lit_intervals(self.tape, uv=True)

    def judge(self) -> list[str]:
        """What the judge finds wrong with everything that happened so far."""
        self.tape.end = self.now
        return Judge(self.tape).violations()


def latched() -> World:
    """A world whose lamp stuck once."""
    world = World()
    world.lease(1, "s1", world.allowance())
    world.pulse(1, 0.1)
    world.set_uv_stuck(True)
    world.advance(0.3)
    world.hang_up(1)
    world.advance(0.4)
    assert world.core.status()["fault"] == "light_after_off"
    return world


def refusal(ask) -> str:
    with pytest.raises(LightRefused) as refused:
        ask()
    return refused.value.code
