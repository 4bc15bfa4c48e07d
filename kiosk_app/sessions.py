"""The sessions of this kiosk: in memory only, each known by a random token in the browser's cookie."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from kiosk_app.journey import ENDS, Session, State

MOST = 4  # one screen needs one; a few more forgive a reloaded browser


class Sessions:
    """Makes, finds, ends sessions. `on_leave(session)` is called before a session's facts are forgotten."""

    def __init__(
        self, on_leave: Callable[[Session], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_leave = on_leave
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self) -> tuple[str, Session]:
        """A new session and its token; the one idle longest makes room."""
        with self._lock:
            token, session = secrets.token_urlsafe(32), Session(clock=self._clock)
            surplus = sorted(self._sessions, key=lambda known: self._sessions[known].touched)[: -MOST + 1]
            leaving = [self._sessions.pop(known) for known in surplus] if len(self._sessions) >= MOST else []
            self._sessions[token] = session
        for old in leaving:
            self.leave(old)
        return token, session

    def find(self, token: str) -> Session | None:
        """The session of this token; None when there is none, as after a restart."""
        with self._lock:
            return self._sessions.get(token)

    def leave(self, session: Session, state: State = State.LANGUAGE) -> None:
        """End what the session was doing and forget the patient."""
        try:
            self._on_leave(session)
        finally:
            session.wipe(state)

    def expire(self) -> int:
        """Wipe the sessions whose time is up; how many. Called every second."""
        with self._lock:
            sessions = list(self._sessions.values())
        wiped = 0
        for session in sessions:
            with session.lock:
                if session.left() <= 0:
                    calm = session.state in ENDS or session.state is State.LANGUAGE
                    self.leave(session, State.LANGUAGE if calm else State.EXPIRED)
                    wiped += 1
        return wiped
