"""The sync agent: carries sealed envelopes from the outbox to the clinic's broker."""

from __future__ import annotations

import importlib.metadata
import queue
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from hardware.host.notify import Notifier
from sync.kiosk.identity import (
    AgentIdentity,
    EnrolmentUnusable,
    KeySet,
    certificate_ended,
    load_status_key,
    tls_context,
)
from sync.kiosk.link import DIAL_S, WINDOW, BrokerLink, Received
from sync.kiosk.outbox import CLOSED_FILL, WARN_FILL, Outbox, OutboxError, ReceiptOutcome
from sync.kiosk.report import BrokerConnection, report
from sync.kiosk.schedule import FIRST_S, LONGEST_S, Backoff, SendSchedule
from sync.wire import topics
from sync.wire.receipt import Receipt, ReceiptError
from sync.wire.statement import StatementError
from sync.wire.status import Status

log = structlog.get_logger()

HEARTBEAT_S = 60.0
CONNECT_S = DIAL_S + 5.0
# A broker that answers pings, and takes not one message within this, is dialled again.
ANSWER_S = 300.0
# So long what was found at the start waits for an application whose records answer.
HOLD_S = 3600.0
GOODBYE_S = 0.7
TICK_S = 1.0
# Failures of this machine's (its disk, its memory, too many files): no message is to blame for one.
MACHINE = (OutboxError, OSError, MemoryError)
KEY_GIVEN_UP = "the clinic gave up the key that this kiosk seals to: bring it a key set with another"
# PUBACK reason codes: taken; taken, but nobody is there who would get it. From 0x80 on it is a refusal.
SUCCESS = 0x00
NO_SUBSCRIBER = 0x10


@dataclass(frozen=True)
class Pace:
    """How long the agent waits; the defaults are what the wire asks for, tests take shorter ones."""

    resend_first: float = FIRST_S
    resend_longest: float = LONGEST_S
    reconnect_first: float = 1.0
    reconnect_longest: float = 60.0
    heartbeat: float = HEARTBEAT_S
    answer: float = ANSWER_S
    hold: float = HOLD_S


