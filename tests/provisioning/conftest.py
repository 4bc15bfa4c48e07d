"""Fixtures: a broker of its own for each test, with enrolled kiosks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.mosquitto import Broker, running_broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "system") as running:
        yield running


@pytest.fixture
def kiosk(broker: Broker, tmp_path: Path) -> tuple[UUID, Path]:
    """A freshly enrolled kiosk: its id and the folder with its TLS files."""
    folder = tmp_path / "kiosk"
    return broker.enrol(folder), folder / "sync"


@pytest.fixture
def other_kiosk(broker: Broker, tmp_path: Path) -> tuple[UUID, Path]:
    folder = tmp_path / "other"
    return broker.enrol(folder), folder / "sync"
