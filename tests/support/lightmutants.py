"""Light cores with one rule taken out each, to show that the judge misses none of them."""

from __future__ import annotations

import contextlib
import functools
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.lights import core as lightcore
from firmware.lights import doses, interlocks, lamp_calibration, latch
from firmware.lights import terms as light_terms
from firmware.lights.core import LightCore
from firmware.lights.doses import DoseLedger


@dataclass(frozen=True)
class Mutant:
    """A core in which `rule` is gone: `limits` loosened, or in the source of `where`, `old` made `new`.

    What the judge then has to find has `violation` in its name.
    """

    rule: str
    violation: str
    limits: tuple[tuple[str, float], ...] = ()
    where: str = ""
    old: str = ""
    new: str = ""

    def world(self) -> dict[str, Any]:
        """What makes a World run this core."""
        core, ledger = _mutated(self.where, self.old, self.new) if self.where else (LightCore, DoseLedger)
        return {"limits": dict(self.limits), "core": core, "ledger": ledger}


@functools.cache
def _mutated(where: str, old: str, new: str) -> tuple[type[LightCore], type[DoseLedger]]:
    """The core and the ledger, made from their sources with the change; other modules are as they are."""
    modules = {
        "doses": doses,
        "interlocks": interlocks,
        "lamp_calibration": lamp_calibration,
        "latch": latch,
        "core": lightcore,
    }
    made: dict[str, types.ModuleType] = {}
    for name, original in modules.items():
        source = Path(str(original.__file__)).read_text()
        if name == where:
            if source.count(old) != 1:
                raise ValueError(f"{old!r} is {source.count(old)} times in {original.__file__}, not once.")
            source = source.replace(old, new)
        module = types.ModuleType(f"mutated_{name}")
        module.__dict__["contextlib"] = contextlib
        # Dataclasses look their own module up by this name.
        module.__dict__["__name__"] = original.__name__
        exec(compile(source, str(original.__file__), "exec"), module.__dict__)
        module.__dict__.update({key: getattr(doses, key) for key in ("DoseRefused", "Dose", "Moment")})
        made[name] = module
    made["core"].__dict__.update(
        {
            "FaultLatch": made["latch"].FaultLatch,
            "open_interlock": made["interlocks"].open_interlock,
            "good_irradiance": made["lamp_calibration"].good_irradiance,
            "LightRefused": light_terms.LightRefused,
        }
    )
    return made["core"].LightCore, made["doses"].DoseLedger


def _loose(rule: str, violation: str, **limits: float) -> Mutant:
    return Mutant(rule, violation, tuple(limits.items()))


def _core(rule: str, violation: str, old: str, new: str) -> Mutant:
    return Mutant(rule, violation, (), "core", old, new)


def _interlock(rule: str, violation: str, old: str, new: str) -> Mutant:
    return Mutant(rule, violation, (), "interlocks", old, new)


def _ledger(rule: str, violation: str, old: str, new: str) -> Mutant:
    return Mutant(rule, violation, (), "doses", old, new)


