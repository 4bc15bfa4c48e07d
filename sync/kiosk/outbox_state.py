"""What is known of a message that was given to the outbox."""

from __future__ import annotations

from hardware.host.state_name import StateName


class OutboxState(StateName):
    """As the file has it, and as whoever asks is told it.

    What never left *this* copy of the file is `waiting` in it too; who asks is told `sent`: see
    `Outbox.found`.
    """

    WAITING = "waiting"  # it has never left
    SENT = "sent"  # it may have left; there is no receipt yet
    STORED = "stored"  # the clinic says that it is there
    QUARANTINED = "quarantined"  # the clinic says that somebody there must look at it
    RESEAL = "reseal"  # the clinic says that it cannot read it, and wants it sealed anew
    DISCARDED = "discarded"  # its owner took it out
    UNKNOWN = "unknown"  # it was never here, or was finished very long ago


NEVER_LEFT = (OutboxState.WAITING, OutboxState.UNKNOWN)
