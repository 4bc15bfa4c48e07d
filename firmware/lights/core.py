"""The light core: the rules of light safety, free of sockets, pins and clocks.

Everything that touches the world is handed in, so that tests can drive years of faults in seconds. Whoever
runs a LightCore calls `tick` at the latest when `next_tick_s` has passed, and before every request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from firmware.lights.check_state import CheckState
from firmware.lights.doses import FAULT_UNKNOWN, LAMP_NEW, UNKNOWN_SINCE, Dose, DoseRefused, Ledger, Moment
from firmware.lights.interlocks import interlocks, open_interlock
from firmware.lights.lamp_calibration import good_irradiance
from firmware.lights.latch import FaultLatch
from firmware.lights.terms import Check, Lease, LightRefused, Pulse, refusals_of_the_ledger, staff_name
from firmware.line.stamps import ConsentStamp, UvAllowance
from firmware.pins.protocols import UV_DARK, UV_LIT, Pins, Senses, UvSeen
from hardware.board import Board
from hardware.profile import Light

__all__ = ["LightCore", "LightRefused", "Pins", "Senses"]

# A pulse is charged, and bounded, as if it ended this much late.
OVERRUN_S = 0.05
_WATCH_S = 0.01
# With no pulse on, this is how often photodiode and lamp current are read, and how often a fault that could
# not be read or written down is tried again.
_IDLE_WATCH_S = 0.25
_TRY_AGAIN_S = 5.0
# A lamp that is on shows at photodiode and current sense within this time: a reading may be 40 ms old.
_RISE_S = 0.06
# The UV pulse of a light check: shorter than one heartbeat.
_CHECK_S = 0.1


class LightCore:
    """Who may light what, for how long. `monotonic` gives seconds; `moment` gives both clocks for the ledger.

    `on_fault(fault)` is called for every fault, whether it latches or not. `renewals()` says how often each
    lamp was renewed, by another record than the ledger.
    """

    def __init__(
        self,
        board: Board,
        pins: Pins,
        senses: Senses,
        ledger: Ledger,
        monotonic: Callable[[], float],
        moment: Callable[[], Moment] = Moment.now,
        on_fault: Callable[[str], None] = lambda fault: None,
        renewals: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._lights: Mapping[str, Light] = board.lights
        self._board, self._limits = board, board.limits
        self._pins, self._senses, self._ledger = pins, senses, ledger
        self._monotonic, self._moment, self._on_fault = monotonic, moment, on_fault
        self._renewals = renewals
        self._lease: Lease | None = None
        self._pulse: Pulse | None = None
        self._lit: tuple[str, float] | None = None
        self._last_rise = -math.inf
        self._check_dark_at: float | None = None
        self._pulse_over_at: float | None = None
        self._cut_by: str | None = None
        self._watch_at = self._try_at = -math.inf
        self._uv_light = next((name for name, light in self._lights.items() if light.is_uv), None)
        self._check: Check | None = None
        self._check_state = CheckState.NONE
        self._check_why_not: str | None = None
        self._stopped = False
        self._latched = FaultLatch(ledger, moment, on_fault)
        self._all_low()

    def lease(self, client: int, session: str, consent: ConsentStamp, uv: UvAllowance | None) -> None:
        """Give the lights to `client` for `session`, or renew its lease with a new UV allowance."""
        self.tick()
        self._refuse_if_faulty()
        if self._lease is not None and self._lease.client != client:
            raise LightRefused("busy", "Another client holds the lights.", self._limits.lease_silence_s)
        if not session:
            raise LightRefused("no_consent", "The lease names no session.")
        self._all_low()
        self._lease = Lease(client, session, consent, uv, self._monotonic())

    def beat(self, client: int) -> None:
        """The client is alive and watches."""
        self.tick()
        # Else whoever takes a picture would not hear that its light went out by a fault.
        self._refuse_if_faulty()
        self._held_by(client).beat_at = self._monotonic()

    def on(self, client: int, light: str, level: float) -> float:
        """Light `light` alone at `level` in 0…1; returns when (monotonic seconds)."""
        self.tick()
        self._refuse_if_faulty()
        lease = self._held_by(client)
        profile = self._known(light)
        if profile.is_uv:
            raise LightRefused("uv_needs_pulse", "UV is lit in pulses only.")
        if not 0.0 < level <= 1.0:
            raise LightRefused("bad_level", f"A level is above 0 up to 1; {level} is not.")
        level = level if profile.pwm_hz else 1.0
        if self._lit is None or self._lit[0] != light or level > self._lit[1]:
            self._refuse_flashing()
            self._last_rise = self._monotonic()
        if self._lit is not None and self._lit[0] != light:
            self._all_low()
            self._refuse_if_faulty()
        lease.beat_at = self._monotonic()
        return self._raise_pin(light, level)

    def pulse(self, client: int, light: str, seconds: float) -> float:
        """One UV pulse of at most `seconds`; returns when it began. Its whole dose is charged before it."""
        self.tick()
        # First of all, because with UV on nobody waits for the ledger's disk.
        if self._pulse is not None or self._check_dark_at is not None:
            raise LightRefused("too_soon", "A UV pulse has only just been.", self._limits.light_after_off_s)
        with refusals_of_the_ledger():
            self._latched.read()
        self._refuse_if_faulty(uv=True)
        lease = self._held_by(client)
        profile = self._known(light)
        if not profile.is_uv:
            raise LightRefused("not_uv", f"{light} is not a UV light.")
        if not 0.0 < seconds <= self._limits.uv_pulse_s - OVERRUN_S:
            longest = self._limits.uv_pulse_s - OVERRUN_S
            raise LightRefused("pulse_too_long", f"A UV pulse lasts at most {longest:g} s.")
        allowance = self._allowed(lease)
        with refusals_of_the_ledger():
            self._ledger.refuse_unknown_day(self._moment())
        who = (allowance.patient_reference, lease.session)
        dose = self._charge(light, seconds, who, allowance.dose_elsewhere_j_m2)
        # The ledger may have taken its time, a pin may not have gone low: look again, then fire.
        self.tick()
        self._refuse_if_faulty(uv=True)
        self._allowed(self._held_by(client))
        self._refuse_open_interlock()
        lease.beat_at = self._fire(light, seconds, dose)
        return lease.beat_at

    def clear(self, client: int, staff: str) -> None:
        """Begin the light check that clears the latched fault when it passes; `status` says how it went.

        The hood is empty, by the word of `staff`. One short UV pulse, charged like any other and under
        every interlock, has to show at photodiode and current sense and be gone after it. Without a pulse
        FAULT_UNKNOWN is cleared, and it alone: both have to see darkness, which white light needs.
        """
        self.tick()
        self._refuse_if_in_use()
        with refusals_of_the_ledger():
            self._latched.read()
        if self._stopped or self._latched.fault is None:
            raise LightRefused("no_fault", "There is no fault to clear.")
        check = Check(client, staff_name(staff))
        if not self._all_low():
            raise LightRefused("pin_failed", "A light pin still does not go low: look at the board first.")
        with refusals_of_the_ledger():
            # A check that fails, and a power cut in one, must find the fault written down.
            self._latched.keep()
        if self._latched.fault == FAULT_UNKNOWN and self._uv_light is not None:
            check.only = FAULT_UNKNOWN
        if self._uv_light is None or check.only is not None:
            check.seen, self._cut_by = True, None
            self._check_dark_at = self._monotonic() + self._limits.light_after_off_s
        else:
            who = ("light check", f"light check {self._moment().wall}")
            asked = self._monotonic()
            dose = self._charge(self._uv_light, _CHECK_S, who, 0.0)
            if self._monotonic() - asked > self._limits.lease_silence_s:
                raise LightRefused("ledger_failed", "The ledger took so long that the hood may be in use.")
            self._refuse_open_interlock()
            self._fire(self._uv_light, _CHECK_S, dose)
        self._check, self._check_state, self._check_why_not = check, CheckState.RUNNING, None

    def new_lamp(self, light: str, staff: str) -> bool:
        """`staff` put a new lamp into `light`; returns whether it has to be measured before it is lit again.

        UV has: it stays locked until its irradiance was measured on this day or later, and until the light
        check has passed.
        """
        self.tick()
        is_uv, name = self._known(light).is_uv, staff_name(staff)
        self._refuse_if_in_use()
        if is_uv:
            with refusals_of_the_ledger():
                self._ledger.renew(light, name, self._moment())
            self._latch(LAMP_NEW)
        return is_uv

    def off(self, client: int) -> None:
        """All lights off. Any client may ask; darkness needs no lease."""
        del client
        self._all_low()
        self.tick()

    def release(self, client: int) -> None:
        """The client gives its lease back, or hung up: all lights off."""
        if self._lease is not None and self._lease.client == client:
            self._lease = None
            self._all_low()
        if self._check is not None and self._check.client == client:
            self._all_low()
            self._end_check("interrupted")
        self.tick()

    def stop(self) -> None:
        """All lights off, for good."""
        self._stopped = True
        self._lease = None
        self._all_low()

    def tick(self) -> None:
        """Put out what may not be lit any longer."""
        now = self._monotonic()
        if self._pulse is not None:
            over = now >= self._pulse.ends_at
            self._cut_by = None if over else self._why_uv_ends(now)
            if over or self._cut_by is not None:
                self._all_low()
            elif not self._pulse.seen and now - self._pulse.begun_at >= _RISE_S:
                self._pulse.seen = self._senses.uv_seen() == UV_LIT
        if self._lease is not None and now - self._lease.beat_at > self._limits.lease_silence_s:
            self._lease = None
            self._all_low()
        if self._check_dark_at is not None and now >= self._check_dark_at and self._pulse is None:
            self._check_dark_at = None
            # Without a UV lamp there is nothing to see dark: that the pins go low is all of the light check.
            seen = self._senses.uv_seen() if self._uv_light else UV_DARK
            if True in seen:
                self._latch("light_after_off")
            elif seen != UV_DARK:
                # A sensor that does not answer has not seen darkness; it is needed for UV alone.
                self._latch("dark_unseen")
            if self._check is not None:
                self._end_check(self._why_not_passed(self._check, seen))
        elif self._pulse is None and now >= self._watch_at:
            self._watch_at = now + _IDLE_WATCH_S
            if now >= self._try_at and self._lease is None:
                self._try_at = now + _TRY_AGAIN_S
                self._latched.try_again()
            if self._uv_light and self._check_dark_at is None and True in self._senses.uv_seen():
                self._latch("light_unasked")

    def next_tick_s(self) -> float:
        """In how many seconds `tick` is due at the latest."""
        if self._pulse is not None:
            return max(0.0, min(self._pulse.ends_at - self._monotonic(), _WATCH_S))
        if self._check_dark_at is not None:
            return max(0.0, min(self._check_dark_at - self._monotonic(), _WATCH_S))
        return 0.05 if self._lease is not None else _IDLE_WATCH_S

    def status(self) -> dict[str, Any]:
        """What is lit, who leads, what is latched, why the ledger cannot say so, when the last pulse ended
        (monotonic ns), and which interlock cut it; no patient in it.
        """
        return {
            "leased": self._lease is not None,
            "lit": dict([self._lit]) if self._lit else {},
            "pulse": self._pulse is not None,
            "fault": self._latched.fault,
            "ledger_unread": self._latched.why_unknown,
            "check": str(self._check_state),
            "check_why_not": self._check_why_not,
            "pulse_over_ns": None if self._pulse_over_at is None else round(self._pulse_over_at * 1e9),
            "pulse_cut_by": self._cut_by,
        }

    def interlocks(self) -> dict[str, Any]:
        """See firmware.lights.interlocks."""
        return interlocks(self._senses, self._limits)

    def _held_by(self, client: int) -> Lease:
        if self._lease is None or self._lease.client != client:
            raise LightRefused("no_lease", "This client holds no lease on the lights.")
        return self._lease

    def _known(self, light: str) -> Light:
        if light not in self._lights:
            raise LightRefused("unknown_light", f"This board has no light named {light!r}.")
        return self._lights[light]

    def _refuse_if_faulty(self, uv: bool = False) -> None:
        if self._stopped:
            raise LightRefused("stopped", "The light daemon is stopping.")
        if self._latched.locks_all or (uv and self._latched.fault is not None):
            # A fault of UV alone has its own code: a scan goes on without UV.
            code, what = ("fault", "The lights are") if self._latched.locks_all else ("uv_fault", "UV is")
            raise LightRefused(code, f"{what} locked by a fault ({self._latched.fault}): call staff.")

    def _refuse_if_in_use(self) -> None:
        if self._lease is not None or self._pulse is not None or self._check_dark_at is not None:
            raise LightRefused("busy", "The lights are in use.", self._limits.lease_silence_s)

    def _refuse_flashing(self) -> None:
        wait = self._last_rise + 1.0 / self._limits.flashes_per_s - self._monotonic()
        if wait > 0:
            raise LightRefused("too_soon", "Lights may not flash faster than that.", wait)

    def _allowed(self, lease: Lease) -> UvAllowance:
        uv = lease.uv
        if uv is None:
            raise LightRefused("not_allowed", "This session has no UV.")
        if not uv.patient_reference:
            raise LightRefused("no_reference", "Without a patient reference there is no UV.")
        if not uv.screened:
            raise LightRefused("not_screened", "The UV questions were not all answered with a clear no.")
        age = self._moment().wall - uv.eyes_closed_confirmed_at
        if not -1.0 <= age <= self._limits.eye_protection_s:
            raise LightRefused("eyes_not_confirmed", "Eye protection was not confirmed just now.")
        return uv

    def _irradiance(self, light: str) -> float:
        """Irradiance at the eye plane in W/m², from a measurement of this very lamp that is still good."""
        with refusals_of_the_ledger():
            renewed_at = self._ledger.renewed_at(light)
        if renewed_at == UNKNOWN_SINCE or (renewed_at is None and self._renewals().get(light)):
            raise LightRefused(
                "not_calibrated",
                f"{light} has a new lamp, and the ledger that knew since when was lost or is an older copy."
                " Run 'dermakiosk lights new-lamp' once more, and do as it says.",
            )
        return good_irradiance(self._board, light, self._moment().wall, renewed_at)

    def _charge(self, light: str, seconds: float, who: tuple[str, str], elsewhere: float) -> Dose:
        """All dark, every interlock closed, and the pulse of `light` for `who` written down."""
        irradiance = self._irradiance(light)
        self._all_low()
        self._refuse_flashing()
        self._refuse_open_interlock()
        dose = Dose(*who, irradiance * (seconds + OVERRUN_S))
        with refusals_of_the_ledger():
            self._ledger.charge(dose, elsewhere, self._limits, self._moment())
        return dose

    def _fire(self, light: str, seconds: float, charged: Dose) -> float:
        begun = self._last_rise = self._monotonic()
        irradiance = charged.j_m2 / (seconds + OVERRUN_S)
        self._cut_by = None
        self._pulse = Pulse(light, begun, begun + seconds, irradiance, charged)
        self._raise_pin(light, 1.0)
        return begun

    def _why_not_passed(self, check: Check, seen: UvSeen) -> str | None:
        """What in CHECK_WORDS it is, where the lamp was seen in its pulse as `check` says and after it as
        `seen` does; None where all is well.
        """
        if True in seen:
            return "light_after_off"
        if None in seen:
            return "dark_unseen"
        if check.seen is None or self._cut_by is not None:
            return self._cut_by or "interrupted"
        return None if check.seen else "uv_unseen"

    def _end_check(self, why_not: str | None) -> None:
        check, self._check = self._check, None
        if check is not None and why_not is None:
            try:
                self._latched.clear(check.staff, check.only)
            except DoseRefused as refused:
                self._on_fault(refused.code)
                why_not = refused.code
        self._check_state = CheckState.FAILED if why_not else CheckState.PASSED
        self._check_why_not = why_not

    def _refuse_open_interlock(self) -> None:
        interlock = open_interlock(self._senses, self._limits)
        if interlock is not None:
            raise LightRefused(interlock, f"An interlock is open ({interlock}): no UV.")
        seen = self._senses.uv_seen()
        if True in seen:
            self._latch("light_after_off")
            raise LightRefused("fault", "UV is seen where none may be: call staff.")
        if seen != UV_DARK:
            raise LightRefused("sense_failed", "Photodiode or current sense does not answer: no UV.")

    def _why_uv_ends(self, now: float) -> str | None:
        lease = self._lease
        if self._check is None and (lease is None or now - lease.beat_at > self._limits.heartbeat_s):
            return "no_heartbeat"
        return open_interlock(self._senses, self._limits)

    def _raise_pin(self, light: str, level: float) -> float:
        self._lit = (light, level)
        try:
            self._pins.set(light, level)
        except OSError as error:
            self._latch("pin_failed")
            self._all_low()
            raise LightRefused("fault", f"The pin of {light} failed ({error}): call staff.") from error
        return self._monotonic()

    def _all_low(self) -> bool:
        """Put everything out; False where a pin failed, which a light check does not pass."""
        pulse, self._pulse = self._pulse, None
        self._lit = None
        low = True
        try:
            self._pins.all_low()
        except OSError:
            low = False
            self._latch("pin_failed")
            if self._check is not None:
                self._end_check("pin_failed")
        if pulse is not None:
            now = self._pulse_over_at = self._monotonic()
            self._check_dark_at = now + self._limits.light_after_off_s
            if self._check is not None:
                self._check.seen = pulse.seen
                if now < pulse.ends_at:
                    self._cut_by = self._cut_by or "interrupted"
            if pulse.seen is False:
                self._latch("uv_unseen")
            if now > pulse.ends_at + OVERRUN_S:
                self._own_up(pulse, now)
        return low

    def _own_up(self, pulse: Pulse, now: float) -> None:
        """This process was held up with UV on: write down the dose beyond what was charged.

        A pulse beyond the limit itself, or one that cannot be written down, locks the lights.
        """
        excess = pulse.irradiance_w_m2 * (now - pulse.ends_at - OVERRUN_S)
        try:
            self._ledger.own_up(replace(pulse.charged, j_m2=excess), self._moment())
            self._on_fault("uv_late")
        except DoseRefused as refused:
            self._on_fault(refused.code)
            self._latch("uv_overran")
        if now - pulse.begun_at > self._limits.uv_pulse_s:
            self._latch("uv_overran")

    def _latch(self, fault: str) -> None:
        if self._latched.set(fault):
            # Dark first: writing it down takes as long as the disk does.
            self._all_low()
            self._latched.write()
