"""The agent against a real broker: what arrives, what stays, what deletes."""

from __future__ import annotations

import base64
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from sync.kiosk.outbox import Outbox
from sync.wire import cose, topics
from sync.wire.envelope import MAX_ENVELOPE
from sync.wire.keys import (
    generate_opening_key,
    generate_signing_key,
    load_signing_key,
)
from sync.wire.receipt import ReceiptStatus
from sync.wire.status import CLOCK_AHEAD, Status
from tests.support.agent import Clinic, party_of, running_agent, submit
from tests.support.mosquitto import Broker, running_broker
from tests.support.mqtt import connected
from tests.support.waiting import wait_until
from tests.support.wire import Party, a_result

# Short enough for a test to see a second attempt, long enough not to be one by accident.
RESEND = ("--resend-first", "0.7")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "system") as running:
        yield running


UUID_TEXT = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# What an event may have, and how it looks: ids, moments and words of our own.
MAY_BE_TOLD = {
    "event": "[a-z_]+",
    "level": "[a-z]+",
    "timestamp": r"[0-9T:.+Z-]+",
    "kiosk": UUID_TEXT,
    "broker": r"[a-z0-9.]+:\d+",
    "message": UUID_TEXT,
    "status": "stored",
    "outcome": "accepted|key_held",
    "reason": "[A-Za-z ]{1,40}",
}


def test_a_message_goes_and_is_deleted_on_its_receipt(clinic: Clinic, state: Path, party: Party) -> None:
    with running_agent(state) as agent:
        message, envelope = submit(agent, party)
        assert clinic.take() == (message, envelope)
        assert agent.client.state(message) == "sent"
        clinic.receipt(message, envelope)
        wait_until(lambda: agent.client.state(message) == "stored", "the message stored")
        status = agent.status()
        assert (status["waiting"], status["sent"], status["bytes"]) == (0, 0, 0)
        assert status["last_receipt_at"]
        agent.stop()


def test_a_message_given_while_the_broker_is_away_goes_when_it_comes(
    broker: Broker, state: Path, party: Party
) -> None:
    broker.stop()
    with running_agent(state) as agent:
        message, envelope = submit(agent, party)
        assert agent.client.state(message) == "waiting"
        assert not agent.status()["connected"]
        with ExitStack() as open_:
            with agent.held():
                broker.start()
                clinic = Clinic(broker, party, open_.enter_context(connected(broker, broker.ingest)))
            assert clinic.take() == (message, envelope)
            clinic.receipt(message, envelope)
            wait_until(lambda: agent.client.state(message) == "stored", "the message stored")


def test_nothing_is_lost_when_the_broker_is_killed_in_mid_flight(
    broker: Broker, state: Path, party: Party
) -> None:
    with running_agent(state, *RESEND) as agent, ExitStack() as first:
        client = first.enter_context(connected(broker, broker.ingest))
        clinic = Clinic(broker, party, client)
        sent = dict(submit(agent, party) for _ in range(30))
        for _ in range(10):
            clinic.receipt(*clinic.take())
        broker.kill()
        sent |= dict(submit(agent, party) for _ in range(10))
        broker.start()
        with connected(broker, broker.ingest) as client:
            clinic = Clinic(broker, party, client)
            clinic.receipt_all_until(lambda: agent.status()["waiting"] + agent.status()["sent"] == 0)
        assert {agent.client.state(message) for message in sent} == {"stored"}


def test_what_the_broker_died_over_goes_at_once_when_it_is_back(
    broker: Broker, state: Path, party: Party
) -> None:
    """The next attempt would be due a minute later."""
    with running_agent(state) as agent:
        agent.wait_connected()
        assert broker._process is not None
        broker._process.send_signal(signal.SIGSTOP)
        message, envelope = submit(agent, party)
        wait_until(lambda: agent.client.state(message) == "sent", "the message sent")
        with ExitStack() as open_:
            with agent.held():
                broker.kill()
                broker.start()
                clinic = Clinic(broker, party, open_.enter_context(connected(broker, broker.ingest)))
            assert clinic.take() == (message, envelope)


