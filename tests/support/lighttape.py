"""The tape of what a light daemon's pins did, with the judge who reads it.

The judge knows the limits of light safety by its own numbers, the world by its record. How the daemon
decides, or what its board profile says, it does not know.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter

PULSE_S, PULSES, SCAN_J, DAY_J = 1.0, 6, 150.0, 450.0
HEARTBEAT_S, SILENCE_S, AFTER_OFF_S, EYES_S = 0.2, 2.0, 0.05, 30.0
LOCKOUT_W, CALIBRATION_DAYS, FLASHES = 33.0, 365, 3.0
CREDIBLE, SLEW_S, DAY_S = 1_735_689_600.0, 2.0, 86_400.0
EVERYONE = -1
# The daemon reads the wall clock before the ledger writes, and this is how long that may take.
LEDGER_S = 1.0
_TINY = 1e-6


@dataclass(frozen=True)
class Grant:
    """A pulse that the daemon began: for whom, and on whose word. `wall` is the wall clock then, and
    `clock_known` whether anything vouched for it; `asked` is when its client had asked, where recorded.
    """

    at: float
    client: int
    session: str
    patient: str
    screened: bool
    confirmed: float
    wall: float
    elsewhere: float = 0.0
    check: bool = False
    asked: float | None = None
    clock_known: bool = True


@dataclass
class Tape:
    """Everything that happened, in seconds of one monotonic clock; `grace_s` is one look of the daemon."""

    grace_s: float
    irradiance: float
    # (since when, the day of the measurement that the profile names, since 1970); None for a simulated lamp.
    calibrated: list[tuple[float, int | None]] = field(default_factory=list)
    # When a new lamp was put in, with the wall clock then.
    renewed: list[tuple[float, float]] = field(default_factory=list)
    pins: list[tuple[float, str, float]] = field(default_factory=list)
    open: list[tuple[float, bool]] = field(default_factory=list)
    beats: list[tuple[float, int]] = field(default_factory=list)
    gone: list[tuple[float, int]] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    stuck: list[tuple[float, bool]] = field(default_factory=list)
    # One of photodiode and current sense sees nothing or does not answer; both do; one does not answer.
    blind: list[tuple[float, bool]] = field(default_factory=list)
    sightless: list[tuple[float, bool]] = field(default_factory=list)
    lost: list[tuple[float, bool]] = field(default_factory=list)
    # When a pin could not be put low.
    low_failed: list[float] = field(default_factory=list)
    cleared: list[float] = field(default_factory=list)
    # When staff cleared what locks every light, and nothing that locks UV.
    white_cleared: list[float] = field(default_factory=list)
    # When the ledger was lost; when one was made that takes the place of none.
    lost_ledgers: list[float] = field(default_factory=list)
    new_ledgers: list[float] = field(default_factory=list)
    killed: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    ledger_failing: list[tuple[float, bool]] = field(default_factory=list)
    # (when, patient, session, J/m²) as the ledger took them; None where they were not recorded.
    rows: list[tuple[float, str, str, float]] | None = None
    end: float = 0.0


def lit_intervals(tape: Tape, uv: bool) -> list[tuple[float, float]]:
    """When the UV pin, or any other, was high."""
    found, since = [], {}
    for at, light, level in tape.pins:
        if (light == "uv365") is not uv:
            continue
        if level > 0:
            since.setdefault(light, at)
        elif light in since:
            found.append((since.pop(light), at))
    return sorted(found + [(begin, tape.end) for begin in since.values()])


class Judge:
    """Says what was wrong on a Tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.uv = lit_intervals(tape, uv=True)
        self._rises = [at for at, before in self._all_rises() if not before]
        self._beats: dict[int, list[float]] = defaultdict(list)
        for at, client in tape.beats:
            self._beats[client].append(at)
        self._grant_times = [grant.at for grant in tape.grants]

    def violations(self) -> list[str]:
        """One sentence for each interval or event that no rule allows."""
        found = [*self._flashing(), *self._doses(), *self._locks(), *self._unleased()]
        newest = before = 0.0
        for begin, end in self.uv:
            grant = self._grant(begin)
            if grant is None:
                found.append("UV that nobody was granted")
                continue
            if any(before < at <= begin for at in (*self.tape.new_ledgers, *self.tape.lost_ledgers)):
                newest = 0.0
            found += self._one(begin, end, grant, newest)
            if not grant.check and any(0 <= begin - at < DAY_S for at in self.tape.lost_ledgers):
                found.append("UV on the day after a lost ledger")
            newest, before = max(newest, grant.wall), begin
        return found

    def _one(self, begin: float, end: float, grant: Grant, newest: float) -> list[str]:
        """What is wrong with one UV interval; time without a processor is not held against the daemon."""
        tape = self.tape
        late = tape.grace_s + self._stalled(begin, end)
        found = []
        if end - begin > PULSE_S + self._stalled(begin, end) + _TINY:
            found.append(f"UV for {end - begin:.3f} s")
        if self._overlap(tape.open, begin, end) > late or self._during(tape.open, begin):
            found.append("UV with an interlock open")
        if self._during(tape.lost, begin):
            found.append("UV with a sensor that does not answer")
        beats = self._beats[grant.client]
        words = [begin, *beats[bisect_right(beats, begin) : bisect_left(beats, end)], end]
        if not grant.check and any(b - a > HEARTBEAT_S + late for a, b in pairwise(words)):
            found.append("UV without heartbeat")
        if any(begin < at < end - late and client in (grant.client, EVERYONE) for at, client in tape.gone):
            found.append("UV after its client was gone")
        if grant.asked is not None and begin - grant.asked > SILENCE_S + late:
            found.append("UV for a client that had given up")
        if not grant.patient or not grant.session:
            found.append("UV for nobody")
        if not grant.screened:
            found.append("UV without screening")
        if not -1.0 - _TINY <= grant.wall - grant.confirmed <= EYES_S + _TINY:
            found.append("UV without eye protection confirmed")
        if not grant.clock_known or grant.wall < CREDIBLE or grant.wall < newest - SLEW_S - LEDGER_S - _TINY:
            found.append("UV without knowing the time")
        if tape.irradiance > LOCKOUT_W:
            found.append("UV beyond the lock-out")
        day = next((day for at, day in reversed(tape.calibrated) if at <= begin), None)
        new = [int(wall / DAY_S) for at, wall in tape.renewed if at <= begin]
        if new and (day is None or day < max(new)):
            found.append("UV from a new lamp that was not measured")
        days = [int(wall / DAY_S) - day for wall in (grant.wall - LEDGER_S, grant.wall)] if day else [0]
        if not any(0 <= age <= CALIBRATION_DAYS for age in days):
            found.append("UV from a lamp measured too long ago")
        return found

    def _doses(self) -> list[str]:
        """The dose that shone, against the limits and against what the ledger holds."""
        found = []
        sessions, patients, seen = defaultdict(list), defaultdict(list), defaultdict(float)
        written: dict[str, float] = defaultdict(float)
        rows = sorted(self.tape.rows or [])
        row = 0
        for begin, end in self.uv:
            grant = self._grant(begin)
            if grant is None:
                continue
            dose = (end - begin - self._stalled(begin, end)) * self.tape.irradiance
            sessions[grant.session].append(dose)
            patients[grant.patient].append((begin, dose, grant.elsewhere))
            if self.tape.rows is not None:
                while row < len(rows) and rows[row][0] <= begin:
                    written[rows[row][1]] += rows[row][3]
                    row += 1
                seen[grant.patient] += dose
                if seen[grant.patient] > written[grant.patient] + _TINY:
                    found.append("UV that was not in the ledger before it shone")
                # From here the whole of it counts; what a stall added has to be written by the next pulse.
                seen[grant.patient] += self._stalled(begin, end) * self.tape.irradiance
        for doses in sessions.values():
            if len(doses) > PULSES or sum(doses) > SCAN_J + _TINY:
                found.append(f"{len(doses)} pulses, {sum(doses):.0f} J/m² in a scan")
        for pulses in patients.values():
            first, total = 0, 0.0
            for begin, dose, elsewhere in pulses:
                total += dose
                while pulses[first][0] <= begin - DAY_S:
                    total -= pulses[first][1]
                    first += 1
                if total + elsewhere > DAY_J + _TINY:
                    found.append(f"{total + elsewhere:.0f} J/m² in 24 h")
        return found

    def _flashing(self) -> list[str]:
        rises = sorted(at for at, _ in self._all_rises())
        return ["flashing" for a, b in pairwise(rises) if b - a < 1 / FLASHES - self._jitter()]

    def _jitter(self) -> float:
        return _TINY if self.tape.rows is not None else 0.005

    def _locks(self) -> list[str]:
        """After a stuck lamp, an overlong pulse or a blind sensor, nothing (or no UV) until cleared."""
        tape, found = self.tape, []
        for begin, end in self.uv:
            look = end + AFTER_OFF_S + tape.grace_s
            looked = self._overlap(tape.stuck, end, look) >= look - end - _TINY
            if looked and self._overlap(tape.sightless, end, look) == 0 and self._stalled(end, look) == 0:
                found += self._lit_while_locked(look, uv_only=False, why="a lamp stuck")
            unanswered = self._overlap(tape.lost, end, look) >= look - end - _TINY
            # Killed before it looked, it begins anew, and asks both sensors before it lights UV.
            killed = any(end <= at <= look for at in tape.killed)
            if unanswered and not killed and self._stalled(end, look) == 0:
                found += self._lit_while_locked(look, uv_only=True, why="a lamp not seen dark")
            if end - begin > PULSE_S + _TINY:
                found += self._lit_while_locked(end, uv_only=False, why="a pulse beyond the limit")
            whole = self._overlap(tape.blind, begin, end) >= end - begin - _TINY
            # It takes a rise time, a look, and a daemon that lives to the end to know that.
            if (
                whole
                and end not in tape.killed
                and end - begin > 0.08 + tape.grace_s
                and self._stalled(begin, end) == 0
            ):
                found += self._lit_while_locked(end, uv_only=True, why="a sensor gone blind")
        for at in tape.low_failed:
            found += self._lit_while_locked(at, uv_only=False, why="a pin that did not go low")
        for at, _ in tape.renewed:
            found += self._lit_while_locked(at, uv_only=True, why="a new lamp")
        for at in tape.lost_ledgers:
            # White light goes on until the daemon looks for its ledger, at the latest when it is started.
            found += self._lit_while_locked(at, uv_only=True, why="a lost ledger")
            started = min((start for start in tape.restarts if start >= at), default=tape.end)
            if not any(at <= cleared < started for cleared in (*tape.cleared, *tape.white_cleared)):
                found += self._lit_while_locked(started, uv_only=False, why="a lost ledger")
        for at in (*tape.cleared, *tape.white_cleared):
            if self._state(tape.stuck, at - _TINY) and not self._state(tape.sightless, at - _TINY):
                found.append("a fault cleared with the lamp stuck")
        for at in tape.cleared:
            if self._overlap(tape.blind, at - 0.15, at) >= 0.15 - _TINY:
                found.append("a fault cleared with a sensor blind")
        return found

    def _lit_while_locked(self, since: float, uv_only: bool, why: str) -> list[str]:
        """Lights that rose after `since`; a restart ends the lock only where the ledger could not hold it."""
        tape = self.tape
        until = min((at for at in tape.cleared if at >= since), default=tape.end)
        for at in tape.restarts:
            if since <= at < until and self._overlap_any(tape.ledger_failing, since - 0.1, since + 0.1):
                until = at
        white_until = min((at for at in tape.white_cleared if at >= since), default=until)
        allowed = {grant.at for grant in self.tape.grants if grant.check}
        uv = {begin for begin, _ in self.uv}
        if uv_only or white_until < until:
            allowed |= {at for at in self._rises if at not in uv and (uv_only or at >= white_until)}
        rises = self._rises
        lo, hi = bisect_right(rises, since), bisect_left(rises, until)
        return [f"lit after {why}" for at in rises[lo:hi] if at not in allowed]

    def _unleased(self) -> list[str]:
        """White light that outlived the last word of whoever asked for it."""
        found = []
        for begin, end in lit_intervals(self.tape, uv=False):
            late = self.tape.grace_s * 6 + self._stalled(begin, end)
            near = _TINY if self.tape.rows is not None else self.tape.grace_s
            asked = [who for at, who in self.tape.beats if abs(at - begin) <= near]
            if not asked:
                found.append("light that nobody asked for")
                continue
            beats = self._beats[asked[-1]]
            words = [begin, *beats[bisect_left(beats, begin) : bisect_left(beats, end)], end]
            if any(b - a > SILENCE_S + late for a, b in pairwise(words)):
                found.append("light after its client fell silent")
            gone = [who for at, who in self.tape.gone if begin < at < end - late]
            if EVERYONE in gone:
                found.append("light after the daemon was stopped")
            elif asked[-1] in gone:
                found.append("light after its client was gone")
        return found

    def _grant(self, begin: float) -> Grant | None:
        """The grant of the UV interval that began at `begin`."""
        i = bisect_right(self._grant_times, begin + _TINY) - 1
        near = _TINY if self.tape.rows is not None else self.tape.grace_s * 5
        return self.tape.grants[i] if i >= 0 and begin - self._grant_times[i] <= near else None

    def _all_rises(self) -> list[tuple[float, bool]]:
        """When a light rose, and whether that very light was lit before."""
        levels: dict[str, float] = {}
        rises = []
        for at, light, level in self.tape.pins:
            if level > levels.get(light, 0.0):
                rises.append((at, levels.get(light, 0.0) > 0))
            levels[light] = level
        return rises

    def _stalled(self, begin: float, end: float) -> float:
        stalls = self.tape.stalls
        return sum(min(end, b) - max(begin, a) for a, b in stalls if a < end and b > begin)

    @staticmethod
    def _state(changes: list[tuple[float, bool]], at: float) -> bool:
        i = bisect_right(changes, at, key=itemgetter(0)) - 1
        return i >= 0 and changes[i][1]

    def _during(self, changes: list[tuple[float, bool]], at: float) -> bool:
        """Whether `changes` say True before and after `at`."""
        return self._state(changes, at - _TINY) and self._state(changes, at + _TINY)

    def _overlap(self, changes: list[tuple[float, bool]], begin: float, end: float) -> float:
        """The longest time in a row within [begin, end] for which `changes` say True."""
        longest = run = 0.0
        i = max(0, bisect_right(changes, begin, key=itemgetter(0)) - 1)
        while i < len(changes) and changes[i][0] < end:
            until = changes[i + 1][0] if i + 1 < len(changes) else end
            part = min(end, until) - max(begin, changes[i][0])
            run = run + part if changes[i][1] else 0.0
            longest = max(longest, run)
            i += 1
        return longest

    def _overlap_any(self, changes: list[tuple[float, bool]], begin: float, end: float) -> bool:
        return self._state(changes, begin) or self._overlap(changes, begin, end) > 0
