"""Delivery: what is known of a scan's way to the clinic, for words that claim no more than that."""

from __future__ import annotations

from uuid import UUID

from hardware.host.state_name import StateName
from kiosk_app.kept.messages import Message
from kiosk_app.kept.records import Records
from kiosk_app.kept.states import GONE, MessageState, ScanState
from sync.kiosk.client import OutboxClient, OutboxState, OutboxUnavailable


class Delivery(StateName):
    """How far a scan's measurements have come or, once the scan is deleted, the word to erase them."""

    MEASURING = "measuring"  # the pictures are kept, and there is no result yet
    KEPT = "kept"  # in this kiosk; nothing more is known, as while the outbox does not answer, or has lost it
    WAITING = "waiting"  # sealed; there is no connection
    UNDER_WAY = "under_way"  # sent, or about to be; the clinic has not said that it has them
    RECEIVED = "received"  # the clinic's signed receipt is here
    HELD = "held"  # the clinic's receipt says that a person there must look at it

    NOT_MEASURED = "not_measured"  # the pictures were refused, so that nothing can have left this kiosk
    NOTHING_SENT = "nothing_sent"  # deleted, and certain that nothing had left this kiosk
    UNTOLD = "untold"  # something may have left, and the clinic does not know of the deletion yet
    TELLING = "telling"  # the word is sent, or about to be
    TOLD = "told"  # the clinic's signed receipt for the word is here
    TOLD_HELD = "told_held"  # a person at the clinic must look at the word


_OF_WORDS = {
    Delivery.UNDER_WAY: Delivery.TELLING,
    Delivery.RECEIVED: Delivery.TOLD,
    Delivery.HELD: Delivery.TOLD_HELD,
}

# What was sent before the connection went may have arrived.
_WITHOUT_CONNECTION = {OutboxState.WAITING: Delivery.WAITING, OutboxState.SENT: Delivery.KEPT}


def delivery(scan: UUID, records: Records, outbox: OutboxClient) -> Delivery:
    """What is known of `scan` at this moment. Raises NoSuchScan."""
    # The scan first: one that is deleted meanwhile has a message of which the outbox is asked, and no less.
    state = records.state(scan)
    result = records.messages.of(scan)
    if state not in GONE:
        none_yet = Delivery.MEASURING if state == ScanState.CAPTURED else Delivery.KEPT
        return none_yet if result is None else _of_message(result, outbox)
    # None is there only of a scan that cannot have had one: of any other the outbox is asked.
    if result is None or result.state == MessageState.DISCARDED:
        return Delivery.NOT_MEASURED if state == ScanState.REFUSED else Delivery.NOTHING_SENT
    word = records.messages.of(scan, "withdraw")
    if word is None:
        return Delivery.UNTOLD
    return _OF_WORDS.get(_of_message(word, outbox), Delivery.UNTOLD)


def _of_message(message: Message, outbox: OutboxClient) -> Delivery:
    known = {
        MessageState.WAITING: Delivery.WAITING,
        MessageState.STORED: Delivery.RECEIVED,
        MessageState.QUARANTINED: Delivery.HELD,
    }
    if message.state != MessageState.SUBMITTED:
        return known.get(message.state, Delivery.KEPT)
    try:
        said = outbox.state(message.id)
        if said in _WITHOUT_CONNECTION:
            return Delivery.UNDER_WAY if outbox.status().get("connected") else _WITHOUT_CONNECTION[said]
    except OutboxUnavailable:
        return Delivery.KEPT
    answers = {OutboxState.STORED: Delivery.RECEIVED, OutboxState.QUARANTINED: Delivery.HELD}
    return answers.get(said, Delivery.KEPT)
