"""Fixtures of the kiosk application: a clinic, a bench with stand-ins, a browser-like client."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from kiosk_app.app import create_app
from tests.support.kiosk_bench import Bench, Clinic
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
