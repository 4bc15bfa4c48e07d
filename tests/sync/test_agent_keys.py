"""The agent and the clinic's keys and certificates: which it takes up, and what it does without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provisioning import certificates
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.keys import (
    OpeningKey,
    generate_opening_key,
    generate_signing_key,
    load_signing_key,
    public_bytes,
)
from sync.wire.receipt import ReceiptStatus
from tests.support.agent import Clinic, running_agent, submit
from tests.support.mosquitto import Broker, running_broker
from tests.support.waiting import wait_until
from tests.support.wire import NOON, Party

# Short enough for a test to see a second attempt, long enough not to be one by accident.
RESEND = ("--resend-first", "0.7")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "system") as running:
        yield running


@pytest.mark.parametrize("status", ["stored", "duplicate", "quarantined"])
def test_a_key_that_the_clinic_gave_up_is_said_until_another_is_brought_whatever_else_is_the_matter(
    broker: Broker, clinic: Clinic, state: Path, party: Party, status: ReceiptStatus
) -> None:
    with running_agent(state, *RESEND) as agent:
        of_older_key = replace(party, opening=generate_opening_key()) if status == "stored" else party
        given_up, other = submit(agent, party), submit(agent, of_older_key)
        clinic.take_until({given_up[0], other[0]})
        clinic.receipt(*given_up, status="reseal")
        wait_until(
            lambda: agent.status()["key_problem"] is not None,
            "the agent saying what is the matter with the key",
        )
        clinic.receipt(*other, status=status)
        wait_until(
            lambda: agent.client.state(other[0]) not in ("waiting", "sent"),
            "the clinic's word about the other message",
        )
        assert "bring it a key set with another" in agent.status()["key_problem"]
        broker.stop()
        wait_until(
            lambda: agent.status()["connection_problem"] is not None,
            "the agent saying what is the matter with the connection",
        )
        assert "bring it a key set with another" in agent.status()["key_problem"]
        bring_keys(broker, state, generate_opening_key())
        wait_until(lambda: agent.status()["key_problem"] is None, "nothing the matter with the key any more")
        assert agent.status()["connection_problem"] is not None


def put_keys(state: Path, content: bytes) -> None:
    (state / "new").write_bytes(content)
    (state / "new").rename(state / "clinic-keys.cose")


def bring_keys(broker: Broker, state: Path, opening: OpeningKey) -> None:
    """Have the kiosk seal to another key from now on."""
    root = load_signing_key((broker.authority.folder / "root.key").read_bytes())
    old = ClinicKeys.verify((state / "clinic-keys.cose").read_bytes(), root.public_key())
    put_keys(state, ClinicKeys(old.version + 1, NOON, (opening.public,), old.receipt).sign(root))


def test_a_new_key_set_is_taken_up_and_an_old_one_is_not(
    broker: Broker, clinic: Clinic, state: Path, party: Party
) -> None:
    root = load_signing_key((broker.authority.folder / "root.key").read_bytes())
    new_receipts = generate_signing_key()
    old_file = (state / "clinic-keys.cose").read_bytes()
    old = ClinicKeys.verify(old_file, root.public_key())
    new = ClinicKeys(old.version + 1, NOON, old.opening, (public_bytes(new_receipts),))

    with running_agent(state) as agent:
        messages = [submit(agent, party) for _ in range(3)]
        clinic.take_until({message for message, _ in messages})
        put_keys(state, new.sign(root))
        clinic.answer(party.receipt(*messages[0]).sign(new_receipts))
        wait_until(lambda: agent.client.state(messages[0][0]) == "stored", "the first message stored")
        put_keys(state, old_file)
        clinic.receipt(*messages[1])
        clinic.answer(party.receipt(*messages[2]).sign(new_receipts))
        wait_until(lambda: agent.client.state(messages[2][0]) == "stored", "the third message stored")
        assert agent.client.state(messages[1][0]) == "sent"
        assert agent.status()["clinic_keys"] == new.version


def test_a_kiosk_whose_certificate_is_of_another_clinic_keeps_its_messages(
    broker: Broker, state: Path, party: Party, tmp_path: Path
) -> None:
    elsewhere = Broker(tmp_path / "elsewhere")
    elsewhere.enrol(tmp_path / "stranger")
    for name in ("tls.key", "tls.crt"):
        shutil.copy(tmp_path / "stranger" / "sync" / name, state / "sync" / name)
    with running_agent(state) as agent:
        message, _ = submit(agent, party)
        wait_until(
            lambda: "disconnected" in [event["event"] for event in agent.events()],
            "the log saying that the agent is disconnected",
        )
        assert not agent.status()["connected"]
        assert agent.status()["connection_problem"]
        assert agent.client.state(message) == "waiting"
        agent.stop()


def test_a_kiosk_whose_certificate_has_ended_says_so(
    broker: Broker, state: Path, party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LEAF_LIFE", -certificates.CLOCK_SKEW / 2)
    broker.enrol(tmp_path / "ended")
    for name in ("tls.key", "tls.crt"):
        shutil.copy(tmp_path / "ended" / "sync" / name, state / "sync" / name)
    with running_agent(state) as agent:
        message, _ = submit(agent, party)
        wait_until(
            lambda: "certificate ended" in (agent.status()["connection_problem"] or ""),
            "the agent saying that its certificate has ended",
        )
        assert agent.client.state(message) == "waiting"
        agent.stop()


def test_a_server_of_another_clinic_gets_nothing(
    broker: Broker, state: Path, party: Party, tmp_path: Path
) -> None:
    with running_broker(tmp_path / "elsewhere") as elsewhere:
        shutil.copy(elsewhere.authority.folder / "root.crt", state / "sync" / "ca.crt")
        with running_agent(state) as agent:
            message, _ = submit(agent, party)
            wait_until(
                lambda: "disconnected" in [event["event"] for event in agent.events()],
                "the log saying that the agent is disconnected",
            )
            assert agent.client.state(message) == "waiting"
