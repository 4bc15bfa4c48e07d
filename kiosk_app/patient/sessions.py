"""The sessions of this kiosk: in memory only, each known by a random token in the browser's cookie."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from hardware.host.errors import PlainError
from kiosk_app.patient.journey import Session, State

# Its page asks every second and a half (kiosk.js); not heard of for so long, a session has lost its browser.
LOST_S = 4.5


class AnotherPatient(PlainError):
    """A patient is in front of another browser of this kiosk."""


class Sessions:
    """Makes, finds, ends sessions, of which one at a time is a patient's.

    `on_leave(session)` is called before a session's facts are forgotten.
    """

    def __init__(
        self, on_leave: Callable[[Session], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_leave = on_leave
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self) -> tuple[str, Session]:
        """A new session and its token. Raises AnotherPatient: nobody is thrown out by another who begins."""
        with self._lock:
            if self._taken():
                raise AnotherPatient
            old, self._sessions = list(self._sessions.values()), {}
            token, session = secrets.token_urlsafe(32), Session(clock=self._clock)
            self._sessions[token] = session
        for one in old:
            self.leave(one)
        return token, session

    def taken(self) -> bool:
        """Whether a patient is in front of a browser."""
        with self._lock:
            return self._taken()

    def _taken(self) -> bool:
        late = self._clock() - LOST_S
        return any(not one.is_calm and one.heard > late for one in self._sessions.values())

    def find(self, token: str) -> Session | None:
        """The session of this token; None when there is none, as after a restart."""
        with self._lock:
            session = self._sessions.get(token)
            if session is not None:
                session.heard = self._clock()
            return session

    def leave(self, session: Session, state: State = State.LANGUAGE) -> None:
        """End what the session was doing and forget the patient."""
        try:
            self._on_leave(session)
        finally:
            session.wipe(state)

    def expire(self) -> int:
        """Wipe the sessions whose time is up; how many. Called every second, and before each page.

        A session that is at work on something has its turn a second later: no page waits here for another.
        """
        with self._lock:
            sessions = list(self._sessions.values())
        wiped = 0
        for session in sessions:
            if not session.lock.acquire(blocking=False):
                continue
            try:
                if session.left() <= 0:
                    self.leave(session, State.LANGUAGE if session.is_calm else State.EXPIRED)
                    wiped += 1
            finally:
                session.lock.release()
        return wiped
