"""What `sync status` tells, the same facts whether an agent runs or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sync.kiosk.identity import AgentIdentity
from sync.kiosk.outbox import CLOSED_FILL, WARN_FILL
from sync.kiosk.outbox_file import Counts
from sync.wire.clinic_keys import ClinicKeys

# Null while no agent runs: these are the connection's, came by it, or follow from the capacity the agent was
# given.
AGENT_ONLY = frozenset(
    {
        "connected",
        "last_refusal",
        "connection_problem",
        "key_problem",
        "unvouched",
        "capacity",
        "fill",
        "warn",
        "accepting",
    }
)


@dataclass(frozen=True)
class BrokerConnection:
    """The agent's way to the broker at one moment, what it has heard by it of the clinic's keys, and how many
    messages without a receipt the application has not vouched for."""

    connected: bool
    last_refusal: str | None
    problem: str | None
    key_problem: str | None
    unvouched: int


def report(
    identity: AgentIdentity, keys: ClinicKeys, counts: Counts, connection: BrokerConnection | None
) -> dict[str, Any]:
    """The facts as JSON has them; `connection` is None while no agent runs. No patient is in them."""
    facts = {
        "running": connection is not None,
        "kiosk": str(identity.kiosk),
        "connected": connection and connection.connected,
        "broker": f"{identity.broker.host}:{identity.broker.port}",
        "waiting": counts.waiting,
        "sent": counts.sent,
        "reseal": counts.reseal,
        "unvouched": connection and connection.unvouched,
        "quarantined": counts.quarantined,
        "bytes": counts.bytes,
        "capacity": counts.capacity,
        "fill": round(counts.fill, 4),
        "warn": counts.fill >= WARN_FILL,
        "accepting": counts.fill < CLOSED_FILL,
        "last_receipt_at": counts.last_receipt_at.isoformat() if counts.last_receipt_at else None,
        "last_refusal": connection and connection.last_refusal,
        "connection_problem": connection and connection.problem,
        "key_problem": connection and connection.key_problem,
        "clinic_keys": keys.version,
        "opening_keys": [key.kid.hex() for key in keys.opening],
        "receipt_keys": [kid.hex() for kid in keys.receipt_kids],
    }
    return facts if connection else facts | dict.fromkeys(AGENT_ONLY)
