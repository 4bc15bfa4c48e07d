"""The client of the light daemon, for the capture daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from firmware.lights.check_state import CheckState
from firmware.line.link import Link, LinkClosed, LinkError
from firmware.line.stamps import ConsentStamp, UvAllowance
from hardware.host.errors import Fault
from hardware.host.peers import servers_of

PROTOCOL = 1
ANSWER_S = 2.0
_LOOK_S = 0.02
# What the daemon's answers have, and of which kinds it may be.
_Kinds = Mapping[str, tuple[type, ...]]
_NOTHING: _Kinds = {}
_REFUSAL: _Kinds = {"code": (str,), "sentence": (str,), "retry_s": (int, float, NoneType)}
_AT: _Kinds = {"at_ns": (int,)}
_NEW_LAMP: _Kinds = {"measure": (bool,), "written": (bool,)}
_STATUS: _Kinds = {
    "leased": (bool,),
    "lit": (dict,),
    "pulse": (bool,),
    "fault": (str, NoneType),
    "ledger_unread": (str, NoneType),
    "check": (str,),
    "check_why_not": (str, NoneType),
    "pulse_over_ns": (int, NoneType),
    "pulse_cut_by": (str, NoneType),
    "interlock": (str, NoneType),
    "shroud_closed": (list, NoneType),
    "has_uv": (bool,),
    "sensors": (dict,),
    "uv_seen": (list,),
    "lamp_hours": (dict,),
    "lamp_renewals": (dict,),
}


class LightsFault(Fault):
    """The lights did not do as asked. `code` is the light daemon's, or "unavailable"."""

    def __init__(self, code: str, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(code, sentence)
        self.retry_s = retry_s


class NewLamp(NamedTuple):
    """What became of a new lamp: whether it has to be measured before UV is lit again, and whether that its
    hours begin at 0 was written down.
    """

    measure: bool
    written: bool


class Lights:
    """One connection to the light daemon at `path`; may be used from several threads.

    When a call fails in the line itself the connection is dropped, and the daemon, seeing that, puts
    everything out. `server` is the light daemon's user; see `servers_of` for when it is not named.
    """

    def __init__(self, path: Path, timeout: float = ANSWER_S, server: int | None = None) -> None:
        self._path, self._timeout, self._server = path, timeout, server
        self._lock = threading.Lock()
        self._link: Link | None = None

    def lease(self, session: str, consent: ConsentStamp, uv: UvAllowance | None = None) -> None:
        """Take the lights for `session`; all of them are off after this. Raises LightsFault."""
        self._ask(
            do="lease", session=session, consent=consent.to_dict(), uv=None if uv is None else uv.to_dict()
        )

    def on(self, light: str, level: float = 1.0) -> int:
        """Light `light` alone; returns when, in monotonic ns. Waits where it would flash too fast."""
        return int(self._ask_in_time(_AT, do="on", light=light, level=level)["at_ns"])

    def pulse(self, light: str, seconds: float) -> int:
        """A UV pulse; returns when it began, in monotonic ns. Beat every 100 ms to keep it."""
        return int(self._ask_in_time(_AT, do="pulse", light=light, seconds=seconds)["at_ns"])

    def beat(self) -> None:
        self._ask(do="beat")

    def off(self) -> None:
        """All lights off. If that cannot be said, hang up: that puts them off, too."""
        try:
            self._ask(do="off")
        except LightsFault:
            self.close()
            raise

    def release(self) -> None:
        """Give the lease back; all lights are off. A broken line gives it back as well."""
        try:
            self._ask(do="release")
        except LightsFault:
            self.close()

    def clear(self, staff: str) -> str | None:
        """`staff` clears the latched fault by a light check, in an empty hood; why that failed (one of
        firmware.lights.latch.CHECK_WORDS), or None. Raises LightsFault.
        """
        self._ask_in_time(do="clear", staff=staff)
        deadline = time.monotonic() + self._timeout
        while (status := self.status())["check"] == CheckState.RUNNING:
            if time.monotonic() > deadline:
                raise LightsFault("unavailable", "The light check did not come to an end.")
            time.sleep(_LOOK_S)
        why_not = status["check_why_not"]
        return None if why_not is None else str(why_not)

    def new_lamp(self, light: str, staff: str) -> NewLamp:
        """`staff` put in a new lamp: its hours begin at 0. Raises LightsFault."""
        answer = self._ask(_NEW_LAMP, do="new_lamp", light=light, staff=staff)
        return NewLamp(answer["measure"], answer["written"])

    def status(self) -> dict[str, Any]:
        """What is lit, whether leased, which fault, what the sensors read, how long each lamp was lit in its
        life and how often it was renewed. Raises LightsFault.
        """
        answer = self._ask(_STATUS, do="status")
        return {key: value for key, value in answer.items() if key not in ("v", "ok")}

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def _ask_in_time(self, has: _Kinds = _NOTHING, **request: Any) -> dict[str, Any]:
        """The answer to `request`, asked again where it came too soon for the flashing limit."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self._ask(has, **request)
            except LightsFault as fault:
                wait = fault.retry_s
                if fault.code != "too_soon" or wait is None or not 0 <= wait <= deadline - time.monotonic():
                    raise
                time.sleep(wait)

    def _ask(self, has: _Kinds = _NOTHING, **request: Any) -> dict[str, Any]:
        with self._lock:
            try:
                if self._link is None:
                    self._link = Link.connect(
                        self._path, self._timeout, servers_of(self._path, "light", self._server)
                    )
                self._link.send({"v": PROTOCOL, **request}, timeout=self._timeout)
                answer, _ = self._link.receive(self._timeout)
            except LinkClosed as error:
                self._hang_up()
                raise LightsFault(
                    "unavailable",
                    "The light daemon hung up: it has ended, many connected to it in the same moment, or"
                    " this user is neither its own nor one of its peers.",
                ) from error
            except LinkError as error:
                self._hang_up()
                raise LightsFault(
                    "unavailable",
                    f"The light daemon cannot be reached: is 'dermakiosk lightd' running? {error}",
                ) from error
            if answer.get("code") == "full":
                self._hang_up()  # as the daemon does; another call connects anew
            done = answer.get("ok") is True
            if not _fits(answer, has if done else _REFUSAL):
                self._hang_up()  # nobody knows what it has lit
                raise LightsFault(
                    "unavailable",
                    "What answers for the light daemon does not answer as one: is 'dermakiosk lightd' of this"
                    " version running?",
                )
        if not done:
            raise LightsFault(answer["code"], answer["sentence"], answer["retry_s"])
        return answer

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def _fits(answer: Mapping[str, Any], kinds: _Kinds) -> bool:
    """Whether an answer has all of these fields, each of its kind."""
    return all(name in answer and isinstance(answer[name], of) for name, of in kinds.items())
