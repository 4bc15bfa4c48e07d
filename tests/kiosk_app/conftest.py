"""Fixtures of the kiosk application: a clinic, a bench with stand-ins, a browser-like client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from kiosk_app import showings
from kiosk_app.app import create_app
from tests.support.kiosk_bench import Bench, Clinic
from tests.support.serving import served
from tests.support.visitor import PatientClock, Visitor


@pytest.fixture
def clinic() -> Clinic:
    return Clinic()


@pytest.fixture
def bench(tmp_path: Path, clinic: Clinic) -> Bench:
    return Bench(clinic.enrol(tmp_path / "kiosk"), clinic)


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