def test_the_largest_envelope_fits_the_brokers_packets(clinic: Clinic, state: Path, party: Party) -> None:
    header = party.header(a_result())
    frame = len(cose.sign(header.encode(), bytes(2**16), party.signing)) - 2**16
    envelope = cose.sign(header.encode(), bytes(MAX_ENVELOPE - frame), party.signing)
    assert len(envelope) == MAX_ENVELOPE
    with running_agent(state) as agent:
        agent.client.submit(header.message_id, "result", envelope)
        assert clinic.take() == (header.message_id, envelope)


@pytest.mark.parametrize("first", [True, False])
def test_an_envelope_that_the_broker_ends_the_connection_over_keeps_no_other_back(
    tmp_path: Path, first: bool
) -> None:
    """A broker whose packets are smaller than the wire asks for."""
    broker = Broker(tmp_path / "system")
    narrow = re.sub(r"max_packet_size \d+", "max_packet_size 20000", broker.configuration.read_text())
    broker.configuration.write_text(narrow)
    with broker:
        party = party_of(broker, broker.enrol(tmp_path / "kiosk"), tmp_path / "kiosk")
        large, *others = [party.envelope(a_result(findings=400)), *(party.envelope() for _ in range(3))]
        with (
            connected(broker, broker.ingest) as client,
            running_agent(tmp_path / "kiosk") as agent,
        ):
            clinic, arrived = Clinic(broker, party, client), dict[UUID, bytes]()
            for message, envelope in [large, *others] if first else [*others, large]:
                agent.client.submit(message, "result", envelope)
            while len(arrived) < len(others):
                arrived.update([clinic.take()])
                for taken in arrived.items():
                    clinic.receipt(*taken)
            assert arrived == dict(others)
            assert agent.client.state(large[0]) == "sent"


def test_a_publish_that_nobody_gets_stays_and_goes_again(broker: Broker, state: Path, party: Party) -> None:
    with running_agent(state, *RESEND) as agent:
        message, envelope = submit(agent, party)
        wait_until(
            lambda: agent.status()["last_refusal"] == "no_subscriber",
            "the agent saying that nobody took its message",
        )
        assert agent.client.state(message) == "sent"
        with connected(broker, broker.ingest) as client:
            assert Clinic(broker, party, client).take() == (message, envelope)


def test_a_denied_publish_stays_in_the_outbox(broker: Broker, state: Path, party: Party) -> None:
    acl = broker.configuration.with_name("acl")
    permitted = acl.read_text()
    denied = permitted.replace("pattern write clinic/v1/%u/up/result", "")
    assert denied != permitted
    acl.write_text(denied)
    broker.restart()
    with running_agent(state, *RESEND) as agent, ExitStack() as first:
        client = first.enter_context(connected(broker, broker.ingest))
        Clinic(broker, party, client)
        message, envelope = submit(agent, party)
        wait_until(
            lambda: agent.status()["last_refusal"] == "refused_0x87",
            "the agent saying that the broker denied its message",
        )
        assert client.hears_nothing()
        assert agent.client.state(message) == "sent"
        acl.write_text(permitted)
        broker.restart()
        with connected(broker, broker.ingest) as client:
            clinic = Clinic(broker, party, client)
            assert clinic.take() == (message, envelope)
            clinic.receipt(message, envelope)
            wait_until(lambda: agent.client.state(message) == "stored", "the message stored")


def test_only_the_clinics_own_receipt_for_these_bytes_deletes(
    clinic: Clinic, state: Path, party: Party
) -> None:
    with running_agent(state) as agent:
        message, envelope = submit(agent, party)
        other = submit(agent, party)
        clinic.take_until({message, other[0]})
        good = party.receipt(message, envelope)
        spoiled = bytearray(good.sign(party.receipts))
        spoiled[-1] ^= 1
        clinic.answer(b"no receipt")
        clinic.answer(b"")
        clinic.answer(bytes(spoiled))
        clinic.answer(good.sign(generate_signing_key()))
        clinic.answer(good.sign(party.signing))
        clinic.receipt(message, b"other bytes")
        clinic.receipt(message, envelope, kiosk=uuid4())
        clinic.receipt(uuid4(), envelope)
        # Receipts are handled in order: when this one is done, all before it are.
        clinic.receipt(*other)
        wait_until(lambda: agent.client.state(other[0]) == "stored", "the other message stored")
        assert agent.client.state(message) == "sent"
        assert [e["event"] for e in agent.events()].count("receipt_refused") == 6
        assert [e["event"] for e in agent.events()].count("receipt_mismatch") == 1
        clinic.receipt(message, envelope)
        wait_until(lambda: agent.client.state(message) == "stored", "the message stored")


