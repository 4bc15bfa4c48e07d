"""Reasons: the words for which the clinic quarantines a message.

Who decides: of the envelope's own `sync.wire.envelope`, of the others intake, heartbeats, opening_alone, and
ingest where it is a payload that the database does not take.
"""

from __future__ import annotations

from typing import Literal, NewType

from sync.wire import envelope

SetAside = Literal[
    "wrong_topic",  # on the topic of another kind
    "same_id_other_hash",  # another envelope had its id before
    "sequence_used_twice",  # another envelope had its place before
    "no_opening_key",  # sealed to a key that no opener has said it holds: kept until one does
    "second_result",  # of a scan that has one, which this one does not replace
    "scan_of_another_kiosk",
    "too_many_unseen_withdrawals",
    "heartbeat_from_the_future",
    "heartbeat_of_another_epoch",
]
# What is followed by the name of a fault: the database does not take it; nobody has foreseen it.
NamedFault = Literal["not_storable:", "not_foreseen:"]
FaultNamed = NewType("FaultNamed", str)
Reason = envelope.Reason | SetAside | FaultNamed

MOST_LETTERS = 64


def reason_with(fault: NamedFault, error: Exception) -> FaultNamed:
    """The reason that names the fault, as far as a row has room for it."""
    return FaultNamed(f"{fault}{type(error).__name__}"[:MOST_LETTERS])
