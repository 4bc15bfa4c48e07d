"""The ingest worker: from the broker into the database, and the receipts back."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import paho.mqtt.client as mqtt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from sqlalchemy.orm import Session

from sync.wire import topics
from sync.wire.keys import KeyRefused, load_signing_key
from sync.wire.receipt import Receipt

from .audit import note
from .broker import Address, Role, connect
from .database import Database, now
from .database_failure import failed_itself, why_away
from .errors import ClinicUsageError
from .intake import Outcome, take_envelope, take_heartbeat, take_poison
from .receipts import Owed, mark_sent, unsent

RECEIVE_MAXIMUM = 500
SESSION_EXPIRY_SECONDS = 24 * 3600
# One commit for so many payloads at most: its fsync is what a message costs.
BATCH = 100
RECEIPT_WINDOW = 100
# A receipt that the broker has not acknowledged for this long is published again.
RECEIPT_PATIENCE_SECONDS = 30.0
TICK_SECONDS = 0.5
DATABASE_WAIT_SECONDS = (0.5, 30.0)
NO_SUBSCRIBER = 0x10
FAILURE = 0x80
KINDS: tuple[topics.UpKind, ...] = ("result", "reminder", "status")
# On these a kiosk may publish, and mosquitto has no way to forbid that it has the broker retain what it says.
NEVER_RETAINED: tuple[topics.UpKind, ...] = ("result", "reminder")
# The subscription that finds what was retained while no worker had a session: all that it brings besides
# comes by the shared one too.
LOOKING = 1
# A topic on which messages are retained again and again is an alarm in the audit log once in so long.
ALARM_SECONDS = 3600.0
RETAINED = "retained_message"

log = structlog.get_logger()


@dataclass(frozen=True)
class Arrival:
    """One payload, acknowledged only on the connection that brought it."""

    connection: int
    mid: int
    qos: int
    topic: topics.Topic | None
    data: bytes
    retained: bool

    @property
    def to_clear(self) -> bool:
        """Whether the broker keeps it and may not: no patient's message is ever retained, sealed or not."""
        # An empty one is how it is cleared.
        named = self.topic is not None and self.topic.kind in NEVER_RETAINED
        return self.retained and named and bool(self.data)