def test_what_has_no_receipt_is_sent_again(clinic: Clinic, state: Path, party: Party) -> None:
    with running_agent(state, *RESEND) as agent:
        message, envelope = submit(agent, party)
        assert [clinic.take() for _ in range(3)] == [(message, envelope)] * 3


def test_a_message_survives_kill_9_of_the_agent(broker: Broker, state: Path, party: Party) -> None:
    broker.stop()
    with running_agent(state) as agent:
        messages = dict(submit(agent, party) for _ in range(5))
        agent.kill()
        broker.start()
        with connected(broker, broker.ingest) as client:
            clinic = Clinic(broker, party, client)
            agent.start()
            assert clinic.take_until(set(messages)) == messages
            agent.kill()
            # Nobody takes these receipts now: they wait in the session for the next start.
            for message, envelope in messages.items():
                clinic.receipt(message, envelope)
            agent.start()
            wait_until(
                lambda: {agent.client.state(message) for message in messages} == {"stored"},
                "each message stored",
            )


def test_the_clinics_other_words_are_kept(clinic: Clinic, state: Path, party: Party) -> None:
    with running_agent(state, *RESEND) as agent:
        older = replace(party, opening=generate_opening_key())
        poison, retired, good = (submit(agent, each) for each in (party, older, party))
        clinic.take_until({poison[0], retired[0], good[0]})
        clinic.receipt(*poison, status="quarantined")
        clinic.receipt(*retired, status="reseal")
        wait_until(lambda: agent.client.state(retired[0]) == "reseal", "the message to be sealed anew")
        assert agent.client.state(poison[0]) == "quarantined"
        # Only what the clinic has said nothing about is still being sent.
        later = submit(agent, party)
        while clinic.take()[0] != later[0]:
            continue
        assert {clinic.take()[0] for _ in range(4)} == {good[0], later[0]}
        assert agent.client.discard(retired[0]) == "reseal"
        assert agent.client.discard(good[0]) == agent.client.discard(later[0]) == "sent"
        assert agent.status()["bytes"] == 0


