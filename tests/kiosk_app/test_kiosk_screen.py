"""The kiosk's browser is started again where it shows no page, and for nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kiosk_app import screen_cli
from kiosk_app.demo.supervisor import dermakiosk
from kiosk_app.screen_cli import BrowserEnded, screen
from tests.support.mosquitto import free_port


@contextmanager
def application(silent_s: float) -> Iterator[int]:
    """The port of an application before which no page has been shown for so long."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"ok": True, "silent_s": silent_s}).encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd hears, of a watchdog that is told at each look: no more than a socket keeps unread."""
    monkeypatch.setattr(screen_cli, "LOOK_S", 0.25)
    monkeypatch.setattr(screen_cli, "SILENT_S", 0.4)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def shown(port: int, *program: str) -> Result:
    return CliRunner().invoke(screen, ["--port", str(port), "--", *program])


def beats(heard: socket.socket) -> int:
    """How often the watchdog heard of a browser that is ready."""
    said = []
    try:
        while True:
            said.append(heard.recv(99))
    except BlockingIOError:
        assert said.pop(0) == b"READY=1"
        assert set(said) <= {b"WATCHDOG=1"}
        return len(said)


@pytest.fixture
def five_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is ended, and its watcher with it, once it was looked at so often."""
    wait, looks = screen_cli._wait, iter(range(1, 6))

    def ends_at_last(browser: subprocess.Popen[bytes]) -> None:
        if next(looks) == 5:
            browser.terminate()
            browser.wait()
        wait(browser)

    monkeypatch.setattr(screen_cli, "_wait", ends_at_last)


@pytest.mark.usefixtures("five_looks")
def test_a_browser_that_shows_pages_is_alive(systemd: socket.socket) -> None:
    with application(0.0) as port:
        assert shown(port, "/bin/sleep", "1000").exit_code == 0
    assert beats(systemd) >= 5


def test_a_browser_that_shows_none_is_alive_no_more(systemd: socket.socket) -> None:
    with application(1000.0) as port:
        assert shown(port, "/bin/sleep", "2").exit_code == 0
    assert 1 <= beats(systemd) <= 3, "it has its time to begin, and no more"


@pytest.mark.usefixtures("five_looks")
def test_a_browser_is_not_blamed_for_an_application_that_does_not_answer(systemd: socket.socket) -> None:
    assert shown(free_port(), "/bin/sleep", "1000").exit_code == 0
    assert beats(systemd) >= 5


def test_the_watcher_ends_with_the_browser_and_says_how(systemd: socket.socket) -> None:
    ended = shown(free_port(), "/bin/sh", "-c", 'test "$1" = -- && exit 3', "sh", "--")
    assert isinstance(ended.exception, BrowserEnded)
    assert "status 3" in str(ended.exception)


def test_the_browser_ends_with_its_watcher() -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    command = dermakiosk("screen", "--", sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        browser = int(watcher.stdout.readline())
        watcher.terminate()
        assert watcher.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(browser, 0)