class Agent:
    """One kiosk's agent. `run` owns every change but that of `vouch`; other threads `wake` it, or ask."""

    def __init__(self, state: Path, outbox: Outbox, pace: Pace | None = None) -> None:
        """Raises EnrolmentUnusable where the kiosk's state lacks what enrolment writes; OutboxError."""
        pace = pace or Pace()
        self._state = state
        self._identity = AgentIdentity.load(state)
        self._keys = KeySet(state)
        self._status_key = load_status_key(state)
        tls_context(state)
        self._outbox = outbox
        self._pace = pace
        self._schedule = SendSchedule(Backoff(pace.resend_first, pace.resend_longest))
        self._redial = Backoff(pace.reconnect_first, pace.reconnect_longest)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started_at = _now()
        self._link: BrokerLink | None = None
        self._online = False
        self._failures = 0
        self._dial_at = 0.0
        self._dialled_at = 0.0
        self._heartbeat_at = 0.0
        self._in_flight: dict[int, UUID] = {}
        self._answer_by = 0.0
        self._last_refusal: str | None = None
        self._problem: str | None = None
        # The key that the clinic has given up, though this kiosk has no other.
        self._given_up: bytes | None = None
        # The messages that are sealed to that one, as far as the clinic has said so.
        self._unread: set[UUID] = set()
        self._keys_refused: str | None = None
        self._filling = False
        self._log_emptied = True
        self._changed = True
        # What the application has not vouched for yet. It alone knows whether this outbox is an older copy.
        # It is replaced whole, by one thread at a time: none undoes the other's change, and any may read it.
        self._vouching = threading.Lock()
        self._unvouched = outbox.found | outbox.sent_unvouched()
        self._held, self._held_from = True, time.monotonic()

    @property
    def kiosk(self) -> UUID:
        return self._identity.kiosk

    def wake(self) -> None:
        """Something has been put into the outbox or taken out of it; from any thread."""
        self._events.put(self._note_change)

    def unvouched(self) -> list[UUID]:
        """What the application has not looked through yet, sent meanwhile or not; from any thread."""
        return sorted(self._unvouched)

    def _unvouched_to_send(self) -> list[UUID]:
        """Those that have no receipt."""
        unvouched = self._unvouched
        return [each for each in self._outbox.unreceipted() if each in unvouched] if unvouched else []

    def vouch(self, messages: Collection[UUID]) -> None:
        """The application has looked, and knows of nothing against sending these; from any thread."""
        with self._vouching:
            self._outbox.looked_through(messages)
            self._unvouched -= frozenset(messages)
            self._held_from = time.monotonic()
        self.wake()

    def run(self, stop: threading.Event) -> None:
        """Carry until `stop` is set (`wake` then makes it noticed at once). Raises MemoryError."""
        notifier = Notifier()
        notifier.ready()
        while not stop.is_set():
            notifier.alive()
            try:
                self._tick(time.monotonic())
                self._wait()
            except OutboxError as error:
                # What was being done is done again after the next connection: nothing was acknowledged.
                log.error("outbox", problem=str(error))
                self._give_up("the outbox cannot be written")
            except MemoryError:
                # This process may be what holds it all. The next begins anew, with all that is on the disk.
                raise
            except Exception as error:
                log.error("not_foreseen", exc_info=error)
                self._give_up("something that was not foreseen; the log says where")
        notifier.stopping()
        self._say_goodbye()
        notifier.close()

    def status(self) -> dict[str, Any]:
        """What `dermakiosk sync status` shows; counts only. From any thread."""
        keys = self._keys.current
        key_problem = KEY_GIVEN_UP if keys.seal_to.kid == self._given_up else None
        connection = BrokerConnection(
            self._online, self._last_refusal, self._problem, key_problem, len(self._unvouched_to_send())
        )
        return report(self._identity, keys, self._outbox.counts(), connection)

    def _tick(self, now: float) -> None:
        self._empty_log()
        self._reload_keys()
        if self._link is None:
            if now >= self._dial_at:
                self._dial(now)
            return
        if not self._online:
            if now - self._dialled_at > CONNECT_S:
                self._give_up("the broker did not answer in time")
            return
        if self._in_flight and now >= self._answer_by:
            self._give_up("the broker took no message in time")
            return
        if self._held and self._unvouched and now - self._held_from >= self._pace.hold:
            self._hold_no_longer()
        if self._changed:
            self._changed = False
            held = self._unvouched if self._held else ()
            to_send = [each for each in self._outbox.unreceipted() if each not in held]
            self._schedule.follow(to_send, now)
        for message_id in self._schedule.due(now, WINDOW - len(self._in_flight)):
            self._send_alone(self._link, message_id, now)
            if self._link is None:
                return
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._pace.heartbeat
            self._beat(online=True)

    def _hold_no_longer(self) -> None:
        """The application does not look; what it would have had discarded it has withdrawn when it does."""
        with self._vouching:
            sends = self._unvouched_to_send()
            if sends:
                self._outbox.send_unvouched(sends)
                log.warning("sends_unvouched", count=len(sends))
        self._held, self._changed = False, True

    def _empty_log(self) -> None:
        """Whoever reads the outbox keeps what was discarded in its files, and holds up nothing else."""
        emptied = self._outbox.empty_log()
        if emptied != self._log_emptied:
            self._log_emptied = emptied
            log.info("discarded_gone") if emptied else log.warning("discarded_left_in_files")

    def _wait(self) -> None:
        """Wait for an event, or for the next thing to do, and handle all events that are there."""
        now = time.monotonic()
        at = [now + TICK_S]
        if self._link is None:
            at.append(self._dial_at)
        elif self._online and len(self._in_flight) < WINDOW:
            at.append(self._schedule.next_at() or at[0])
        try:
            event = self._events.get(timeout=max(0.0, min(at) - now))
            while True:
                event()
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _dial(self, now: float) -> None:
        self._dialled_at = now
        try:
            context = tls_context(self._state)
        except EnrolmentUnusable as error:
            # A certificate may be renewed at this very moment; it is read again at the next attempt.
            log.error("tls_files", problem=str(error))
            self._problem = str(error)
            self._put_off_dialling(now)
            return
        broker = self._identity.broker
        self._link = BrokerLink(
            self.kiosk,
            (broker.host, broker.port),
            context,
            self._status(online=False),
            self,
            self._events.put,
        )

    def _give_up(self, reason: str) -> None:
        if self._link is None:
            self._put_off_dialling(time.monotonic())
        else:
            self.lost(self._link, reason)

    def _put_off_dialling(self, now: float) -> None:
        self._failures += 1
        self._dial_at = now + self._redial.delay(self._failures)

    def connected(self, link: BrokerLink) -> None:
        if link is not self._link:
            return
        log.info("connected", broker=f"{self._identity.broker.host}:{self._identity.broker.port}")
        self._online = True
        self._problem = None
        self._heartbeat_at = 0.0
        self._changed = True

    def lost(self, link: BrokerLink, reason: str) -> None:
        if link is not self._link:
            return
        now = time.monotonic()
        link.drop()
        self._link = None
        # The broker says no word of that.
        reason = certificate_ended(self._state, datetime.now(timezone.utc)) or reason
        self._problem = reason
        if self._online or self._failures == 0:
            log.warning("disconnected", reason=reason)
        self._online = False
        for first, message_id in enumerate(self._in_flight.values()):
            # Where a message is what the broker ended the connection over, it is the first without an answer.
            self._schedule.not_taken(message_id, now, suspect=not first)
        self._in_flight.clear()
        self._put_off_dialling(now)

    def published(self, link: BrokerLink, number: int, reason_code: int) -> None:
        """The broker has answered. Success is not delivery: the message stays until its receipt."""
        if link is not self._link:
            return
        # Only now, since there are brokers that let a kiosk in, and end the connection at its first message.
        self._failures = 0
        if number not in self._in_flight:
            return
        now = time.monotonic()
        self._answer_by = now + self._pace.answer
        # A broker answers in the order of sending (MQTT 5, 4.6): of those before this one no answer comes.
        answered = [*self._in_flight][: [*self._in_flight].index(number) + 1]
        for each in answered:
            self._schedule.tried(self._in_flight.pop(each), now)
        if reason_code == SUCCESS:
            self._last_refusal = None
            return
        refusal = "no_subscriber" if reason_code == NO_SUBSCRIBER else f"refused_{reason_code:#04x}"
        if refusal != self._last_refusal:
            log.warning("not_taken", reason=refusal)
        self._last_refusal = refusal

    def received(self, link: BrokerLink, message: Received) -> None:
        try:
            self._take(message)
        except MACHINE:
            raise
        except Exception as error:
            # Sent again it would end likewise, before all that waits behind it; the clinic repeats receipts.
            log.error("set_aside", kind="received", exc_info=error)
        # Only now: an agent that dies before has the broker send it again.
        message.acknowledge()

    def _take(self, message: Received) -> None:
        try:
            kind = topics.parse(message.topic).kind
        except topics.TopicError:
            kind = "unknown"
        if kind == "receipt":
            self._take_receipt(message.payload)
        else:
            log.info("not_for_the_agent", kind=kind)

    def _take_receipt(self, payload: bytes) -> None:
        self._reload_keys()
        try:
            receipt = Receipt.verify(payload, self._keys.receipt_key)
        except ReceiptError as error:
            log.error("receipt_refused", problem=str(error))
            return
        if receipt.kiosk != self.kiosk:
            log.error("receipt_refused", problem="It is another kiosk's.")
            return
        outcome = self._outbox.accept_receipt(receipt, self._keys.current.seal_to.kid)
        if outcome == "mismatch":
            log.error("receipt_mismatch", message=str(receipt.message_id))
            return
        if outcome == "same_key":
            log.warning("no_other_key", message=str(receipt.message_id))
            self._give_up_key(self._keys.current.seal_to.kid, receipt.message_id)
            return
        # Of one that came before, "duplicate" says of the key what "stored" says of one that is new.
        held_before = receipt.status == "duplicate" and receipt.message_id in self._unread
        if outcome is ReceiptOutcome.KEY_HELD or held_before:
            self._given_up = None
            self._unread.clear()
        self._schedule.done(receipt.message_id)
        log.info("receipt", message=str(receipt.message_id), status=receipt.status, outcome=outcome)

    def _give_up_key(self, key: bytes, unread: UUID) -> None:
        """The clinic has given up `key`, and cannot read this message, which is sealed to it."""
        if key != self._given_up:
            self._unread.clear()
        self._given_up = key
        self._unread.add(unread)

    def _reload_keys(self) -> None:
        """Take up a key set that somebody has brought."""
        refused = None
        try:
            self._keys.reload()
        except StatementError as error:
            refused = str(error)
            if refused != self._keys_refused:
                log.error("clinic_keys", problem=refused)
        self._keys_refused = refused

    def _note_change(self) -> None:
        self._changed = True
        fill = self._outbox.counts().fill
        if (fill >= WARN_FILL) != self._filling:
            self._filling = not self._filling
            log.warning("outbox_fill", fill=round(fill, 2), accepting=fill < CLOSED_FILL)

    def _send_alone(self, link: BrokerLink, message_id: UUID, now: float) -> None:
        """Send one message; one that cannot be is tried again in its time, and the next has its turn."""
        try:
            self._send(link, message_id, now)
        except MACHINE:
            raise
        except Exception as error:
            log.error("set_aside", message=str(message_id), exc_info=error)
            self._schedule.tried(message_id, now)

    def _send(self, link: BrokerLink, message_id: UUID, now: float) -> None:
        waiting = self._outbox.take_to_send(message_id)
        if waiting is None:
            self._schedule.done(message_id)
            return
        kind = topics.up_kind(waiting.kind)
        number = link.publish(topics.up(self.kiosk, kind), waiting.envelope)
        if number is None:
            self.lost(link, "the connection is gone")
            return
        if not self._in_flight:
            self._answer_by = now + self._pace.answer
        self._in_flight[number] = message_id
        self._schedule.sent(message_id)

    def _beat(self, online: bool) -> None:
        if self._link is not None:
            self._link.publish(topics.up(self.kiosk, "status"), self._status(online), retain=True)

    def _status(self, online: bool) -> bytes:
        counts = self._outbox.counts()
        return Status(
            kiosk=self.kiosk,
            epoch=self._identity.epoch,
            counter=self._outbox.next_heartbeat_number(),
            at=_now(),
            started_at=self._started_at,
            online=online,
            software=importlib.metadata.version("dermakiosk"),
            clinic_keys=self._keys.current.version,
            waiting=counts.waiting,
            sent=counts.sent,
            quarantined=counts.quarantined,
            reseal=counts.reseal,
            fill=round(counts.fill, 4),
        ).sign(self._status_key)

    def _say_goodbye(self) -> None:
        """A last, signed word that the kiosk is off, if the broker takes it soon."""
        link = self._link
        if link is None:
            return
        if self._online:
            self._beat(online=False)
        link.close(GOODBYE_S)


def _now() -> datetime:
    return datetime.now(timezone.utc)
