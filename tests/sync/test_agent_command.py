"""`dermakiosk sync`: starting, stopping, telling how it is."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from sync.kiosk.report import AGENT_ONLY
from sync.wire.keys import signing_kid
from tests.support.agent import COMMAND, STOP_S, party_of, running_agent, unavailable
from tests.support.mosquitto import Broker
from tests.support.waiting import unless_held_up


@pytest.fixture
def system(tmp_path: Path) -> tuple[Broker, Path]:
    """A clinic whose broker is not running, and an enrolled kiosk."""
    broker = Broker(tmp_path / "system")
    broker.enrol(tmp_path / "kiosk")
    return broker, tmp_path / "kiosk"


def sync(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "sync", *arguments], capture_output=True, text=True, timeout=120)


def test_it_stops_soon_and_leaves_no_socket(system: tuple[Broker, Path]) -> None:
    _, state = system
    with running_agent(state) as agent:

        def stops_soon() -> None:
            seconds = agent.stop()
            assert unavailable(agent.client)
            assert list((state / "run").iterdir()) == []
            agent.start()
            assert seconds < STOP_S

        unless_held_up(stops_soon)
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
    assert running.keys() == stopped.keys()
    for name in ("kiosk", "broker", "clinic_keys", "opening_keys", "receipt_keys", "waiting", "bytes"):
        assert running[name] == stopped[name], name
    assert "key_problem" in stopped
    for name in AGENT_ONLY:
        assert stopped[name] is None, name
    assert stopped["kiosk"] == str(kiosk)
    assert stopped["opening_keys"] == [party.opening.kid.hex()]
    assert stopped["receipt_keys"] == [signing_kid(party.receipts.public_key()).hex()]
    table = sync("status", "--state", str(state)).stdout
    for expected in ("last receipt at", "accepting", "no agent runs", party.opening.kid.hex(), str(kiosk)):
        assert expected in table
    assert "waiting             1  (not sent yet)\n" in table
    assert "sent                0  (still without the clinic's receipt; " in table


def test_the_status_of_no_kiosk_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for state, why in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "enrol this kiosk, or correct --state"),
    ):
        refused = sync("status", "--state", str(state))
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert why in refused.stderr


@pytest.mark.parametrize(
    ("in_its_place", "why"),
    [(Path.touch, "There is no outbox"), (lambda sync: sync.symlink_to("sync"), "cannot be read")],
    ids=["file", "link to itself"],
)
def test_the_status_where_the_outboxs_folder_is_none_says_what_to_do(
    system: tuple[Broker, Path], in_its_place: Callable[[Path], object], why: str
) -> None:
    _, state = system
    (state / "sync").rename(state / "elsewhere")
    in_its_place(state / "sync")
    refused = sync("status", "--state", str(state))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert why in refused.stderr and "start 'dermakiosk sync run'" in refused.stderr


@pytest.mark.parametrize(
    ("version", "why"), [(0, "start 'dermakiosk sync run'"), (99, "use the version that made it")]
)
def test_the_status_of_an_outbox_of_another_version_says_what_to_do(
    system: tuple[Broker, Path], version: int, why: str
) -> None:
    _, state = system
    with running_agent(state) as agent:
        agent.stop()
    with contextlib.closing(sqlite3.connect(state / "sync" / "outbox.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {version}")
    refused = sync("status", "--state", str(state))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "outbox.sqlite cannot be read" in refused.stderr and why in refused.stderr


def test_an_outbox_of_which_a_part_is_damaged_is_an_error_with_what_to_do(
    system: tuple[Broker, Path],
) -> None:
    """It can be opened, and what the agent asks it first is in that part."""
    _, state = system
    with running_agent(state) as agent:
        agent.stop()
    path = state / "sync" / "outbox.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        ((size,),) = db.execute("PRAGMA page_size")
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'unvouched'")
    with path.open("r+b") as file:
        file.seek(size * (page - 1))
        file.write(b"\xff" * size)
    refused = sync("run", "--state", str(state))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "the file is damaged: move it aside" in refused.stderr


def test_a_state_too_deep_for_a_socket_is_refused_in_a_sentence(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "system")
    state = tmp_path / ("x" * 100) / "kiosk"
    broker.enrol(state)
    refused = sync("run", "--state", str(state))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "too long for the sockets in it: name a shorter one" in refused.stderr


def test_a_state_that_is_not_a_kiosks_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    refused = sync("run", "--state", str(tmp_path))
    assert refused.returncode == 2
    assert "enrol this kiosk, or correct --state" in refused.stderr


@pytest.mark.parametrize("command", [[], ["run"], ["status"]])
def test_help_explains(command: list[str]) -> None:
    shown = sync(*command, "--help")
    assert shown.returncode == 0
    assert "agent" in shown.stdout or "outbox" in shown.stdout
