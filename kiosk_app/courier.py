"""The courier: hands sealed messages to the outbox, then follows what the clinic's receipts say of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from kiosk_app import records as states
from kiosk_app.log import fault
from kiosk_app.records import Message, Records, RecordsError
from kiosk_app.sealer import Sealer, SealerError
from sync.kiosk.client import OutboxClient, OutboxRefused, OutboxUnavailable

log = structlog.get_logger()

NEVER = ("conflict", "bad_request")  # refusals that no later try will change


class Courier:
    """Every step may be repeated: the outbox knows a message by its id."""

    def __init__(self, records: Records, outbox: OutboxClient, sealer: Sealer) -> None:
        self._records, self._outbox, self._sealer = records, outbox, sealer
        self._turn = threading.Lock()
        self._reachable = True
        self._refusal: str | None = None  # the code of the last one, until a message is taken again

    def run_once(self) -> bool:
        """Do what can be done now; False when the outbox cannot be reached (everything stays as it is)."""
        with self._turn:
            try:
                tried = self._records.messages(states.WAITING)
                for message in tried:
                    self._alone(self._hand_over, message)
                for message in self._records.messages(states.DISCARDING, states.DISCARDING_UNSENT):
                    self._alone(self._discard, message)
                known = {message.id for message in tried}
                for message in self._records.messages(states.WAITING):
                    if message.id not in known:  # a withdrawal that was sealed just now
                        self._alone(self._hand_over, message)
                for message in self._records.messages(states.SUBMITTED):
                    self._alone(self._follow, message)
            except OutboxUnavailable as error:
                if self._reachable:
                    log.warning("outbox_unavailable", why=str(error))
                self._reachable = False
                return False
            self._reachable = True
            return True

    def _alone(self, step: Callable[[Message], None], message: Message) -> None:
        """Take one step of one message; whatever it raises, the others have their turn.

        Only an outbox that cannot be asked ends the round. One that is full may be made room in by the next.
        """
        try:
            step(message)
        except OutboxRefused as refusal:
            if refusal.code != self._refusal:
                log.warning("outbox_refused", message=str(message.id), code=refusal.code)
            self._refusal = refusal.code
        except OutboxUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  it stays as it is, and has its turn in the next round
            why = str(error) if isinstance(error, RecordsError) else fault(error)
            log.error("set_aside", scan=str(message.scan), message=str(message.id), why=why)

    def _hand_over(self, message: Message) -> None:
        if message.envelope is None:
            return
        try:
            self._outbox.submit(message.id, message.kind, message.envelope)
        except OutboxRefused as refusal:
            if refusal.code in NEVER:
                log.error("outbox_refused", message=str(message.id), code=refusal.code)
                self._records.settle(message, states.UNDELIVERABLE)
                return
            raise
        self._refusal = None
        after = states.HANDED_OVER if message.kind == "result" else None
        self._records.settle(message, states.SUBMITTED, after)
        log.info("handed_over", scan=str(message.scan), message=str(message.id), kind=message.kind)

    def _follow(self, message: Message) -> None:
        said = self._outbox.state(message.id)
        if said == "stored":
            after = states.STORED if message.kind == "result" else None
            self._records.settle(message, states.STORED, after)
            log.info("stored", scan=str(message.scan), message=str(message.id), kind=message.kind)
        elif said == "quarantined":
            self._records.settle(message, states.QUARANTINED)
            log.warning("quarantined", scan=str(message.scan), message=str(message.id))
        elif said in ("reseal", "discarded"):
            # Sealed to a key that the clinic has retired: sealed again, with a new id, by the next round.
            # The outbox forgets it first, so that a crash between the two is found as "discarded".
            self._outbox.discard(message.id)
            if message.kind == "withdraw":
                self._records.withdraw_again(message)
            else:
                self._records.settle(message, states.RESEAL, states.ANALYSED)
            log.warning("reseal", scan=str(message.scan), message=str(message.id), kind=message.kind)

    def _discard(self, message: Message) -> None:
        """A shredded scan's result: taken out of the outbox when unsent, else withdrawn at the clinic."""
        was = self._outbox.discard(message.id)
        if was == "waiting" or (was == "unknown" and message.state == states.DISCARDING_UNSENT):
            self._records.settle(message, states.DISCARDED)
        else:
            scan = self._records.scan(message.scan)
            reason = "staff" if scan.reason == "staff" else "patient"
            carriers = self._records.carriers(scan.id)
            try:
                self._records.add_message(
                    scan.id,
                    "withdraw",
                    self._sealer.epoch,
                    lambda id_, sequence: self._sealer.seal_withdraw(
                        id_, sequence, scan=scan.id, reason=reason, messages=carriers
                    ),
                )
            except SealerError as error:
                log.error("seal_failed", scan=str(message.scan), why=str(error))
                return
            self._records.settle(message, states.WITHDRAWN)
