"""The ingest worker against a real broker: what comes is stored, receipted, and lost by nothing."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import paho.mqtt.client as mqtt
import pytest
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from provisioning import certificates
from provisioning.authority import Authority
from sync.clinic.cli import clinic as commands
from sync.clinic.receiving import ingest
from sync.clinic.receiving.broker import Address, Role
from sync.clinic.receiving.ingest import Arrival, IngestWorker
from sync.clinic.receiving.intake import IntakeOutcome, Offered, take_envelopes
from sync.clinic.receiving.tap import Tap
from sync.clinic.store import engine as clinic_engine
from sync.clinic.store import patience
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import Envelope, Kiosk, Poison, ReceiptRow
from sync.wire import topics
from tests.support.clinic import SealingKiosk, heartbeat, registered
from tests.support.ingesting import WAIT_S, Clinic, kiosk_client, running, send
from tests.support.mqtt import MqttClient, connected
from tests.support.waiting import wait_until


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


def whole_batches(monkeypatch: pytest.MonkeyPatch, size: int) -> list[list[bytes]]:
    """Have a worker look at what has come once there are `size` of it; what it then took at a time."""
    next_batch, batches = IngestWorker._next_batch, list[list[bytes]]()

    def whole(worker: IngestWorker) -> list[ingest.Arrival]:
        if not batches:
            wait_until(lambda: worker._arrivals.qsize() >= size, "everything that was sent")
        batch = next_batch(worker)
        batches.append([arrival.data for arrival in batch])
        return batch

    monkeypatch.setattr(IngestWorker, "_next_batch", whole)
    return batches


def test_a_message_that_cannot_be_stored_is_set_aside_and_what_came_with_it_is_stored(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = clinic.kiosk.seal(), clinic.kiosk.seal()

    def take(session: Session, offered: Sequence[Offered], worker: str) -> list[IntakeOutcome]:
        if bad in [one.data for one in offered]:
            raise ValueError("this one")
        return take_envelopes(session, offered, worker)

    monkeypatch.setattr(ingest, "take_envelopes", take)
    with kiosk_client(clinic) as client:
        with clinic.worker():
            send(clinic, client, clinic.kiosk.seal())
            assert clinic.receipt(client).status == "stored"
        for data in (bad, good):  # while nobody is there, so that they come together
            send(clinic, client, data)
        batches = whole_batches(monkeypatch, 2)
        with clinic.worker():
            assert {clinic.receipt(client).status for _ in range(2)} == {"stored", "quarantined"}
        assert [batch for batch in batches if batch] == [[bad, good]]
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


def test_a_worker_tells_why_it_reaches_no_broker(clinic: Clinic, tmp_path: Path) -> None:
    def why() -> list[str]:
        return [str(line["reason"]) for line in logged if line["event"] == "broker_unreachable"]

    with capture_logs() as logged:
        clinic.broker.stop()
        with clinic.worker():
            wait_until(
                lambda: any("refused" in reason for reason in why()),
                "the worker saying that its connection is refused",
            )
        clinic.broker.start()
        stranger = Authority.create(tmp_path / "elsewhere", "Elsewhere")
        (clinic.state / "ingest" / "ca.crt").write_bytes(certificates.pem(stranger.root))
        with clinic.worker():
            wait_until(
                lambda: any("certificate verify failed" in reason for reason in why()),
                "the worker saying that the broker's certificate is none of the clinic's",
            )


def test_a_second_process_with_the_same_role_is_refused_until_the_first_has_ended(clinic: Clinic) -> None:
    first = Role(clinic.state / "ingest")
    with first.alone(), pytest.raises(ClinicUsageError, match="a role of its own"):
        commands.main(["ingest", "--state", str(clinic.state)], standalone_mode=False)
    with first.alone():
        assert clinic.stored() == 0


def test_a_worker_whose_certificate_has_ended_says_so(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LEAF_LIFE", -certificates.CLOCK_SKEW / 2)
    clinic.broker.authority.make_role("ingest-1", clinic.state / "ingest")
    with capture_logs() as logged, clinic.worker():
        wait_until(
            lambda: any(line["event"] == "disconnected" for line in logged),
            "the log saying that the worker is disconnected",
        )
    (told, *_) = [line for line in logged if line["event"] == "certificate_ended"]
    assert "dermakiosk provision role" in told["why"]


def test_a_flood_of_what_wants_no_acknowledgement_waits_within_a_bound(clinic: Clinic) -> None:
    folder = clinic.state / "ingest"
    worker = IngestWorker(clinic.database, folder, Address.read(folder))
    topic = topics.up(clinic.kiosk.id, "result").encode()

    def hear(mid: int, qos: int) -> None:
        message = mqtt.MQTTMessage(mid, topic)
        message.payload, message.qos = b"x", qos
        worker._on_message(worker._client, None, message)

    for _ in range(2 * ingest.RECEIVE_MAXIMUM):
        hear(0, 0)
    assert worker._arrivals.qsize() == ingest.RECEIVE_MAXIMUM
    hear(7, 1)
    assert worker._arrivals.qsize() == ingest.RECEIVE_MAXIMUM + 1


def test_nothing_is_acknowledged_while_the_database_is_locked(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()
    monkeypatch.setattr(patience, "why_away", lambda error: tried.set() or "locked")
    impatient = Database.at(clinic.state)
    impatient.engine = create_impatient(clinic.state / "clinic.sqlite")
    blocker = sqlite3.connect(clinic.state / "clinic.sqlite", isolation_level=None)
    with clinic.worker(impatient), kiosk_client(clinic) as client:
        send(clinic, client, clinic.kiosk.seal())
        assert clinic.receipt(client).status == "stored"
        blocker.execute("BEGIN IMMEDIATE")
        second = clinic.kiosk.seal()
        send(clinic, client, second)
        assert tried.wait(WAIT_S)
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
    event.listen(engine, "connect", clinic_engine._prepare_sqlite)
    event.listen(engine, "begin", clinic_engine._begin_sqlite)
    return engine


def test_a_receipt_that_nobody_heard_comes_with_the_next_try(clinic: Clinic) -> None:
    data = clinic.kiosk.seal()
    with clinic.worker():
        with connected(clinic.broker, clinic.tls) as deaf:
            send(clinic, deaf, data)
            wait_until(lambda: clinic.stored() == 1, "the message stored")
            wait_until(lambda: unsent_receipts(clinic) == 0, "no receipt owed any more")
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
        wait_until(
            lambda: client.publish(topics.up(clinic.kiosk.id, "status"), signed) == 0,
            "the heartbeat taken by the broker for a worker",
        )
        wait_until(seen, "the kiosk noted as seen")


def test_two_workers_share_the_work_and_lose_nothing(clinic: Clinic) -> None:
    second = clinic.broker.role("ingest-2", clinic.state / "ingest-2")
    workers = [IngestWorker(clinic.database, second, Address.read(second))]
    with clinic.worker() as first, running(workers[0].run), kiosk_client(clinic) as client:
        wait_until(lambda: first._connection and workers[0]._connection, "both are connected")
        for _ in range(30):
            send(clinic, client, clinic.kiosk.seal())
        receipts = [clinic.receipt(client) for _ in range(30)]
    assert {receipt.status for receipt in receipts} == {"stored"}
    assert len({receipt.message_id for receipt in receipts}) == clinic.stored() == 30
    with clinic.database.reading() as session:
        assert set(session.scalars(select(ReceiptRow.worker))) == {"ingest-1", "ingest-2"}


def arrived(kiosk: SealingKiosk, counter: int) -> Arrival:
    """A heartbeat as a connection that is gone has brought it, so that nobody acknowledges it."""
    topic = topics.parse(topics.up(kiosk.id, "status"))
    return Arrival(-1, 0, 1, topic, heartbeat(kiosk, counter=counter).sign(kiosk.status), False)


def test_two_workers_that_hear_the_same_kiosks_in_other_orders_do_not_wait_in_a_ring(
    clinic: Clinic, postgresql_url: str, tmp_path: Path
) -> None:
    database = Database.at(tmp_path / "on-postgresql", postgresql_url)
    database.migrate()
    kiosks = [registered(database, SealingKiosk(clinic.kiosk.opening), tmp_path) for _ in range(8)]
    begin, stored = threading.Barrier(2, timeout=60), []

    def work(order: list[SealingKiosk]) -> None:
        worker = IngestWorker(database, clinic.state / "ingest", Address.read(clinic.state / "ingest"))
        for counter in range(1, 16):
            batch = [arrived(kiosk, counter) for kiosk in order]
            begin.wait(60)
            worker._store(batch)
            stored.append(counter)

    threads = [threading.Thread(target=work, args=(order,)) for order in (kiosks, kiosks[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(stored) == sorted([*range(1, 16)] * 2)
    database.close()


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
            wait_until(partial(stored_more_than, clinic, start), "more messages stored than before")
            process.kill()
            process.wait(WAIT_S)
            for data in envelopes[start + 10 : start + 20]:
                send(clinic, client, data)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(lambda: clinic.stored() == 60, "all 60 messages stored")
        wait_until(lambda: unsent_receipts(clinic) == 0, "no receipt owed any more")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
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
        wait_until(lambda: probe(clinic, client, tmp_path / "wire"), "the tap listening")
        wait_until(
            lambda: receipted(clinic, client, data, tmp_path / "wire"), "the receipt written down by the tap"
        )
    files = sorted((tmp_path / "wire").iterdir())
    up = [path for path in files if path.read_bytes() == data]
    assert up and up[0].name.endswith(f"-clinic.v1.{clinic.kiosk.id}.up.result.cose")
    assert all(path.name.split("-")[0].isdigit() for path in files)


def test_a_tap_that_cannot_write_where_it_is_told_to_says_so_before_it_listens(
    clinic: Clinic, tmp_path: Path
) -> None:
    role = clinic.state / "auditor"
    (tmp_path / "a-file").write_text("")
    for place in (Path("/proc/x"), tmp_path / "a-file" / "x"):
        with pytest.raises(ClinicUsageError, match=f"^No file can be made in {place}, which --out names "):
            Tap(role, Address.read(role), place).run(threading.Event())


def probe(clinic: Clinic, client: MqttClient, out: Path) -> bool:
    """Say something harmless until the tap, which has no past, has heard it."""
    client.publish(topics.up(clinic.kiosk.id, "status"), b"hello")
    return bool(list(out.glob("*.cose")))


def receipted(clinic: Clinic, client: MqttClient, data: bytes, out: Path) -> bool:
    """Say it until it has its receipt: a broker that has only the tap to tell takes it too."""
    send(clinic, client, data)
    return bool(list(out.glob("*receipt.cose")))


def test_a_worker_without_its_files_says_what_to_do(tmp_path: Path, sqlite: Database) -> None:
    folder = tmp_path / "clinic" / "ingest"
    with pytest.raises(ClinicUsageError, match="provision role"):
        Address.read(folder)
    address = Address(host="127.0.0.1", port=1, share="ingest")
    with pytest.raises(ClinicUsageError, match="provision role"):
        IngestWorker(sqlite, folder, address)
