"""The ingest worker: from the broker into the database, the receipts back; any number share the work."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
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

from sync.clinic.audit.log import alarm
from sync.clinic.receiving.broker import Address, Role, connect, leave
from sync.clinic.receiving.broker_refusals import Refusals
from sync.clinic.receiving.handing_over import hand_over
from sync.clinic.receiving.heartbeats import check_heartbeat, lock_kiosks, note_heartbeat
from sync.clinic.receiving.intake import Offered, check, take_envelopes
from sync.clinic.receiving.poison import take_poison
from sync.clinic.receiving.reasons import Reason, reason_with
from sync.clinic.receiving.receipts import Owed, mark_sent, others_at_work, unsent
from sync.clinic.receiving.registry import RESULT, STATUS, KioskKeys
from sync.clinic.store.database import Database, now
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.failure import failed_itself, why_away
from sync.clinic.store.notify import Notifier
from sync.clinic.store.patience import Patience
from sync.wire import topics
from sync.wire.keys import KeyRefused, load_signing_key
from sync.wire.receipt import Receipt
from sync.wire.regular_file import read_regular_file
from sync.wire.status import Status

RECEIVE_MAXIMUM = 500
SESSION_EXPIRY_S = 24 * 3600
# Whoever has stored something within so long is there to hand over to; where that is wrong, kiosks keep what
# comes and send it again.
OTHERS_SEEN = timedelta(days=1)
# One commit for so many payloads at most: its fsync is what a message costs.
BATCH = 100
RECEIPT_WINDOW = 100
# A receipt that the broker has not acknowledged for this long is published again.
RECEIPT_PATIENCE_S = 30.0
# Receipts that the broker took wait no longer until the database knows it, however much comes.
NOTE_S = 2.0
TICK_S = 0.5
NO_SUBSCRIBER = 0x10
FAILURE = 0x80
NOT_AUTHORISED = 0x87
KINDS: tuple[topics.UpKind, ...] = ("result", "reminder", "status")
# On these a kiosk may publish, and mosquitto has no way to forbid that it has the broker retain what it says.
NEVER_RETAINED: tuple[topics.UpKind, ...] = ("result", "reminder")
# The subscription that finds what was retained while no worker had a session: all that it brings besides
# comes by the shared one too.
LOOKING = 1
# And again once in so long: a broker may not mark what comes by a subscription that an earlier version of
# this worker made in the same session.
LOOK_S = 3600.0
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


# What a payload is once it has been checked: an envelope, a heartbeat with its bytes, or nothing to note.
Checked = Offered | tuple[Status, bytes] | None


class IngestWorker:
    """One of any number of workers. It holds no opening key: it stores what it cannot read."""

    def __init__(self, database: Database, folder: Path, address: Address) -> None:
        self._database = database
        self._address = address
        self._signing_key = _load_receipt_key(folder / "receipt.key")
        self._result_keys, self._status_keys = (KioskKeys(database, purpose) for purpose in (RESULT, STATUS))
        role = Role(folder)
        self.name = role.name
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        # The numbers of those that this connection has brought, until they are acknowledged on it.
        self._unacknowledged: set[int] = set()
        self._acknowledged: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._in_flight: dict[int, tuple[Owed, float]] = {}
        # Receipts that the broker took, until the database knows it.
        self._sent: list[Owed] = []
        self._sent_since = 0.0
        self._refusals = Refusals()
        # When to look for receipts to send; sooner when there may be some.
        self._look_for_receipts = 0.0
        self._connection = 0
        self._leaving = False
        self._clearing: set[int] = set()
        self._looked = time.monotonic()
        self._notifier = Notifier()
        self._client = role.client(manual_ack=True)
        self._client.max_inflight_messages_set(RECEIPT_WINDOW)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then others get what comes, or the broker keeps it for this worker."""
        connect(
            self._client,
            self._address,
            receive_maximum=RECEIVE_MAXIMUM,
            session_expiry_s=SESSION_EXPIRY_S,
        )
        self._notifier.ready()
        nothing_left = False
        try:
            while not stop.is_set():
                batch = self._next_batch()
                if not self._with_patience(stop, partial(self._store, batch)):
                    self._put_back(batch)
                self._with_patience(stop, partial(self._note_sent, idle=not batch))
                self._with_patience(stop, self._send_receipts)
                if time.monotonic() - self._looked >= LOOK_S:
                    self._look()
            self._notifier.stopping()
            nothing_left = self._hand_over()
            self._note_last()
        finally:
            leave(self._client, ends_session=nothing_left)
            self._client.loop_stop()
            self._notifier.close()
            log.info("stopped", worker=self.name)

    def _alive(self) -> None:
        """Tell the watchdog that payloads are carried and worked on."""
        if self._client.carries():
            self._notifier.alive()

    def _on_connect(self, client: mqtt.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            log.error("broker_refused", worker=self.name, reason=str(reason))
            return
        self._connection += 1
        self._unacknowledged.clear()
        log.info("connected", worker=self.name)
        if not self._leaving:
            client.subscribe(self._shared())
            self._look()

    def _shared(self) -> list[tuple[str, SubscribeOptions]]:
        # Only so does a message say that it is retained, when it comes to a subscription that is there.
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        return [(topics.shared_up(self._address.share, kind), options) for kind in KINDS]

    def _look(self) -> None:
        """Ask the broker for what it retains and may not."""
        looking = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        looking.SubscriptionIdentifier = LOOKING
        filters = [topics.all_up(kind) for kind in NEVER_RETAINED]
        self._client.subscribe([(each, SubscribeOptions(qos=1)) for each in filters], properties=looking)
        self._client.unsubscribe(filters)
        self._looked = time.monotonic()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        log.info("disconnected", worker=self.name, reason=str(reason))

    def _on_subscribe(self, _: Any, __: Any, ___: int, reasons: Sequence[Any], ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error("subscription_refused", worker=self.name)
        elif len(reasons) == len(KINDS):
            log.info("ready", worker=self.name)

    def _on_message(self, _: mqtt.Client, __: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = topics.parse(message.topic)
        except topics.TopicError:
            topic = None
        found_by = getattr(message.properties, "SubscriptionIdentifier", ())
        # What wants no acknowledgement, as no kiosk of ours sends, comes past every bound of the broker's.
        is_flood = message.qos == 0 and self._arrivals.qsize() >= RECEIVE_MAXIMUM
        if is_flood or (LOOKING in found_by and not message.retain):
            self._client.ack(message.mid, message.qos)
            return
        data = bytes(message.payload)
        self._unacknowledged.add(message.mid)
        self._arrivals.put(Arrival(self._connection, message.mid, message.qos, topic, data, message.retain))

    def _on_publish(self, _: mqtt.Client, __: Any, mid: int, reason: Any, ___: Any) -> None:
        self._acknowledged.put((mid, reason.value))

    def _next_batch(self) -> list[Arrival]:
        batch: list[Arrival] = []
        # Sooner than a tick while the broker owes us words about receipts.
        patience = 0.0 if self._leaving else TICK_S / 10 if self._in_flight else TICK_S
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
            # Before the transaction begins: whoever else would write waits for its end.
            checked = [self._check(arrival) for arrival in batch]
            with self._database.writing(gives_way=True) as session:
                outcomes = self._take(session, checked)
        except Exception as error:
            if failed_itself(error):
                raise
            log.warning("one_by_one", worker=self.name, payloads=len(batch), exc_info=error)
            # One of them cannot be stored, whatever is done: the others must not wait for it.
            outcomes = [outcome for arrival in batch for outcome in self._store_alone(arrival)]
        self._look_for_receipts = 0.0
        self._alive()
        self._clear({arrival.topic for arrival in batch if arrival.topic is not None and arrival.to_clear})
        for arrival in batch:
            if arrival.connection == self._connection:
                # First, for the broker may give the number to another at once.
                self._unacknowledged.discard(arrival.mid)
                self._client.ack(arrival.mid, arrival.qos)
        if set(outcomes) - {"heartbeat"}:
            log.info("taken", worker=self.name, **Counter(outcomes))

    def _check(self, arrival: Arrival) -> Checked:
        """Check who says it: nobody has to wait for a signature."""
        topic, data = arrival.topic, arrival.data
        if topic is None or not data:
            return None
        if topic.kind == "status":
            status = check_heartbeat(topic.kiosk, data, self._status_keys.find)
            return None if status is None else (status, data)
        return check(topic.kiosk, topic.kind, data, self._result_keys.find)

    def _take(self, session: Session, checked: Sequence[Checked]) -> list[str]:
        heard = [one for one in checked if one is not None and not isinstance(one, Offered)]
        lock_kiosks(session, [status.kiosk for status, _ in heard])
        outcomes: list[str] = [note_heartbeat(session, status, data, self.name) for status, data in heard]
        outcomes += take_envelopes(session, [one for one in checked if isinstance(one, Offered)], self.name)
        return outcomes + ["dropped"] * (len(checked) - len(outcomes))

    def _clear(self, retained: Set[topics.Topic]) -> None:
        """Have the broker forget what it retains on these topics, once the audit log tells of it."""
        if not retained:
            return
        with self._database.writing() as session:
            for topic in retained:
                alarm(session, self.name, topic.kiosk, RETAINED, topic=topic.kind)
        for topic in retained:
            kind = cast(topics.UpKind, topic.kind)
            cleared = self._client.publish(topics.up(topic.kiosk, kind), b"", 1, retain=True)
            self._clearing.add(cleared.mid)

    def _store_alone(self, arrival: Arrival) -> list[str]:
        self._alive()
        try:
            checked = self._check(arrival)
            with self._database.writing() as session:
                return self._take(session, [checked])
        except Exception as error:
            if failed_itself(error):
                raise
            log.error("not_storable", worker=self.name, exc_info=error)
            if arrival.topic is None or arrival.topic.kind == "status":
                return ["dropped"]
            return [self._store_poison(arrival, arrival.topic, reason_with("not_storable:", error))]

    def _store_poison(self, arrival: Arrival, topic: topics.Topic, reason: Reason) -> str:
        try:
            with self._database.writing() as session:
                return take_poison(session, topic.kiosk, topic.kind, arrival.data, reason, self.name)
        except Exception as error:
            if failed_itself(error):
                raise
            # Without a receipt: the kiosk keeps it.
            log.error("not_quarantined", worker=self.name, exc_info=error)
            return "dropped"

    def _send_receipts(self) -> None:
        room = RECEIPT_WINDOW - len(self._in_flight)
        if room <= 0 or time.monotonic() < self._look_for_receipts or not self._client.is_connected():
            return
        waiting = {owed for owed, _ in self._in_flight.values()} | set(self._sent)
        put_off = self._refusals.put_off(time.monotonic())
        with self._database.reading() as session:
            due = unsent(session, self.name, now(), room + len(waiting), put_off)
        if len(due) < room + len(waiting):
            self._look_for_receipts = time.monotonic() + TICK_S
        for owed in [o for o in due if o not in waiting][:room]:
            receipt = Receipt(**owed._asdict())
            sent = self._client.publish(
                topics.down(owed.kiosk, "receipt"), receipt.sign(self._signing_key), 1, properties=_CONTENT
            )
            self._in_flight[sent.mid] = (owed, time.monotonic())

    def _note_sent(self, *, idle: bool) -> None:
        """Have the database know which receipts the broker took: many at once, and apart from what comes."""
        self._note_acknowledged()
        many = len(self._sent) >= RECEIPT_WINDOW
        if not self._sent or not (many or idle or time.monotonic() - self._sent_since >= NOTE_S):
            return
        try:
            with self._database.writing(gives_way=True) as session:
                mark_sent(session, self._sent, now())
        except Exception as error:
            if failed_itself(error):
                raise
            # They are sent again, which harms nobody.
            log.error("not_noted", worker=self.name, receipts=len(self._sent), exc_info=error)
        self._sent.clear()

    def _put_back(self, batch: Sequence[Arrival]) -> None:
        for arrival in batch:
            self._arrivals.put(arrival)

    def _hand_over(self) -> bool:
        """Before a stop: whether others get what comes, and the broker has nothing for this worker."""
        try:
            with self._database.reading() as session:
                if not others_at_work(session, self.name, now() - OTHERS_SEEN):
                    return False
            self._leaving = True
            filters = [name for name, _ in self._shared()]
            handed_over = hand_over(self._client, filters, self._take_what_is_there)
        except Exception as error:
            if not failed_itself(error):
                raise
            log.warning("not_handed_over", worker=self.name, kind=why_away(error))
            return False
        return handed_over and not self._unacknowledged

    def _take_what_is_there(self) -> bool:
        """Store what has come, and send its receipts; whether anything had."""
        batch = self._next_batch()
        self._store(batch)
        self._send_receipts()
        return bool(batch)

    def _note_last(self) -> None:
        """The same once more before a stop, as far as the database answers: others are sent again."""
        try:
            self._note_sent(idle=True)
        except Exception as error:
            if not failed_itself(error):
                raise
            log.warning("not_noted", worker=self.name, receipts=len(self._sent), kind=why_away(error))

    def _note_acknowledged(self) -> None:
        """Gather the receipts that the broker took.

        A kiosk that is not subscribed (0x10) did not get its receipt; it asks again by sending again.
        """
        while not self._acknowledged.empty():
            mid, reason = self._acknowledged.get_nowait()
            owed, _ = self._in_flight.pop(mid, (None, 0.0))
            if mid in self._clearing:
                self._clearing.discard(mid)
                self._note_cleared(reason)
                continue
            if owed is None:  # a receipt that took so long that it was published again
                continue
            if reason >= FAILURE:
                log.error("receipt_refused", worker=self.name, kiosk=str(owed.kiosk), reason=reason)
                self._refusals.note(owed.kiosk, time.monotonic())
                continue
            self._refusals.over(owed.kiosk)
            if reason == NO_SUBSCRIBER:
                log.info("receipt_unheard", worker=self.name, kiosk=str(owed.kiosk))
            if not self._sent:
                self._sent_since = time.monotonic()
            self._sent.append(owed)
        old = time.monotonic() - RECEIPT_PATIENCE_S
        self._in_flight = {mid: item for mid, item in self._in_flight.items() if item[1] > old}

    def _note_cleared(self, reason: int) -> None:
        if reason == NOT_AUTHORISED:
            why = (
                "the broker's access list is of an earlier version: make its files anew with "
                "'dermakiosk provision broker', and have it read them"
            )
            log.error("not_cleared", worker=self.name, reason=reason, why=why)
        elif reason >= FAILURE:
            log.error("not_cleared", worker=self.name, reason=reason)

    def _with_patience(self, stop: threading.Event, work: Callable[[], None]) -> bool:
        """Do `work`, again and again while the database is away: nothing is acknowledged meanwhile.

        False where `stop` came first.
        """
        patience = Patience()
        while not stop.is_set():
            self._alive()
            try:
                work()
                return True
            except Exception as error:  # noqa: BLE001  it is told below
                patience.tell(error, worker=self.name)
                patience.wait(stop, self._alive)
                if not failed_itself(error):
                    # What was not acknowledged comes again with the next connection.
                    return True
        return False


def _load_receipt_key(path: Path) -> Ed25519PrivateKey:
    try:
        return load_signing_key(read_regular_file(path))
    except (OSError, KeyRefused) as error:
        raise ClinicUsageError(
            f"{path} is not there or is no receipt key: make it with 'dermakiosk provision role ingest-1 …'."
        ) from error


def _content() -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = topics.CONTENT_TYPE
    return properties


_CONTENT = _content()
