"""Fixtures of the kiosk application: a clinic, a bench with stand-ins, a browser-like client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, ViewportSize

from kiosk_app.kept import keyring, reserve
from kiosk_app.patient import app
from kiosk_app.patient.app import create_app
from kiosk_app.patient.journey import Session
from kiosk_app.patient.pages import COOKIE
from kiosk_app.scanning import scan_work
from kiosk_app.web import showings
from tests.support.browser import still
from tests.support.kiosk_bench import Bench, Clinic, scans_at_work
from tests.support.kiosk_screen import PatientAt
from tests.support.serving import served
from tests.support.templates import compiled_once
from tests.support.visitor import PatientClock, Visitor
from tests.support.whole_way import Way


@pytest.fixture(scope="session", autouse=True)
def templates_compiled_once() -> Iterator[None]:
    with compiled_once():
        yield


@pytest.fixture
def clinic() -> Clinic:
    return Clinic()


@pytest.fixture(autouse=True)
def no_scan_is_left() -> Iterator[None]:
    """Name the test that leaves a scan at work, which would go on beside the tests after it."""
    before = scans_at_work()
    yield
    left = [thread for thread in scans_at_work() if thread not in before]
    assert left == [], "this test ended, and a scan that it began did not"


@pytest.fixture
def bench(tmp_path: Path, clinic: Clinic, no_scan_is_left: None) -> Iterator[Bench]:
    bench = Bench(clinic.enrol(tmp_path / "kiosk"), clinic)
    yield bench
    bench.end_scans()


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "RESERVE_MB", 1)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the keys of another process gives up soon."""
    monkeypatch.setattr(keyring, "LOCKED_S", 0.05)
    monkeypatch.setattr(app, "KEYS_S", 0.05)
    monkeypatch.setattr(scan_work, "ABANDON_S", 0.05)


@pytest.fixture
def clock() -> PatientClock:
    return PatientClock()


@pytest.fixture
def client(bench: Bench, clock: PatientClock) -> FlaskClient:
    return create_app(bench.kiosk, clock).test_client()


@pytest.fixture
def visitor(client: FlaskClient, clock: PatientClock) -> Visitor:
    return Visitor(client, clock)


@pytest.fixture
def reads_s() -> float:
    """How long a patient in a browser looks at a page before answering: they read faster than people do."""
    return 0.05


@pytest.fixture
def address(bench: Bench, reads_s: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The bench's pages, for a browser."""
    monkeypatch.setattr(showings, "READ_S", reads_s)
    with served(create_app(bench.kiosk)) as address:
        yield address


@pytest.fixture
def patient_at(browser: Browser, address: str, bench: Bench) -> Iterator[PatientAt]:
    """Patients of the bench before screens that are closed with the test."""
    with ExitStack() as screens:

        def begin(size: tuple[int, int], scripts: bool = False) -> tuple[Page, Session]:
            token, session = bench.kiosk.sessions.begin()
            viewport: ViewportSize = {"width": size[0], "height": size[1]}
            context = still(browser, viewport=viewport, java_script_enabled=scripts)
            screens.callback(context.close)
            context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
            return context.new_page(), session

        yield begin


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()
