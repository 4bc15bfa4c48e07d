"""One enrolled kiosk of a module's `broker`, and its clinic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.kiosk.outbox import Outbox
from tests.support.agent import Clinic, party_of
from tests.support.mosquitto import Broker
from tests.support.mqtt import connected
from tests.support.wire import Party


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "kiosk"


@pytest.fixture
def party(broker: Broker, state: Path) -> Party:
    return party_of(broker, broker.enrol(state), state)


@pytest.fixture
def clinic(broker: Broker, party: Party) -> Iterator[Clinic]:
    with connected(broker, broker.ingest) as client:
        yield Clinic(broker, party, client)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    opened = Outbox(tmp_path / "outbox.sqlite")
    yield opened
    opened.close()
