from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.orm import Session

from sync.clinic import database as clinic_database
from sync.clinic import ingest
from sync.clinic.broker import Address
from sync.clinic.database import Database
from sync.clinic.errors import ClinicUsageError
from sync.clinic.ingest import IngestWorker
from sync.clinic.intake import take_envelope
from sync.clinic.registry import register_kiosk
from sync.clinic.tables import AuditEvent, Envelope, Kiosk, Poison, ReceiptRow
from sync.clinic.tap import Tap
from sync.wire import topics
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.messages import Message, ReminderDue
from sync.wire.receipt import Receipt
from tests.support.clinic import MOMENT, SealingKiosk, heartbeat, hold
from tests.support.mosquitto import Broker, running_broker
from tests.support.mqtt import MqttClient, connected
from tests.support.waiting import wait_until

WAIT_SECONDS = 30.0


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
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        assert not faults


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    with running_broker(tmp_path) as broker:
        broker.enrol(tmp_path / "kiosk")
        state = tmp_path / "clinic"
        database = Database.at(state)
        database.migrate()
        (entry,) = (tmp_path / "authority" / "kiosks").glob("*.json")
        register_kiosk(database, entry)
        kiosk = SealingKiosk.enrolled(tmp_path / "kiosk", state / "opener")
        hold(database, kiosk.opening)
        yield Clinic(broker, state, database, kiosk, tmp_path / "kiosk" / "sync")
        database.close()


@contextmanager
def kiosk_client(clinic: Clinic) -> Iterator[MqttClient]:
    """The kiosk's own connection, subscribed to what the clinic says."""
    with connected(clinic.broker, clinic.tls, session_expiry=3600, clean_start=False) as client:
        client.subscribe(topics.all_down(clinic.kiosk.id))
        yield client


def send(clinic: Clinic, client: MqttClient, data: bytes) -> None:
    """Publish as a kiosk does: 0x10 says that no worker has ever been there, and is tried again."""
    wait_until(lambda: client.publish(topics.up(clinic.kiosk.id, "result"), data) == 0)


def test_an_envelope_is_stored_and_its_receipt_is_signed_by_the_clinic(clinic: Clinic) -> None:
    data = clinic.kiosk.seal()
    with clinic.worker(), kiosk_client(clinic) as client:
        send(clinic, client, data)
        receipt = clinic.receipt(client)
        with clinic.database.reading() as session:
            row = session.scalars(select(Envelope)).one()
        assert (receipt.status, receipt.message_id, receipt.sha256) == ("stored", row.message_id, row.sha256)
        send(clinic, client, data)
        assert clinic.receipt(client).status == "duplicate"
    assert clinic.stored() == 1


def test_poison_is_receipted_and_does_not_stop_what_follows(clinic: Clinic) -> None:
    changed = bytearray(clinic.kiosk.seal())
    changed[-1] ^= 1
    with clinic.worker(), kiosk_client(clinic) as client:
        send(clinic, client, b"\0nothing of ours")
        send(clinic, client, bytes(changed))
        assert clinic.receipt(client).status == "quarantined"
        send(clinic, client, clinic.kiosk.seal())
        assert clinic.receipt(client).status == "stored"
    assert clinic.stored() == 1


