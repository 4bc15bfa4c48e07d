"""The message of a scan, in the records and in the outbox."""

from __future__ import annotations

from uuid import UUID

from kiosk_app.kept.messages import Message
from kiosk_app.kept.states import MessageState
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.shred import shred
from tests.support.kiosk_bench import Bench
from tests.support.scanning import consented, do


def keep_no_envelope(bench: Bench) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute("UPDATE messages SET envelope = NULL")


def given(bench: Bench, kind: str) -> tuple[UUID, UUID]:
    """A scan, and its message of this kind, which the outbox has."""
    scan = consented(bench)
    do(bench, scan)
    if kind == "withdraw":
        result = the_message(bench, scan, "result")
        bench.outbox.states[result.id] = "sent"
        deleted(bench, scan)
    message = the_message(bench, scan, kind)
    assert message.state == MessageState.SUBMITTED
    return scan, message.id


def the_message(bench: Bench, scan: UUID, kind: str) -> Message:
    message = bench.kiosk.records.messages.of(scan, kind)
    assert message is not None
    return message


def deleted(bench: Bench, scan: UUID) -> Delivery:
    """What the patient is told right after."""
    kiosk = bench.kiosk
    return shred(scan, kiosk.records, kiosk.vault, kiosk.courier.run_once, kiosk.outbox, "patient").clinic
