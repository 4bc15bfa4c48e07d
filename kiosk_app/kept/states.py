"""What can become of a scan and of a message about it, as the records say it."""

from __future__ import annotations

from hardware.host.state_name import StateName


class ScanState(StateName):
    """A scan. Once captured it ends as handed over, unreadable, refused or shredded, whatever crashes."""

    CONSENTED = "consented"  # its patient agreed, and there may be no picture yet
    CAPTURED = "captured"  # its pictures are kept
    ANALYSED = "analysed"  # so are its Findings
    SEALED = "sealed"  # so is its result for the clinic
    HANDED_OVER = "handed_over"  # the outbox has the result
    STORED = "stored"  # the clinic's receipt says that the result is there
    UNREADABLE = "unreadable"  # what is kept of it cannot be read: no result, until staff see to it
    REFUSED = "refused"  # the pictures could not be measured: nothing is kept
    ABANDONED = "abandoned"  # it was given up before its pictures were kept: nothing is kept
    SHREDDED = "shredded"  # patient or staff had it deleted: nothing is kept


UNFINISHED = (ScanState.CONSENTED, ScanState.CAPTURED, ScanState.ANALYSED)
GONE = (ScanState.REFUSED, ScanState.ABANDONED, ScanState.SHREDDED)


def is_kept(state: str) -> bool:
    """Whether pictures of a scan in this state are kept, so that leaving does not undo it."""
    return state not in (ScanState.CONSENTED, *GONE)


class MessageState(StateName):
    """A message, which is a result or the withdrawal of one."""

    WAITING = "sealed"  # for the outbox
    SUBMITTED = "submitted"  # the outbox has it, and may lose it: its envelope stays here too
    STORED = "stored"  # the clinic has it
    QUARANTINED = "quarantined"  # the clinic has it, and somebody there must look at it
    RESEAL = "reseal"  # the clinic cannot read it any more, or nobody has it: another one takes its place
    UNDELIVERABLE = "undeliverable"  # the outbox will never take it: it has not left this kiosk
    DISCARDING = "discarding"  # its scan was shredded, and the outbox must still be told
    DISCARDING_UNSENT = "discarding_unsent"  # as well, and the outbox did not have it yet, as far as is known
    DISCARDED = "discarded"  # it has not left this kiosk, and will not
    # It has left, and another message tells the clinic to erase it. Or older records were put back, and it is
    # not sent again: what the clinic was told since, they do not know.
    WITHDRAWN = "withdrawn"
