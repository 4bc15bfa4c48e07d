"""A worker that is stopped leaves to the others what comes, and nothing is lost by it."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from sync.clinic.receiving import handing_over, ingest
from sync.clinic.receiving.broker import Address
from sync.clinic.receiving.ingest import Arrival, IngestWorker
from sync.clinic.receiving.intake import take_envelope
from sync.clinic.receiving.receipts import COMMAND, Owed, others_at_work, owe
from sync.clinic.store.database import now
from sync.clinic.store.tables import Envelope
from tests.support.ingesting import Clinic, kiosk_client, running, send
from tests.support.mqtt import MqttClient
from tests.support.waiting import wait_until


def another(clinic: Clinic) -> IngestWorker:
    folder = clinic.broker.role("ingest-2", clinic.state / "ingest-2")
    return IngestWorker(clinic.database, folder, Address.read(folder))


@contextmanager
def another_that_cannot_store(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, *, until_it_stops: bool
) -> Iterator[threading.Event]:
    """A second worker, whose disk is full; what is set once it has tried.

    Two messages at a time are on their way to it, so that the others wait at the broker.
    """
    monkeypatch.setattr(ingest, "RECEIVE_MAXIMUM", 2)
    worker, tried, full = another(clinic), threading.Event(), threading.Event()
    store, hand_over = worker._store, worker._hand_over
    full.set()

    def store_if_there_is_room(batch: Sequence[Arrival]) -> None:
        if batch and full.is_set():
            tried.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        store(batch)

    def make_room_and_hand_over() -> bool:
        if until_it_stops:
            full.clear()
        return hand_over()

    monkeypatch.setattr(worker, "_store", store_if_there_is_room)
    monkeypatch.setattr(worker, "_hand_over", make_room_and_hand_over)
    with running(worker.run):
        wait_until(lambda: bool(worker._connection), "it is connected")
        yield tried


def send_many(clinic: Clinic, client: MqttClient, count: int) -> set[UUID]:
    """Send so many messages; which they are."""
    messages = {uuid4() for _ in range(count)}
    for message_id in messages:
        send(clinic, client, clinic.kiosk.seal(message_id=message_id))
    return messages


def stored(clinic: Clinic) -> set[UUID]:
    with clinic.database.reading() as session:
        return set(session.scalars(select(Envelope.message_id)))


def all_come(clinic: Clinic, client: MqttClient, count: int) -> None:
    """So many are stored, none of them twice, and each has its receipt."""
    receipts = [clinic.receipt(client) for _ in range(count)]
    assert {receipt.status for receipt in receipts} == {"stored"}
    assert len({receipt.message_id for receipt in receipts}) == count


def test_a_worker_that_stops_stores_what_the_broker_has_for_it_and_the_others_get_what_comes_then(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing_over, "HAND_OVER_S", 60.0)
    with clinic.worker(), kiosk_client(clinic) as client:
        send_many(clinic, client, 1)
        all_come(clinic, client, 1)
        with another_that_cannot_store(clinic, monkeypatch, until_it_stops=True) as tried:
            send_many(clinic, client, 20)
            assert tried.wait(60)
            assert clinic.stored() < 21
        wait_until(lambda: clinic.stored() == 21, "what the broker had for it")
        send_many(clinic, client, 20)
        # Receipts that it had no time to send are sent by the others.
        all_come(clinic, client, 40)
    assert clinic.stored() == 41


def test_what_a_worker_cannot_store_when_it_stops_waits_for_it_and_the_others_get_what_comes_then(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clinic.worker(), kiosk_client(clinic) as client:
        send_many(clinic, client, 1)
        all_come(clinic, client, 1)
        with another_that_cannot_store(clinic, monkeypatch, until_it_stops=False) as tried:
            send_many(clinic, client, 20)
            assert tried.wait(60)
        later = send_many(clinic, client, 20)
        wait_until(lambda: later <= stored(clinic), "the others get all of what comes")
        assert clinic.stored() < 41
        with running(another(clinic).run):
            all_come(clinic, client, 40)
    assert clinic.stored() == 41


def test_a_worker_whose_broker_does_not_answer_stops_all_the_same_and_nothing_is_lost(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing_over, "HAND_OVER_S", 0.1)
    with clinic.database.writing() as session:
        owe(session, [Owed(clinic.kiosk.id, uuid4(), b"h", "stored", now())], "ingest-2")
    with kiosk_client(clinic) as client:
        with clinic.worker():
            send_many(clinic, client, 1)
            all_come(clinic, client, 1)
            os.kill(clinic.broker.pid, signal.SIGSTOP)
        os.kill(clinic.broker.pid, signal.SIGCONT)
        with clinic.worker():
            send_many(clinic, client, 1)
            all_come(clinic, client, 1)


def test_what_a_worker_has_given_up_before_it_stops_comes_to_it_again(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, store = threading.Event(), IngestWorker._store

    def give_up(worker: IngestWorker, batch: Sequence[Arrival]) -> None:
        if batch:
            tried.set()
            raise LookupError("nobody has foreseen it")
        store(worker, batch)

    with clinic.database.writing() as session:
        owe(session, [Owed(clinic.kiosk.id, uuid4(), b"h", "stored", now())], "ingest-2")
    with kiosk_client(clinic) as client:
        with monkeypatch.context() as patch, clinic.worker():
            patch.setattr(IngestWorker, "_store", give_up)
            send_many(clinic, client, 1)
            assert tried.wait(60)
        with clinic.worker():
            all_come(clinic, client, 1)


def test_what_comes_when_nobody_but_a_command_works_beside_a_worker_that_stops_waits_for_it(
    clinic: Clinic,
) -> None:
    with clinic.database.writing() as session:
        take_envelope(session, clinic.kiosk.id, "result", clinic.kiosk.seal(), COMMAND)
    with kiosk_client(clinic) as client:
        with clinic.worker():
            send_many(clinic, client, 1)
            wait_until(lambda: clinic.stored() == 2, "the worker is at work")
        later = send_many(clinic, client, 1)
        with clinic.worker():
            wait_until(lambda: later <= stored(clinic), "what came meanwhile")


def test_another_worker_that_was_at_work_long_ago_is_not_there_to_hand_over_to(clinic: Clinic) -> None:
    owed = Owed(clinic.kiosk.id, uuid4(), b"h", "stored", now() - ingest.OTHERS_SEEN)
    with clinic.database.writing() as session:
        owe(session, [owed], "ingest-2")
        assert others_at_work(session, "ingest-1", owed.at)
        assert not others_at_work(session, "ingest-1", now() - ingest.OTHERS_SEEN)
        assert not others_at_work(session, "ingest-2", owed.at)
