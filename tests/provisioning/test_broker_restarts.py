"""What the broker still knows after it was stopped, and after it was killed."""

from __future__ import annotations

from pathlib import Path

from tests.support.mosquitto import running_broker
from tests.support.mqtt import connected
from tests.support.waiting import wait_until

DAY = 86_400
SESSION = {"session_expiry": DAY, "clean_start": False}


def test_a_session_with_its_messages_survives_a_clean_restart(tmp_path: Path) -> None:
    with running_broker(tmp_path / "with a space") as broker:
        kiosk = broker.enrol(tmp_path / "kiosk")
        receipts = f"clinic/v1/{kiosk}/down/receipt"
        with connected(broker, tmp_path / "kiosk" / "sync", **SESSION) as client:
            assert not client.session_present
            client.subscribe(f"clinic/v1/{kiosk}/down/#")
        with connected(broker, broker.ingest) as ingest:
            assert ingest.publish(receipts, b"first") == 0
        broker.restart()
        with connected(broker, broker.ingest) as ingest:
            assert ingest.publish(receipts, b"second") == 0
        with connected(broker, tmp_path / "kiosk" / "sync", **SESSION) as client:
            assert client.session_present
            assert client.message() == (receipts, b"first")
            assert client.message() == (receipts, b"second")


def test_what_was_not_saved_is_lost_when_the_broker_is_killed(tmp_path: Path) -> None:
    """The reason why a kiosk trusts only the clinic's receipt."""
    with running_broker(tmp_path) as broker:
        kiosk = broker.enrol(tmp_path / "kiosk")
        receipts = f"clinic/v1/{kiosk}/down/receipt"
        with connected(broker, tmp_path / "kiosk" / "sync", **SESSION) as client:
            client.subscribe(f"clinic/v1/{kiosk}/down/#")
        store = tmp_path / "broker" / "data" / "mosquitto.db"
        broker.save()
        wait_until(store.exists, "what the broker saves")
        with connected(broker, broker.ingest) as ingest:
            assert ingest.publish(receipts, b"acknowledged by the broker") == 0
        broker.kill()
        broker.start()
        with connected(broker, tmp_path / "kiosk" / "sync", **SESSION) as client:
            assert client.session_present
            assert client.hears_nothing()


def test_a_restart_keeps_a_workers_messages_but_forgets_its_shared_subscription(tmp_path: Path) -> None:
    """Mosquitto 2.0.11 says "session present" all the same: a worker must subscribe whenever it connects."""
    with running_broker(tmp_path) as broker:
        kiosk = broker.enrol(tmp_path / "kiosk")
        results = f"clinic/v1/{kiosk}/up/result"
        shared = f"$share/{broker.address['share']}/clinic/v1/+/up/result"
        with connected(broker, broker.ingest, **SESSION) as ingest:
            ingest.subscribe(shared)
        with connected(broker, tmp_path / "kiosk" / "sync") as client:
            assert client.publish(results, b"before") == 0
        broker.restart()
        with (
            connected(broker, tmp_path / "kiosk" / "sync") as client,
            connected(broker, broker.ingest, **SESSION) as ingest,
        ):
            assert ingest.session_present
            assert ingest.message() == (results, b"before")
            assert client.publish(results, b"not taken") == 0x10
            ingest.subscribe(shared)
            assert client.publish(results, b"after") == 0
            assert ingest.message() == (results, b"after")
