"""What a kiosk with a valid certificate can and cannot do at a real broker."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from sync.wire.bounds import MAX_PACKET_BYTES
from tests.support.mosquitto import Broker
from tests.support.mqtt import connected

NOT_AUTHORISED, NOBODY_SUBSCRIBES = 0x87, 0x10
Kiosk = tuple[UUID, Path]


def up(kiosk: Kiosk, kind: str = "result") -> str:
    return f"clinic/v1/{kiosk[0]}/up/{kind}"


def down(kiosk: Kiosk, kind: str = "receipt") -> str:
    return f"clinic/v1/{kiosk[0]}/down/{kind}"


def test_a_kiosk_publishes_on_its_own_branch(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, broker.ingest) as ingest, connected(broker, kiosk[1]) as client:
        ingest.subscribe("clinic/v1/+/up/result")
        assert client.publish(up(kiosk), b"sealed") == 0
        assert ingest.message() == (up(kiosk), b"sealed")


def test_a_message_that_nobody_awaits_is_answered_with_0x10(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, kiosk[1]) as client:
        assert client.publish(up(kiosk, "reminder")) == NOBODY_SUBSCRIBES


def test_a_kiosk_cannot_publish_on_anothers_branch(broker: Broker, kiosk: Kiosk, other_kiosk: Kiosk) -> None:
    with connected(broker, broker.ingest) as ingest, connected(broker, kiosk[1]) as client:
        ingest.subscribe("clinic/v1/+/up/result")
        assert client.publish(up(other_kiosk)) == NOT_AUTHORISED
        assert client.publish(up(kiosk), b"own") == 0
        assert ingest.message() == (up(kiosk), b"own")


@pytest.mark.parametrize(
    "topic", ["clinic/v1/{own}/down/receipt", "clinic/v1/up/result", "$SYS/broker/uptime", "elsewhere"]
)
def test_a_kiosk_cannot_publish_outside_its_up_branch(broker: Broker, kiosk: Kiosk, topic: str) -> None:
    with connected(broker, kiosk[1]) as client:
        assert client.publish(topic.format(own=kiosk[0])) == NOT_AUTHORISED


def test_a_kiosk_has_no_more_retained_than_one_message_a_kind(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, kiosk[1]) as client:
        refused = {client.publish(up(kiosk, f"x{number}"), bytes(1024), retain=True) for number in range(200)}
        assert refused == {NOT_AUTHORISED}
        assert client.publish(up(kiosk, "result/deeper"), retain=True) == NOT_AUTHORISED
        assert client.publish(up(kiosk, "status"), retain=True) in (0, NOBODY_SUBSCRIBES)


@pytest.mark.parametrize("pattern", ["clinic/v1/{other}/down/#", "clinic/v1/+/down/receipt", "#"])
def test_a_kiosk_cannot_read_anothers_down_branch(
    broker: Broker, kiosk: Kiosk, other_kiosk: Kiosk, pattern: str
) -> None:
    with (
        connected(broker, broker.ingest) as ingest,
        connected(broker, kiosk[1]) as nosy,
        connected(broker, other_kiosk[1]) as rightful,
    ):
        nosy.subscribe(pattern.format(other=other_kiosk[0]))
        rightful.subscribe(down(other_kiosk, "#"))
        assert ingest.publish(down(other_kiosk), b"receipt", retain=True) == 0
        assert rightful.message() == (down(other_kiosk), b"receipt")
        assert nosy.hears_nothing()
        nosy.subscribe(pattern.format(other=other_kiosk[0]))
        assert nosy.hears_nothing(), "a retained message reached a kiosk that may not read it"


def test_a_kiosk_cannot_read_what_other_kiosks_send(broker: Broker, kiosk: Kiosk, other_kiosk: Kiosk) -> None:
    with (
        connected(broker, broker.ingest) as ingest,
        connected(broker, kiosk[1]) as nosy,
        connected(broker, other_kiosk[1]) as client,
    ):
        ingest.subscribe("clinic/v1/+/up/result")
        nosy.subscribe("clinic/v1/+/up/result")
        assert client.publish(up(other_kiosk), b"sealed") == 0
        assert ingest.message() == (up(other_kiosk), b"sealed")
        assert nosy.hears_nothing()


def test_a_kiosk_cannot_take_anothers_client_id(broker: Broker, kiosk: Kiosk, other_kiosk: Kiosk) -> None:
    with (
        connected(broker, broker.ingest) as ingest,
        connected(broker, kiosk[1], client_id=str(kiosk[0])) as rightful,
        connected(broker, other_kiosk[1], client_id=str(kiosk[0])) as impostor,
    ):
        rightful.subscribe(down(kiosk, "#"))
        impostor.subscribe(down(kiosk, "#"))
        assert impostor.publish(up(kiosk)) == NOT_AUTHORISED
        assert ingest.publish(down(kiosk), b"receipt") == 0
        assert rightful.message() == (down(kiosk), b"receipt")
        assert impostor.hears_nothing()
        assert rightful.connected


def test_a_kiosk_that_connects_twice_replaces_itself(broker: Broker, kiosk: Kiosk) -> None:
    with (
        connected(broker, kiosk[1], client_id="one") as first,
        connected(broker, kiosk[1], client_id="two") as second,
    ):
        first.wait_until_disconnected()
        assert second.connected


def test_a_last_will_reaches_only_the_kiosks_own_branch(
    broker: Broker, kiosk: Kiosk, other_kiosk: Kiosk
) -> None:
    with connected(broker, broker.ingest) as ingest:
        ingest.subscribe("clinic/v1/+/up/status")
        with connected(broker, kiosk[1], will=up(other_kiosk, "status")) as impostor:
            impostor.drop()
        with connected(broker, kiosk[1], will=up(kiosk, "status")) as client:
            client.drop()
        assert ingest.message() == (up(kiosk, "status"), b"gone")
        assert ingest.hears_nothing()


def test_a_packet_over_the_limit_ends_the_connection(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, kiosk[1]) as client, pytest.raises(ConnectionError):
        client.publish(up(kiosk), b"x" * MAX_PACKET_BYTES)


def test_ingest_writes_receipts_but_no_configuration(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, broker.ingest) as ingest:
        assert ingest.publish(down(kiosk, "receipt")) in (0, NOBODY_SUBSCRIBES)
        assert ingest.publish(down(kiosk, "config")) == NOT_AUTHORISED
        assert ingest.publish(down(kiosk, "command")) == NOT_AUTHORISED
        assert ingest.publish(up(kiosk, "status")) == NOT_AUTHORISED


def test_ingest_clears_what_a_kiosk_had_retained_and_the_auditor_cannot(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, kiosk[1]) as client:
        for kind in ("result", "reminder"):
            client.publish(up(kiosk, kind), b"kept", retain=True)
    with connected(broker, broker.auditor) as auditor:
        assert auditor.publish(up(kiosk), b"", retain=True) == NOT_AUTHORISED
        auditor.subscribe(up(kiosk))
        assert auditor.message() == (up(kiosk), b"kept")
    with connected(broker, broker.ingest) as ingest:
        for kind in ("result", "reminder"):
            assert ingest.publish(up(kiosk, kind), b"", retain=True) in (0, NOBODY_SUBSCRIBES)
            ingest.subscribe(up(kiosk, kind))
        assert ingest.hears_nothing()


def test_the_auditor_reads_both_ways_but_writes_nothing(broker: Broker, kiosk: Kiosk) -> None:
    with (
        connected(broker, broker.auditor) as auditor,
        connected(broker, broker.ingest) as ingest,
        connected(broker, kiosk[1]) as client,
    ):
        auditor.subscribe("clinic/#")
        client.publish(up(kiosk), b"sealed")
        ingest.publish(down(kiosk), b"receipt")
        heard = {auditor.message()[0], auditor.message()[0]}
        assert heard == {up(kiosk), down(kiosk)}
        assert auditor.publish(up(kiosk)) == NOT_AUTHORISED
        assert auditor.publish(down(kiosk)) == NOT_AUTHORISED


def test_a_shared_subscription_gives_each_message_to_one_worker(
    broker: Broker, kiosk: Kiosk, tmp_path: Path
) -> None:
    second = broker.role("ingest-2", tmp_path / "ingest-2")
    with (
        connected(broker, broker.ingest) as one,
        connected(broker, second) as two,
        connected(broker, kiosk[1]) as client,
    ):
        for worker in (one, two):
            worker.subscribe("$share/workers/clinic/v1/+/up/result")
        payloads = [b"%d" % number for number in range(10)]
        assert {client.publish(up(kiosk), payload) for payload in payloads} == {0}
        received = [worker.message()[1] for worker in (one, two) for _ in range(5)]
        assert sorted(received) == payloads
        assert one.hears_nothing()


def test_a_kiosk_cannot_draw_off_results_through_a_group_of_its_own(
    broker: Broker, kiosk: Kiosk, other_kiosk: Kiosk
) -> None:
    group = broker.address["share"]
    assert len(group) > 32, "the group's name must not be guessable: the broker lets any client join it"
    with (
        connected(broker, broker.ingest) as ingest,
        connected(broker, kiosk[1]) as thief,
        connected(broker, other_kiosk[1]) as client,
    ):
        ingest.subscribe(f"$share/{group}/clinic/v1/+/up/result")
        thief.subscribe("$share/ingest/clinic/v1/+/up/result")
        for number in range(4):
            client.publish(up(other_kiosk), b"%d" % number)
        assert [ingest.message()[1] for _ in range(4)] == [b"0", b"1", b"2", b"3"]
        assert thief.hears_nothing()
