"""An envelope for an outbox."""

from __future__ import annotations

from uuid import UUID, uuid4

from sync.kiosk.outbox import Outbox


def put(outbox: Outbox, envelope: bytes | None = None) -> tuple[UUID, bytes]:
    message = uuid4()
    envelope = envelope if envelope is not None else message.bytes * 10
    outbox.put(message, "result", envelope)
    return message, envelope
