"""The web server of kiosk and clinic: clients that are slow, or many, keep nobody from an answer."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sync.web import server as web_server
from sync.web.server import CONNECTIONS, WebServer
from tests.support.serving import running_server
from tests.support.waiting import wait_until

HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-"


def hello(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    start("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def ask(server: WebServer, path: str = "/") -> bytes:
    """One whole request, as a browser sends it."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.effective_port), timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


@contextmanager
def half_sent(server: WebServer, number: int, said: bytes = HALF) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as closing:
        sockets = []
        for _ in range(number):
            one = socket.create_connection(("127.0.0.1", int(server.effective_port)), timeout=60)
            closing.enter_context(one)
            with contextlib.suppress(OSError):
                one.sendall(said)
            sockets.append(one)
        yield sockets


@pytest.mark.parametrize("said", [HALF, b"", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"])
@pytest.mark.parametrize("number", [120, 500])
def test_a_whole_request_is_answered_beside_any_number_of_half_sent_ones(number: int, said: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with running_server(hello, 2) as server, half_sent(server, number, said):
            for _ in range(5):
                assert ask(server) == b"hello"
            assert len(server.active_channels) <= CONNECTIONS + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_whoever_drips_a_request_is_cut_off_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "ASK_S", 3600.0)
    with running_server(hello, 2) as server, half_sent(server, 3) as slow:
        wait_until(lambda: len(server.active_channels) == 3, "three connections")
        monkeypatch.setattr(web_server, "ASK_S", 1.0)

        def all_cut_off() -> bool:
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")
            return not server.active_channels

        wait_until(all_cut_off, "no connection left")
        monkeypatch.setattr(web_server, "ASK_S", 3600.0)
        assert ask(server) == b"hello"


def test_a_browser_keeps_its_connection_for_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(hello, 2) as server:
        connection = http.client.HTTPConnection("127.0.0.1", int(server.effective_port), timeout=60)
        with contextlib.closing(connection):
            for _ in range(3):
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"hello"
                # One that has asked nothing yet would be cut off at once.
                monkeypatch.setattr(web_server, "ASK_S", 0.0)
                turned = threading.Event()
                server.on_turn = turned.set
                assert turned.wait(60)
            assert len(server.active_channels) == 1


def test_a_request_that_is_worked_on_is_never_cut_off_and_its_time_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going, go_on = threading.Event(), threading.Event()

    def slow(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        going.set()
        go_on.wait(60)
        return hello(environ, start)

    with running_server(slow, 2) as server:
        answers: list[bytes] = []
        asking = threading.Thread(target=lambda: answers.append(ask(server)))
        asking.start()
        assert going.wait(60)
        assert server.longest_service() > 0
        with monkeypatch.context() as patch:  # a kiosk's clock is set only once it has a network
            set_right = SimpleNamespace(time=lambda: time.time() + 1e9, monotonic=time.monotonic)
            patch.setattr(web_server, "time", set_right)
            assert server.longest_service() < 1e6
        with half_sent(server, CONNECTIONS + 20):
            go_on.set()
            asking.join(60)
        assert answers == [b"hello"]
        assert server.longest_service() == 0


def test_requests_that_wait_for_each_other_are_answered_in_turn_and_keep_no_other_waiting() -> None:
    go_on, at_once, most = threading.Semaphore(0), list[int](), list[int]()

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"].lstrip("/") == "turn":
            at_once.append(1)
            most.append(len(at_once))
            go_on.acquire(timeout=60)
            at_once.pop()
        return hello(environ, start)

    with running_server(app, 2, in_turn=lambda method, path: (method, path) == ("GET", "/turn")) as server:
        answers: list[bytes] = []
        # Of however many slashes before its name the application hears of one.
        paths = ["/turn", "//turn", "/turn", "///turn", "turn"]
        asking = [
            threading.Thread(target=lambda path=path: answers.append(ask(server, path))) for path in paths
        ]
        for one in asking:
            one.start()
        wait_until(lambda: len(server.active_channels) == 5 and bool(most), "all have asked")
        for _ in range(3):
            assert ask(server) == b"hello"
        assert answers == []
        go_on.release(5)
        for one in asking:
            one.join(60)
    assert answers == [b"hello"] * 5
    assert set(most) == {1}


def test_no_flood_of_what_waits_for_its_turn_takes_the_connections_of_others() -> None:
    go_on = threading.Event()

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/turn":
            go_on.wait(60)
        return hello(environ, start)

    said = b"GET /turn HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        running_server(app, 2, in_turn=lambda method, path: path == "/turn") as server,
        half_sent(server, web_server.CONNECTIONS, said) as flood,
    ):
        refused = b"".join(iter(lambda: flood[-1].recv(4096), b""))
        answers = [ask(server) for _ in range(3)]
        go_on.set()
        assert flood[0].recv(4096).startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Please try again" in refused
    assert answers == [b"hello"] * 3


def test_what_is_answered_in_turn_is_waited_for_at_a_stop_as_everything_is() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        begun.set()
        go_on.wait(60)
        return hello(environ, start)

    with running_server(app, 2, in_turn=lambda method, path: True) as server:
        answers: list[bytes] = []
        asking = threading.Thread(target=lambda: answers.append(ask(server)))
        asking.start()
        assert begun.wait(60)
        ends_with: list[float] = []

        def stop() -> None:
            server.task_dispatcher.shutdown(cancel_pending=True, timeout=60)
            ends_with.append(server.longest_service())

        stopping = threading.Thread(target=stop)
        stopping.start()
        wait_until(lambda: not server.task_dispatcher.threads, "the others have ended")
        assert stopping.is_alive()
        go_on.set()
        stopping.join(60)
        asking.join(60)
    assert ends_with == [0.0]
    assert answers == [b"hello"]