_LOOK_AFTER_OFF = "            seen = self._senses.uv_seen() if self._uv_light else UV_DARK\n"
MUTANTS = [
    _loose("a pulse lasts at most 1 s", "a pulse beyond the limit", uv_pulse_s=3.0),
    _loose("six pulses a scan", "pulses, ", uv_pulses_per_scan=99),
    _loose("150 J/m² a scan", "in a scan", uv_dose_per_scan_j_m2=1e9),
    _loose("450 J/m² a day", "in 24 h", uv_dose_per_day_j_m2=1e9),
    _loose("lock-out at 33 W/m²", "lock-out", uv_lockout_w_m2=1e9),
    _loose("the lamp measured within a year", "measured too long ago", uv_calibration_days=10**6),
    _loose("heartbeat every 200 ms", "without heartbeat", heartbeat_s=9.0),
    _loose("a silent client loses its lease", "fell silent", lease_silence_s=9.0),
    _loose("look 50 ms after off", "a lamp stuck", light_after_off_s=1e9),
    _loose("lamp below 60 °C", "interlock open", lamp_temperature_c=999.0),
    _loose("eye protection within 30 s", "eye protection", eye_protection_s=1e9),
    _loose("no faster than 3 Hz", "flashing", flashes_per_s=1e9),
    _core(
        "a pulse ends by itself",
        "a pulse beyond the limit",
        "over = now >= self._pulse.ends_at",
        "over = False",
    ),
    _interlock(
        "the shroud's first switch",
        "interlock open",
        "senses.shroud_closed() != (True, True)",
        "senses.shroud_closed()[1] is not True",
    ),
    _interlock(
        "the shroud's second switch",
        "interlock open",
        "senses.shroud_closed() != (True, True)",
        "senses.shroud_closed()[0] is not True",
    ),
    _interlock(
        "a temperature that is no number is hot",
        "interlock open",
        "not senses.lamp_temperature_c() <",
        "senses.lamp_temperature_c() >=",
    ),
    _interlock(
        "a sense that fails is an open interlock", "interlock open", 'return "sense_failed"', "return None"
    ),
    _core(
        "interlocks before a pulse",
        "interlock open",
        "        interlock = open_interlock(self._senses, self._limits)\n",
        "        interlock = None\n",
    ),
    _core(
        "interlocks during a pulse",
        "interlock open",
        "return open_interlock(self._senses, self._limits)\n",
        "return None\n",
    ),
    _core(
        "interlocks again after the ledger has written",
        "interlock open",
        "        self._allowed(self._held_by(client))\n        self._refuse_open_interlock()\n",
        "",
    ),
    _core(
        "the lease again after the ledger has written",
        "had given up",
        "        self._allowed(self._held_by(client))\n        self._refuse_open_interlock()\n",
        "        self._allowed(lease)\n        self._refuse_open_interlock()\n",
    ),
    _core(
        "no pulse while another pin does not go low",
        "did not go low",
        "        self._refuse_if_faulty(uv=True)\n        self._allowed(self._held_by(client))\n",
        "        self._allowed(self._held_by(client))\n",
    ),
    _core(
        "a pin that does not go low locks",
        "did not go low",
        '            low = False\n            self._latch("pin_failed")\n',
        "            low = False\n",
    ),
    _core("a patient reference", "for nobody", "if not uv.patient_reference:", "if False:"),
    _core("UV screening", "without screening", "if not uv.screened:", "if False:"),
    _core(
        "eye protection confirmed in the past", "eye protection", "if not -1.0 <= age", "if not -1e9 <= age"
    ),
    _core("UV in pulses only", "nobody was granted", "if profile.is_uv:", "if False:"),
    _core(
        "no UV without an allowance",
        "without screening",
        "if uv is None:\n            raise",
        "if uv is None:\n            return UvAllowance('x', True, self._moment().wall)\n            raise",
    ),
    _core("a lease names a session", "for nobody", "if not session:", "if False:"),
    _core(
        "no light without a lease",
        "for nobody",
        "if self._lease is None or self._lease.client != client:\n            raise",
        "if self._lease is None:\n            return Lease(client, '', None, None, 0.0)\n            raise",
    ),
    _core(
        "dark when the client hangs up",
        "client was gone",
        "            self._lease = None\n            self._all_low()\n        if self._check is not None and",
        "            self._lease = None\n        if self._check is not None and",
    ),
    _core(
        "UV dark when the client hangs up",
        "UV after its client was gone",
        "if self._lease is not None and self._lease.client == client:",
        "if False:",
    ),
    _core(
        "dark on SIGTERM",
        "daemon was stopped",
        "        self._lease = None\n        self._all_low()\n\n    def tick",
        "        self._lease = None\n\n    def tick",
    ),
    _core(
        "the ledger's no is a no",
        "not in the ledger",
        "with refusals_of_the_ledger():\n            self._ledger.charge(",
        "with contextlib.suppress(DoseRefused):\n            self._ledger.charge(",
    ),
    _core(
        "a late pulse is owned up to",
        "not in the ledger",
        "self._ledger.own_up(replace(pulse.charged, j_m2=excess), self._moment())",
        "pass",
    ),
    _core(
        "a pulse beyond the limit locks",
        "a pulse beyond the limit",
        "if now - pulse.begun_at > self._limits.uv_pulse_s:",
        "if False:",
    ),
    _core(
        "a lamp that stays on locks",
        "a lamp stuck",
        '            if True in seen:\n                self._latch("light_after_off")',
        '            if False:\n                self._latch("light_after_off")',
    ),
    _core(
        "a sensor that does not answer after off locks UV",
        "not seen dark",
        'self._latch("dark_unseen")',
        "pass",
    ),
    _core("a sensor that sees nothing locks UV", "gone blind", "if pulse.seen is False:", "if False:"),
    _core(
        "the photodiode has to see the lamp lit",
        "gone blind",
        "self._pulse.seen = self._senses.uv_seen() == UV_LIT",
        "self._pulse.seen = self._senses.uv_seen()[1] is True",
    ),
    _core(
        "the current sense has to see the lamp lit",
        "gone blind",
        "self._pulse.seen = self._senses.uv_seen() == UV_LIT",
        "self._pulse.seen = self._senses.uv_seen()[0] is True",
    ),
    _core(
        "the photodiode has to see the lamp dark",
        "a lamp stuck",
        _LOOK_AFTER_OFF,
        _LOOK_AFTER_OFF + "            seen = (False, seen[1])\n",
    ),
    _core(
        "the current sense has to see the lamp dark",
        "a lamp stuck",
        _LOOK_AFTER_OFF,
        _LOOK_AFTER_OFF + "            seen = (seen[0], False)\n",
    ),
    _core(
        "no UV while a sensor of the lamp does not answer",
        "does not answer",
        "        if seen != UV_DARK:\n",
        "        if False:\n",
    ),
    _core(
        "a fault locks",
        "lit after",
        "if self._latched.locks_all or (uv and self._latched.fault is not None):",
        "if False:",
    ),
    _core(
        "a light check must see the lamp and darkness",
        "cleared with",
        "self._end_check(self._why_not_passed(self._check, seen))",
        "self._end_check(None)",
    ),
    Mutant(
        "a new lamp is measured before it is lit",
        "not measured",
        (),
        "lamp_calibration",
        "if renewed_at is not None and (",
        "if False and (",
    ),
    _core(
        "a new lamp is locked until staff clears it",
        "a new lamp",
        "self._latch(LAMP_NEW)",
        # Without the line alone the ledger's own row would lock it.
        "self._ledger.clear(name, self._moment())",
    ),
    Mutant(
        "a fault outlives a restart",
        "lit after",
        (),
        "latch",
        "self._ledger.latch(self.fault, self._moment())",
        "pass",
    ),
    _core(
        "the ledger is read before a pulse",
        "the day after a lost ledger",
        "        with refusals_of_the_ledger():\n            self._latched.read()\n"
        "        self._refuse_if_faulty(uv=True)\n",
        "        self._refuse_if_faulty(uv=True)\n",
    ),
    _ledger(
        "no UV when the clock was never set",
        "knowing the time",
        "if not (at.known and at.wall >= EARLIEST_CREDIBLE):",
        "if not at.known:",
    ),
    _ledger(
        "no UV when nothing vouches for the clock",
        "knowing the time",
        "if not (at.known and at.wall >= EARLIEST_CREDIBLE):",
        "if not at.wall >= EARLIEST_CREDIBLE:",
    ),
    _ledger(
        "no UV when the clock ran backwards",
        "knowing the time",
        "if newest is not None and at.wall < newest - _SLEW_S:",
        "if False:",
    ),
    _ledger(
        "a clock set ahead forgets no dose",
        "in 24 h",
        "(wall > ? OR (boot = ? AND since_boot > ?))",
        "(wall > ? OR (boot = ? AND since_boot > ? AND 0))",
    ),
    _ledger(
        "the dose of other kiosks counts",
        "in 24 h",
        "in_day + elsewhere_j_m2 + dose.j_m2",
        "in_day + dose.j_m2",
    ),
    _ledger(
        "a pulse is written before it shines",
        "in a scan",
        "self._insert(database, dose, at)\n            # Never",
        "# Never",
    ),
    _core(
        "24 h after a lost ledger",
        "the day after a lost ledger",
        "            self._ledger.refuse_unknown_day(self._moment())\n",
        "            pass\n",
    ),
    _ledger("a lost ledger locks", "lit after a lost ledger", "    if made_before:\n", "    if False:\n"),
    _ledger(
        "another ledger locks",
        "lit after a lost ledger",
        "            elif (said or past) and said not in (found, *past):\n",
        "            elif False:\n",
    ),
    Mutant(
        "a fault that cannot be read locks",
        "lit after",
        (),
        "latch",
        "self.fault: str | None = FAULT_UNKNOWN",
        "self.fault: str | None = None",
    ),
    _ledger("the ledger keeps a whole day", "in a scan", "_KEEP_S = 7 * DAY_S", "_KEEP_S = 1.0"),
]
