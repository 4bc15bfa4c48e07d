"""What a kiosk has the broker retain: found, cleared, told of."""

from __future__ import annotations

from uuid import uuid4

import pytest
import structlog
from sqlalchemy import select

from sync.clinic.receiving import ingest
from sync.clinic.receiving.broker import Address
from sync.clinic.store.tables import Poison
from sync.wire import topics
from sync.wire.messages import Message, ReminderDue
from tests.support.clinic import MOMENT, heartbeat
from tests.support.ingesting import WAIT_S, Clinic, alarms, kiosk_client, send
from tests.support.mqtt import MqttClient, connected
from tests.support.waiting import wait_until


def retained(clinic: Clinic, kind: topics.UpKind, client: MqttClient) -> bool:
    """Whether the broker keeps something on a topic of the kiosk for whoever subscribes.

    It hands that out before it answers the subscription; what `client`, the kiosk's own, says afterwards
    comes after it.
    """
    topic, mark = topics.up(clinic.kiosk.id, kind), uuid4().bytes
    with connected(clinic.broker, clinic.broker.auditor) as auditor:
        for name in (topic, topics.up(clinic.kiosk.id, "status")):
            assert auditor.subscribe(name) < 0x80
        client.publish(topics.up(clinic.kiosk.id, "status"), mark)
        kept = set()
        while (message := auditor.messages.get(timeout=WAIT_S)).payload != mark:
            kept |= {message.topic} if message.retain else set()
        return topic in kept


@pytest.mark.parametrize("worker", ["is there", "is away", "was never there"])
@pytest.mark.parametrize("kind", ["result", "reminder"])
def test_what_a_kiosk_has_the_broker_retain_is_cleared_and_the_audit_log_says_so(
    clinic: Clinic, kind: topics.UpKind, worker: str
) -> None:
    messages: dict[str, Message] = {
        "result": clinic.kiosk.result(),
        "reminder": ReminderDue(reminder=uuid4(), patient_reference="p", rule="r", due_on=MOMENT.date()),
    }
    topic, data = topics.up(clinic.kiosk.id, kind), clinic.kiosk.seal(messages[kind])
    status = heartbeat(clinic.kiosk).sign(clinic.kiosk.status)
    with kiosk_client(clinic) as client:
        client.publish(topics.up(clinic.kiosk.id, "status"), status, retain=True)
        if worker != "was never there":
            with clinic.worker():
                send(clinic, client, clinic.kiosk.seal())
                assert clinic.receipt(client).status == "stored"
                if worker == "is there":
                    client.publish(topic, data, retain=True)
                    wait_until(
                        lambda: clinic.stored() == 2 and not retained(clinic, kind, client),
                        "both messages stored, and nothing retained on the topic",
                    )
        if worker != "is there":
            client.publish(topic, data, retain=True)
            assert retained(clinic, kind, client)
        with clinic.worker():
            wait_until(lambda: not retained(clinic, kind, client), "nothing retained on the topic")
            # It may have come by both subscriptions of the worker.
            assert clinic.receipt(client).status in ("stored", "duplicate")
            # Cleared once more, at once, but told of once an hour.
            for _ in range(3):
                client.publish(topic, data, retain=True)
            wait_until(lambda: not retained(clinic, kind, client), "nothing retained on the topic")
        assert retained(clinic, "status", client)
    assert alarms(clinic)[0] == (str(clinic.kiosk.id), {"reason": "retained_message", "topic": kind})
    assert len(alarms(clinic)) == 1
    with clinic.database.reading() as session:
        assert session.scalars(select(Poison)).all() == []


def test_what_is_retained_is_found_within_an_hour_though_the_broker_marks_nothing_of_it(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a session that an earlier version began: mosquitto 2.0 keeps the options it subscribed with."""
    with connected(clinic.broker, clinic.state / "ingest", session_expiry=3600, clean_start=False) as earlier:
        for kind in ingest.KINDS:
            earlier.subscribe(topics.shared_up(Address.read(clinic.state / "ingest").share, kind))
    monkeypatch.setattr(ingest, "LOOK_S", 1.0)
    topic = topics.up(clinic.kiosk.id, "result")
    with clinic.worker(), kiosk_client(clinic) as client:
        send(clinic, client, clinic.kiosk.seal())
        assert clinic.receipt(client).status == "stored"
        client.publish(topic, clinic.kiosk.seal(), retain=True)
        wait_until(lambda: not retained(clinic, "result", client), "nothing retained on the topic")
    assert alarms(clinic) == [(str(clinic.kiosk.id), {"reason": "retained_message", "topic": "result"})]


def test_a_broker_with_an_older_access_list_is_told_of_with_what_to_do(clinic: Clinic) -> None:
    rules = clinic.broker.configuration.with_name("acl")
    lines = rules.read_text().splitlines()
    older = [line for line in lines if not line.startswith("topic write clinic/v1/+/up/")]
    assert len(older) < len(lines)
    rules.write_text("\n".join(older) + "\n")
    clinic.broker.restart()
    with structlog.testing.capture_logs() as logs, clinic.worker(), kiosk_client(clinic) as client:
        send(clinic, client, clinic.kiosk.seal())
        client.publish(topics.up(clinic.kiosk.id, "result"), clinic.kiosk.seal(), retain=True)
        wait_until(
            lambda: any(line["event"] == "not_cleared" for line in logs),
            "the log saying that the topic is not cleared",
        )
    told = next(line for line in logs if line["event"] == "not_cleared")
    assert "dermakiosk provision broker" in told["why"]
