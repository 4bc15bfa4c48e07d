"""`dermakiosk sync`: starting, stopping, telling how it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.agent import COMMAND, STOP_SECONDS, party_of, running_agent, unavailable
from tests.support.mosquitto import Broker


@pytest.fixture
def system(tmp_path: Path) -> tuple[Broker, Path]:
    """A clinic whose broker is not running, and an enrolled kiosk."""
    broker = Broker(tmp_path / "system")
    broker.enrol(tmp_path / "kiosk")
    return broker, tmp_path / "kiosk"


def sync(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "sync", *arguments], capture_output=True, text=True, timeout=30)


def test_it_stops_soon_and_leaves_no_socket(system: tuple[Broker, Path]) -> None:
    _, state = system
    with running_agent(state) as agent:
        assert agent.stop() < STOP_SECONDS
        assert unavailable(agent.client)
        assert list((state / "run").iterdir()) == []
        agent.start()
        agent.stop()


def test_a_second_agent_on_the_same_state_is_refused(system: tuple[Broker, Path]) -> None:
    _, state = system
    with running_agent(state) as agent:
        second = sync("run", "--state", str(state))
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert "Another agent runs" in second.stderr
        assert agent.status()["running"]


def test_status_counts_with_an_agent_and_without(system: tuple[Broker, Path]) -> None:
    broker, state = system
    kiosk = UUID(json.loads((state / "identity.json").read_text())["kiosk"])
    party = party_of(broker, kiosk, state)
    assert sync("status", "--state", str(state)).returncode == 2
    with running_agent(state) as agent:
        message, envelope = party.envelope()
        agent.client.submit(message, "result", envelope)
        running = json.loads(sync("status", "--json", "--state", str(state)).stdout)
        assert (running["running"], running["connected"], running["waiting"]) == (True, False, 1)
        agent.stop()
    stopped = json.loads(sync("status", "--json", "--state", str(state)).stdout)
    assert (stopped["running"], stopped["waiting"], stopped["bytes"]) == (False, 1, len(envelope))
    table = sync("status", "--state", str(state)).stdout
    assert "last receipt at" in table
    assert "accepting" in table


def test_a_state_that_is_not_a_kiosks_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    refused = sync("run", "--state", str(tmp_path))
    assert refused.returncode == 2
    assert "enrol this kiosk" in refused.stderr


@pytest.mark.parametrize("command", [[], ["run"], ["status"]])
def test_help_explains(command: list[str]) -> None:
    shown = sync(*command, "--help")
    assert shown.returncode == 0
    assert "agent" in shown.stdout or "outbox" in shown.stdout
