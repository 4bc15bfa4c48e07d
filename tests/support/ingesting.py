"""A clinic that ingests from a real broker, with one kiosk that sends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.ingest import Arrival, IngestWorker
from sync.clinic.store.database import Database
from sync.clinic.store.tables import (
    AuditEvent,
    Envelope,
)
from sync.wire import topics
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.receipt import Receipt
from tests.support.clinic import SealingKiosk
from tests.support.mosquitto import Broker
from tests.support.mqtt import MqttClient, connected
from tests.support.waiting import wait_until

WAIT_S = 120.0


@dataclass
class Clinic:
    """A broker, a clinic's state beside it, and one enrolled and registered kiosk."""

    broker: Broker
    state: Path
    database: Database
    kiosk: SealingKiosk
    tls: Path

    @contextmanager
    def worker(self, database: Database | None = None) -> Iterator[IngestWorker]:
        """A worker at work in a thread."""
        folder = self.state / "ingest"
        worker = IngestWorker(database or self.database, folder, Address.read(folder))
        with running(worker.run):
            yield worker

    def receipt(self, client: MqttClient) -> Receipt:
        """The next receipt that the kiosk gets, checked as the kiosk checks it."""
        topic, payload = client.message()
        assert topic == topics.down(self.kiosk.id, "receipt")
        keys = ClinicKeys.verify(self.broker.authority.signed_keys(), self.broker.authority.root_public)
        return Receipt.verify(payload, keys.receipt_key)

    def stored(self) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(Envelope)) or 0


@contextmanager
def running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop, faults = threading.Event(), []

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:
            faults.append(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert not faults


@contextmanager
def kiosk_client(clinic: Clinic) -> Iterator[MqttClient]:
    """The kiosk's own connection, subscribed to what the clinic says."""
    with connected(clinic.broker, clinic.tls, session_expiry=3600, clean_start=False) as client:
        client.subscribe(topics.all_down(clinic.kiosk.id))
        yield client


def send(clinic: Clinic, client: MqttClient, data: bytes) -> None:
    """Publish as a kiosk does: 0x10 says that no worker has ever been there, and is tried again."""
    wait_until(
        lambda: client.publish(topics.up(clinic.kiosk.id, "result"), data) == 0,
        "the result taken by the broker for a worker",
    )


def alarms(clinic: Clinic) -> list[tuple[str | None, dict[str, str]]]:
    with clinic.database.reading() as session:
        events = session.scalars(select(AuditEvent).where(AuditEvent.event == "alarm"))
        return [(event.subject, event.detail) for event in events]


def arrived(kiosk: SealingKiosk, data: bytes, kind: topics.UpKind = "result") -> Arrival:
    """What a connection that is gone has brought, so that nobody acknowledges it."""
    return Arrival(-1, 0, 1, topics.parse(topics.up(kiosk.id, kind)), data, False)