class IngestWorker:
    """One of any number of workers. It holds no opening key: it stores what it cannot read."""

    def __init__(self, database: Database, folder: Path, address: Address) -> None:
        self._database = database
        self._address = address
        self._signing_key = _load_receipt_key(folder / "receipt.key")
        role = Role(folder)
        self.name = role.name
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._acknowledged: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._in_flight: dict[int, tuple[Owed, float]] = {}
        self._connection = 0
        self._alarmed: dict[topics.Topic, float] = {}
        self._client = role.client(manual_ack=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what was not acknowledged then, the broker keeps for this worker."""
        connect(
            self._client,
            self._address,
            receive_maximum=RECEIVE_MAXIMUM,
            session_expiry_seconds=SESSION_EXPIRY_SECONDS,
        )
        try:
            while not stop.is_set():
                batch = self._next_batch()
                self._with_patience(stop, partial(self._store, batch))
                self._with_patience(stop, self._send_receipts)
        finally:
            self._client.disconnect()
            self._client.loop_stop()
            log.info("stopped", worker=self.name)

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            log.error("broker-refused", worker=self.name, reason=str(reason))
            return
        self._connection += 1
        log.info("connected", worker=self.name)
        # Only so does a message say that it is retained, when it comes to a subscription that is there.
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        client.subscribe([(topics.shared_up(self._address.share, kind), options) for kind in KINDS])
        looking = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        looking.SubscriptionIdentifier = LOOKING
        filters = [topics.all_up(kind) for kind in NEVER_RETAINED]
        client.subscribe([(each, SubscribeOptions(qos=1)) for each in filters], properties=looking)
        client.unsubscribe(filters)

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        log.info("disconnected", worker=self.name, reason=str(reason))

    def _on_subscribe(self, _: Any, __: Any, ___: int, reasons: Sequence[Any], ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error("subscription-refused", worker=self.name)
        elif len(reasons) == len(KINDS):
            log.info("ready", worker=self.name)

    def _on_message(self, _: mqtt.Client, __: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = topics.parse(message.topic)
        except topics.TopicError:
            topic = None
        found_by = getattr(message.properties, "SubscriptionIdentifier", ())
        if LOOKING in found_by and not message.retain:
            self._client.ack(message.mid, message.qos)
            return
        data = bytes(message.payload)
        self._arrivals.put(Arrival(self._connection, message.mid, message.qos, topic, data, message.retain))

    def _on_publish(self, _: mqtt.Client, __: Any, mid: int, reason: Any, ___: Any) -> None:
        self._acknowledged.put((mid, reason.value))

    def _next_batch(self) -> list[Arrival]:
        batch: list[Arrival] = []
        # Sooner than a tick while the broker owes us words about receipts.
        patience = TICK_SECONDS / 10 if self._in_flight else TICK_SECONDS
        try:
            batch.append(self._arrivals.get(timeout=patience))
            while len(batch) < BATCH:
                batch.append(self._arrivals.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _store(self, batch: Sequence[Arrival]) -> None:
        """Commit, then acknowledge: what a crash takes away between the two comes again, as a duplicate."""
        if not batch:
            return
        try:
            with self._database.writing() as session:
                outcomes = [self._take(session, arrival) for arrival in batch]
        except Exception as error:
            if failed_itself(error):
                raise
            # One of them cannot be stored, whatever is done: the others must not wait for it.
            outcomes = [self._store_alone(arrival) for arrival in batch]
        self._clear({arrival.topic for arrival in batch if arrival.topic is not None and arrival.to_clear})
        for arrival in batch:
            if arrival.connection == self._connection:
                self._client.ack(arrival.mid, arrival.qos)
        counts: Counter[str] = Counter(outcomes)
        if set(counts) != {"heartbeat"}:
            log.info("taken", worker=self.name, **counts)

    def _take(self, session: Session, arrival: Arrival) -> Outcome:
        if arrival.topic is None or not arrival.data:
            return "dropped"
        if arrival.topic.kind == "status":
            return take_heartbeat(session, arrival.topic.kiosk, arrival.data, self.name)
        return take_envelope(session, arrival.topic.kiosk, arrival.topic.kind, arrival.data, self.name)

    def _clear(self, retained: Set[topics.Topic]) -> None:
        """Have the broker forget what it retains on these topics, once the audit log tells of it."""
        at = time.monotonic()
        long_ago = at - ALARM_SECONDS
        due = [topic for topic in retained if self._alarmed.get(topic, long_ago) <= long_ago]
        if due:
            with self._database.writing() as session:
                for topic in due:
                    note(session, self.name, "alarm", topic.kiosk, reason=RETAINED, topic=topic.kind)
            self._alarmed.update(dict.fromkeys(due, at))
        for topic in retained:
            log.error("alarm", reason=RETAINED, kiosk=str(topic.kiosk), topic=topic.kind)
            kind = cast(topics.UpKind, topic.kind)
            self._client.publish(topics.up(topic.kiosk, kind), b"", 1, retain=True)

    def _store_alone(self, arrival: Arrival) -> Outcome:
        try:
            with self._database.writing() as session:
                return self._take(session, arrival)
        except Exception as error:
            if failed_itself(error):
                raise
            log.error("not-storable", worker=self.name, exc_info=error)
            if arrival.topic is None or arrival.topic.kind == "status":
                return "dropped"
            return self._store_poison(arrival, arrival.topic, f"not_storable:{type(error).__name__}"[:64])

    def _store_poison(self, arrival: Arrival, topic: topics.Topic, reason: str) -> Outcome:
        try:
            with self._database.writing() as session:
                return take_poison(session, topic.kiosk, topic.kind, arrival.data, reason, self.name)
        except Exception as error:
            if failed_itself(error):
                raise
            # Without a receipt: the kiosk keeps it.
            log.error("not-quarantined", worker=self.name, exc_info=error)
            return "dropped"

    def _send_receipts(self) -> None:
        self._note_acknowledged()
        if not self._client.is_connected():
            return
        waiting = {owed for owed, _ in self._in_flight.values()}
        with self._database.reading() as session:
            due = unsent(session, self.name, now(), RECEIPT_WINDOW + len(waiting))
        for owed in [o for o in due if o not in waiting][: RECEIPT_WINDOW - len(waiting)]:
            receipt = Receipt(
                kiosk=owed.kiosk,
                message_id=owed.message_id,
                sha256=owed.sha256,
                status=owed.status,
                at=owed.at,
            )
            sent = self._client.publish(
                topics.down(owed.kiosk, "receipt"), receipt.sign(self._signing_key), 1, properties=_content()
            )
            self._in_flight[sent.mid] = (owed, time.monotonic())

    def _note_acknowledged(self) -> None:
        """Remember the receipts that the broker took.

        A kiosk that is not subscribed (0x10) did not get its receipt; it asks again by sending again.
        """
        sent = []
        while not self._acknowledged.empty():
            mid, reason = self._acknowledged.get_nowait()
            owed, _ = self._in_flight.pop(mid, (None, 0.0))
            if owed is None:
                if reason >= FAILURE:
                    log.error("not-cleared", worker=self.name, reason=reason)
                continue
            if reason >= FAILURE:
                log.error("receipt-refused", worker=self.name, kiosk=str(owed.kiosk), reason=reason)
                # Left in flight under no id of the broker's, so that it is tried again after a while.
                self._in_flight[-mid] = (owed, time.monotonic())
                continue
            if reason == NO_SUBSCRIBER:
                log.info("receipt-unheard", worker=self.name, kiosk=str(owed.kiosk))
            sent.append(owed)
        if sent:
            with self._database.writing() as session:
                mark_sent(session, sent, now())
        old = time.monotonic() - RECEIPT_PATIENCE_SECONDS
        self._in_flight = {mid: item for mid, item in self._in_flight.items() if item[1] > old}

    def _with_patience(self, stop: threading.Event, work: Callable[[], None]) -> None:
        """Do `work`, again and again while the database is away: nothing is acknowledged meanwhile."""
        wait, longest = DATABASE_WAIT_SECONDS
        while not stop.is_set():
            try:
                work()
                return
            except Exception as error:
                if not failed_itself(error):
                    # What was not acknowledged comes again with the next connection.
                    log.error("not-foreseen", worker=self.name, exc_info=error)
                    stop.wait(wait)
                    return
                log.error("database-away", worker=self.name, kind=why_away(error), wait_s=wait)
                stop.wait(wait)
                wait = min(2 * wait, longest)


def _load_receipt_key(path: Path) -> Ed25519PrivateKey:
    try:
        return load_signing_key(path.read_bytes())
    except (OSError, KeyRefused) as error:
        raise ClinicUsageError(
            f"{path} is not there or is no receipt key: make it with 'dermakiosk provision role ingest-1 …'."
        ) from error


def _content() -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = topics.CONTENT_TYPE
    return properties
