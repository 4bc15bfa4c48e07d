"""Web server: waitress, where clients that are slow or many never keep another from being answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import Error

# A browser sends a request in one piece; one that is not whole after this is nobody's who waits for a page.
ASK_S = 10.0
# A client that takes nothing of its answer.
TAKE_S = 20.0
# A browser keeps its connection for the next page.
KEEP_S = 75.0
CONNECTIONS = 200
# Of the connections so many at most wait for their turn; without a bound there is none left for anybody else.
WAIT_FOR_TURN = 50
MAX_HEADERS, MAX_BODY = 32 * 1024, 128 * 1024


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection, which knows since when it keeps us waiting."""

    asking_since: float | None = None  # a request has begun to come, and is not whole; on waitress's clock
    serving_since: float | None = None  # on the monotonic clock: the watchdog hears of it

    def received(self, data: bytes) -> bool:
        if self.asking_since is None:
            self.asking_since = time.time()
        taken: bool = super().received(data)
        if self.request is None:
            self.asking_since = None
        return taken

    def service(self) -> None:
        self.serving_since = time.monotonic()
        try:
            super().service()
        finally:
            self.serving_since = None

    @property
    def waits_since(self) -> float | None:
        """Since when nothing but the client keeps this connection open; None while it is answered."""
        if self.requests or self.serving_since is not None:
            return None
        if self.asking_since is not None:
            return self.asking_since
        return float(self.last_activity)

    def is_late(self, now: float) -> bool:
        """Whether the client had its time."""
        since = self.waits_since
        if since is None:
            return False
        if self.asking_since is not None:
            return now - since > ASK_S
        if self.total_outbufs_len:
            return now - since > TAKE_S
        # One that has never asked for anything is as one whose request does not come.
        never = self.last_activity == self.creation_time
        return now - since > (ASK_S if never else KEEP_S)


class _Busy(Error):  # type: ignore[misc]
    code, reason = 503, "Service Unavailable"


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """The threads that answer, and one more for what waits for each other: that holds up nobody else."""

    def __init__(self, threads: int, in_turn: Callable[[str, str], bool]) -> None:
        super().__init__()
        self._in_turn, self._one_by_one = in_turn, ThreadedTaskDispatcher()
        self._one_by_one.set_thread_count(1)
        self.set_thread_count(threads)

    def add_task(self, task: _Channel) -> None:
        request = task.requests[0]
        # One that could not be read has neither. Of all slashes before a path the application hears of one.
        path = "/" + getattr(request, "path", "").lstrip("/")
        if not self._in_turn(getattr(request, "command", ""), path):
            super().add_task(task)
        elif len(self._one_by_one.queue) < WAIT_FOR_TURN:
            self._one_by_one.add_task(task)
        else:
            request.error = _Busy("Too many ask for this just now. Please try again in a few seconds.")
            super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        end = time.monotonic() + timeout
        self._one_by_one.set_thread_count(0)
        ended: bool = super().shutdown(cancel_pending, timeout)
        return bool(self._one_by_one.shutdown(cancel_pending, max(0.0, end - time.monotonic()))) and ended


class WebServer(TcpWSGIServer):  # type: ignore[misc]
    """Serves one address. `on_turn` is called at each turn of its loop, about once a second at least.

    Beyond CONNECTIONS of them, a new connection costs the one that has kept us waiting longest: whoever
    sends a whole request is answered, however many others send half of one.
    """

    channel_class = _Channel
    on_turn: Callable[[], None] | None = None

    def readable(self) -> bool:
        if self.on_turn is not None:
            self.on_turn()
        return bool(super().readable())

    def handle_accept(self) -> None:
        super().handle_accept()
        # Only now, so that the new connection cannot have the number of the one that is closed: events of
        # this turn may still be on their way to that.
        if len(self.active_channels) > CONNECTIONS:
            waiting = [
                channel for channel in self.active_channels.values() if channel.waits_since is not None
            ]
            if waiting:
                min(waiting, key=lambda channel: channel.waits_since).handle_close()

    def maintenance(self, now: float) -> None:
        for channel in self.active_channels.values():
            if channel.is_late(now):
                channel.will_close = True

    def longest_service(self) -> float:
        """For how many seconds the request that has been worked on longest has been worked on."""
        now = time.monotonic()
        since = [channel.serving_since for channel in list(self.active_channels.values())]
        return max((now - one for one in since if one is not None), default=0.0)


def make_web_server(
    app: Any,
    host: str,
    port: int,
    threads: int,
    in_turn: Callable[[str, str], bool] = lambda method, path: False,
    **settings: Any,
) -> WebServer:
    """A server that listens on the one address; `run` serves. Raises OSError.

    Requests that are `in_turn`, by their method and path, are answered one by one, beside the `threads`;
    where too many wait for that, by 503 at once.
    """
    adjustments = Adjustments(
        host=host,
        port=port,
        threads=threads,
        ident=None,
        asyncore_use_poll=True,
        cleanup_interval=1,
        connection_limit=2 * CONNECTIONS,
        max_request_header_size=MAX_HEADERS,
        max_request_body_size=MAX_BODY,
        **settings,
    )
    return WebServer(
        app,
        map={},
        adj=adjustments,
        sockinfo=adjustments.listen[0],
        dispatcher=_Dispatcher(threads, in_turn),
    )