def test_a_message_that_cannot_be_stored_is_set_aside_and_what_came_with_it_is_stored(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = clinic.kiosk.seal(), clinic.kiosk.seal()

    def take(session: Session, kiosk: UUID, kind: str, data: bytes, worker: str) -> str:
        if data == bad:
            raise ValueError("this one")
        return take_envelope(session, kiosk, kind, data, worker)

    monkeypatch.setattr(ingest, "take_envelope", take)
    with kiosk_client(clinic) as client:
        with clinic.worker():
            send(clinic, client, clinic.kiosk.seal())
            assert clinic.receipt(client).status == "stored"
        for data in (bad, good):  # while nobody is there, so that they come together
            send(clinic, client, data)
        with clinic.worker():
            assert {clinic.receipt(client).status for _ in range(2)} == {"stored", "quarantined"}
    assert clinic.stored() == 2
    with clinic.database.reading() as session:
        poison = session.scalars(select(Poison)).one()
    assert (poison.data, poison.reason) == (bad, "not_storable:ValueError")


def test_what_comes_while_the_worker_is_away_waits_for_it(clinic: Clinic) -> None:
    with kiosk_client(clinic) as client:
        with clinic.worker():
            send(clinic, client, clinic.kiosk.seal())
            assert clinic.receipt(client).status == "stored"
        send(clinic, client, clinic.kiosk.seal())
        assert clinic.stored() == 1
        with clinic.worker():
            assert clinic.receipt(client).status == "stored"
    assert clinic.stored() == 2


def test_the_worker_is_there_before_the_broker_and_outlives_it(clinic: Clinic) -> None:
    clinic.broker.stop()
    with clinic.worker():
        clinic.broker.start()
        with kiosk_client(clinic) as client:
            send(clinic, client, clinic.kiosk.seal())
            assert clinic.receipt(client).status == "stored"
        clinic.broker.restart()
        with kiosk_client(clinic) as client:
            send(clinic, client, clinic.kiosk.seal())
            assert clinic.receipt(client).status == "stored"


def test_nothing_is_acknowledged_while_the_database_is_locked(clinic: Clinic) -> None:
    impatient = Database.at(clinic.state)
    impatient.engine = create_impatient(clinic.state / "clinic.sqlite")
    blocker = sqlite3.connect(clinic.state / "clinic.sqlite", isolation_level=None)
    with clinic.worker(impatient), kiosk_client(clinic) as client:
        send(clinic, client, clinic.kiosk.seal())
        assert clinic.receipt(client).status == "stored"
        blocker.execute("BEGIN IMMEDIATE")
        second = clinic.kiosk.seal()
        send(clinic, client, second)
        assert client.hears_nothing()
        blocker.execute("ROLLBACK")
        # The first receipt may come once more: whether it had been sent could not be written down either.
        digest = hashlib.sha256(second).digest()
        wait_until(lambda: clinic.receipt(client).sha256 == digest, "the second one's receipt")
        assert clinic.stored() == 2
    blocker.close()


def create_impatient(path: Path) -> Engine:
    """An engine that gives up on a locked database after 100 ms instead of 15 s."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.1})
    event.listen(engine, "connect", clinic_database._prepare_sqlite)
    event.listen(engine, "begin", clinic_database._begin_sqlite)
    return engine


def test_a_receipt_that_nobody_heard_comes_with_the_next_try(clinic: Clinic) -> None:
    data = clinic.kiosk.seal()
    with clinic.worker():
        with connected(clinic.broker, clinic.tls) as deaf:
            send(clinic, deaf, data)
            wait_until(lambda: clinic.stored() == 1)
            wait_until(lambda: unsent_receipts(clinic) == 0)
        with kiosk_client(clinic) as client:
            send(clinic, client, data)
            assert clinic.receipt(client).status == "duplicate"


def unsent_receipts(clinic: Clinic) -> int:
    with clinic.database.reading() as session:
        rows = session.scalars(select(ReceiptRow).where(ReceiptRow.sent_at.is_(None)))
        return len(rows.all())


def test_a_heartbeat_is_noted(clinic: Clinic) -> None:
    def seen() -> bool:
        with clinic.database.reading() as session:
            known = session.get(Kiosk, clinic.kiosk.id)
            return known is not None and known.last_seen_at is not None

    signed = heartbeat(clinic.kiosk).sign(clinic.kiosk.status)
    with clinic.worker(), kiosk_client(clinic) as client:
        wait_until(lambda: client.publish(topics.up(clinic.kiosk.id, "status"), signed) == 0)
        wait_until(seen)


def retained(clinic: Clinic, kind: topics.UpKind) -> bool:
    """Whether the broker keeps something on a topic of the kiosk for whoever subscribes."""
    with connected(clinic.broker, clinic.broker.auditor) as auditor:
        auditor.subscribe(topics.up(clinic.kiosk.id, kind))
        return not auditor.hears_nothing()


def alarms(clinic: Clinic) -> list[tuple[str | None, dict[str, str]]]:
    with clinic.database.reading() as session:
        events = session.scalars(select(AuditEvent).where(AuditEvent.event == "alarm"))
        return [(event.subject, event.detail) for event in events]


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
                    wait_until(lambda: clinic.stored() == 2 and not retained(clinic, kind))
        if worker != "is there":
            client.publish(topic, data, retain=True)
            assert retained(clinic, kind)
        with clinic.worker():
            wait_until(lambda: not retained(clinic, kind))
            # It may have come by both subscriptions of the worker.
            assert clinic.receipt(client).status in ("stored", "duplicate")
            # Cleared once more, at once, but told of once an hour.
            for _ in range(3):
                client.publish(topic, data, retain=True)
            wait_until(lambda: not retained(clinic, kind))
    assert alarms(clinic)[0] == (str(clinic.kiosk.id), {"reason": "retained_message", "topic": kind})
    assert len(alarms(clinic)) <= 2  # one for each start of a worker
    assert retained(clinic, "status")
    with clinic.database.reading() as session:
        assert session.scalars(select(Poison)).all() == []


def test_two_workers_share_the_work_and_lose_nothing(clinic: Clinic) -> None:
    second = clinic.broker.role("ingest-2", clinic.state / "ingest-2")
    workers = [IngestWorker(clinic.database, second, Address.read(second))]
    with clinic.worker(), running(workers[0].run), kiosk_client(clinic) as client:
        for _ in range(30):
            send(clinic, client, clinic.kiosk.seal())
        receipts = [clinic.receipt(client) for _ in range(30)]
    assert {receipt.status for receipt in receipts} == {"stored"}
    assert len({receipt.message_id for receipt in receipts}) == clinic.stored() == 30
    with clinic.database.reading() as session:
        assert set(session.scalars(select(ReceiptRow.worker))) == {"ingest-1", "ingest-2"}


def test_a_worker_killed_at_any_moment_neither_loses_nor_doubles(clinic: Clinic) -> None:
    envelopes = [clinic.kiosk.seal() for _ in range(60)]
    command = [sys.executable, "-c", "from kiosk_app.cli import main; main()", "clinic", "ingest"]
    command += ["--state", str(clinic.state)]
    receipted: set[UUID] = set()
    with kiosk_client(clinic) as client:
        for start in range(0, 60, 20):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            for data in envelopes[start : start + 10]:
                send(clinic, client, data)
            wait_until(partial(stored_more_than, clinic, start))
            process.kill()
            process.wait(WAIT_SECONDS)
            for data in envelopes[start + 10 : start + 20]:
                send(clinic, client, data)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(lambda: clinic.stored() == 60)
        wait_until(lambda: unsent_receipts(clinic) == 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
        while not client.messages.empty():
            receipted.add(clinic.receipt(client).message_id)
    assert len(receipted) == 60


def stored_more_than(clinic: Clinic, bound: int) -> bool:
    return clinic.stored() > bound


def test_the_tap_writes_down_both_directions(clinic: Clinic, tmp_path: Path) -> None:
    role = clinic.state / "auditor"
    data = clinic.kiosk.seal()
    tap = Tap(role, Address.read(role), tmp_path / "wire")
    with clinic.worker(), running(tap.run), kiosk_client(clinic) as client:
        wait_until(lambda: probe(clinic, client, tmp_path / "wire"))
        send(clinic, client, data)
        wait_until(lambda: len(list((tmp_path / "wire").glob("*receipt.cose"))) >= 1)
    files = sorted((tmp_path / "wire").iterdir())
    up = [path for path in files if path.read_bytes() == data]
    assert up and up[0].name.endswith(f"-clinic.v1.{clinic.kiosk.id}.up.result.cose")
    assert all(path.name.split("-")[0].isdigit() for path in files)


def probe(clinic: Clinic, client: MqttClient, out: Path) -> bool:
    """Say something harmless until the tap, which has no past, has heard it."""
    client.publish(topics.up(clinic.kiosk.id, "status"), b"hello")
    return bool(list(out.glob("*.cose")))


def test_a_worker_without_its_files_says_what_to_do(tmp_path: Path, sqlite: Database) -> None:
    folder = tmp_path / "clinic" / "ingest"
    with pytest.raises(ClinicUsageError, match="provision role"):
        Address.read(folder)
    address = Address(host="127.0.0.1", port=1, share="ingest")
    with pytest.raises(ClinicUsageError, match="provision role"):
        IngestWorker(sqlite, folder, address)