def test_what_is_discarded_while_somebody_reads_the_outbox_is_gone_from_its_files_soon_after(
    state: Path, party: Party
) -> None:
    with running_agent(state) as agent:
        message, envelope = submit(agent, party)
        with closing(sqlite3.connect(state / "sync" / "outbox.sqlite", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM envelopes").fetchone()
            assert agent.client.discard(message) in ("waiting", "sent")
            wait_until(
                lambda: "discarded_left_in_files" in [event["event"] for event in agent.events()],
                "the log saying that what was discarded is left in the files",
            )
        files = list((state / "sync").glob("outbox.sqlite*"))
        wait_until(
            lambda: not any(envelope in file.read_bytes() for file in files),
            "the envelope gone from the outbox's files",
        )


@pytest.mark.parametrize("status", ["stored", "duplicate"])
def test_what_is_sealed_to_the_newest_key_already_is_not_to_be_sealed_again(
    clinic: Clinic, state: Path, party: Party, status: ReceiptStatus
) -> None:
    """It would be refused for ever, every other second: it waits here for another key."""
    with running_agent(state, *RESEND) as agent:
        message, envelope = submit(agent, party)
        assert clinic.take() == (message, envelope)
        clinic.receipt(message, envelope, status="reseal")
        wait_until(
            lambda: "no_other_key" in [event["event"] for event in agent.events()],
            "the log saying that there is no other key",
        )
        assert agent.client.state(message) == "sent"
        assert "bring it a key set with another" in agent.status()["key_problem"]
        assert clinic.take() == (message, envelope)
        # The clinic has found the key again: it may have opened what came before, or take it for new.
        clinic.receipt(message, envelope, status=status)
        wait_until(lambda: agent.client.state(message) == "stored", "the message stored")
        assert agent.status()["key_problem"] is None


def test_a_heartbeat_is_retained_signed_and_counts_only(broker: Broker, state: Path, party: Party) -> None:
    status_key = load_signing_key((state / "sync" / "status.key").read_bytes()).public_key()

    def heartbeat() -> Status:
        with connected(broker, broker.ingest) as client:
            client.subscribe(topics.all_up("status"))
            topic, payload = client.message()
        assert topic == topics.up(party.kiosk, "status")
        return Status.verify(payload, lambda kid: status_key)

    with running_agent(state) as agent:
        agent.wait_connected()
        wait_until(lambda: heartbeat().online, "a heartbeat that says that the kiosk is online")
        submit(agent, party)
        agent.stop(signal.SIGINT)
    last = heartbeat()
    assert (last.online, last.waiting + last.sent) == (False, 1)


def test_a_kiosk_that_was_set_up_while_its_clock_was_ahead_is_heard_again_after_one_receipt(
    broker: Broker, clinic: Clinic, state: Path, party: Party
) -> None:
    """Its heartbeats are refused at the clinic until their numbers come down; see `CLOCK_AHEAD`."""
    status_key = load_signing_key((state / "sync" / "status.key").read_bytes()).public_key()
    now = datetime.now(timezone.utc)
    outbox = Outbox(state / "sync" / "outbox.sqlite", now=lambda: now.replace(year=2040))
    outbox.next_heartbeat_number()
    outbox.close()

    def counter() -> int:
        with connected(broker, broker.auditor) as client:
            client.subscribe(topics.all_up("status"))
            _, payload = client.message()
        return Status.verify(payload, lambda kid: status_key).counter or 0

    def of_the_future() -> bool:
        return counter() > (now + CLOCK_AHEAD).timestamp() * 1000

    with running_agent(state) as agent:
        agent.wait_connected()
        wait_until(of_the_future, "a heartbeat numbered by the clock that is ahead")
        submit(agent, party)
        message, envelope = clinic.take()
        clinic.receipt(message, envelope, at=now)
        wait_until(lambda: agent.client.state(message) == "stored", "the message stored")
        agent.stop()
    assert not of_the_future()


def test_a_backlog_longer_than_the_window_goes_in_order(clinic: Clinic, state: Path, party: Party) -> None:
    with running_agent(state) as agent:
        messages = [submit(agent, party) for _ in range(250)]
        arrived: list[UUID] = []
        while len(arrived) < len(messages):
            message, envelope = clinic.take()
            arrived.append(message)
            clinic.receipt(message, envelope)
        assert arrived == [message for message, _ in messages]
        wait_until(lambda: agent.status()["sent"] == 0, "no message without a receipt any more")


def test_the_log_names_no_patient_and_no_envelope(clinic: Clinic, state: Path, party: Party) -> None:
    with running_agent(state) as agent:
        message, envelope = submit(agent, party)
        clinic.take()
        clinic.receipt(message, envelope)
        wait_until(lambda: agent.client.state(message) == "stored", "the message stored")
        agent.stop()
    told = {(name, str(value)) for event in agent.events() for name, value in event.items()}
    assert {name for name, _ in told} >= {"event", "message", "status", "outcome"}
    odd = [(name, value) for name, value in told if not re.fullmatch(MAY_BE_TOLD.get(name, "no"), value)]
    assert odd == []
    log = agent.log.read_text()
    pieces = (envelope[start : start + 12] for start in range(len(envelope) - 12))
    forms = (bytes.hex, lambda piece: base64.b64encode(piece).decode(), lambda piece: repr(piece)[2:-1])
    assert not any(form(piece) in log for piece in pieces for form in forms)
