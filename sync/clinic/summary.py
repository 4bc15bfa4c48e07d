"""How the clinic's side is, in counts."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from sync.clinic.receiving import opening_keys
from sync.clinic.receiving.silence import silence
from sync.clinic.store.database import now
from sync.clinic.store.one_line import one_line
from sync.clinic.store.tables import (
    DISCARDED,
    ERASED,
    OPENED,
    QUARANTINED,
    RESEAL,
    STORED,
    Envelope,
    Job,
    Kiosk,
    Poison,
    ReceiptRow,
    Scan,
    Withdrawal,
)
from sync.clinic.web.words import counted
from sync.clinic.work.jobs import JobState

# A kiosk's outbox, full of the smallest envelopes, holds fewer.
LARGEST_GAP = 20_000
_KEY_MISSING = (
    "nobody can read what is sealed to it; bring it back into opener/opening.key, or give it up with "
    "'dermakiosk clinic retire-key'"
)
_ASKED_AGAIN = (
    "sealed to a key that was given up: what its kiosk sealed again came once more by itself; give up these "
    "with 'dermakiosk clinic quarantine discard'"
)
_NOT_KEPT = (
    "sealed to a key that was given up, and not kept: what their kiosks seal again is counted with the others"
)
_ONLY_HERE = (
    "sealed to a key that was given up, of which no kiosk has a copy any more: to read what is in them, "
    "bring the key back into opener/opening.key, and start 'clinic open' anew"
)


def summary(session: Session) -> dict[str, Any]:
    """Counts of everything that waits or needs a person, and how each kiosk is."""
    states = dict.fromkeys((STORED, OPENED, QUARANTINED, ERASED, DISCARDED, RESEAL), 0)
    rows = session.execute(select(Envelope.state, func.count()).group_by(Envelope.state))
    states.update({state: count for state, count in rows})
    oldest = session.scalar(select(func.min(Envelope.received_at)).where(Envelope.state == STORED))
    missing = missing_sequences(session)
    unread = opening_keys.sealed_to_retired(session)
    return {
        "silence": silence(session),
        "envelopes": states,
        "oldest_unopened": _text(oldest),
        "opening_keys_missing": opening_keys.missing(session),
        "quarantined_to_retired_keys": unread._asdict(),
        "poison": _count(session, Poison),
        "receipts_unsent": session.scalar(
            select(func.count()).select_from(ReceiptRow).where(ReceiptRow.sent_at.is_(None))
        ),
        "jobs": {
            "failed": session.scalar(select(func.count()).where(Job.state == JobState.FAILED)),
            "waiting": session.scalar(
                select(func.count()).where(Job.state.in_((JobState.WAITING, JobState.DOING)))
            ),
        },
        "scans": _count(session, Scan),
        "withdrawn": _count(session, Withdrawal),
        "kiosks": [
            {
                "kiosk": str(kiosk.id),
                "name": kiosk.name,
                "last_seen": _text(kiosk.last_seen_at),
                "waiting_there": (kiosk.heartbeat or {}).get("waiting"),
                "missing": missing.get(kiosk.id, 0),
            }
            for kiosk in session.scalars(select(Kiosk).order_by(Kiosk.name, Kiosk.id))
        ],
    }


def missing_sequences(session: Session) -> dict[UUID, int]:
    """How many sequence numbers of each kiosk have not come although a higher one of the same epoch has.

    Numbers start at 1 in each epoch. One far out of line, as no kiosk counts, is left out with its gap: it
    neither makes the sum absurd nor hides the gaps below it. A message that was to be sealed again has come
    all the same.
    """
    before = func.lag(Envelope.sequence, 1, 0).over(
        partition_by=(Envelope.kiosk, Envelope.epoch), order_by=Envelope.sequence
    )
    gaps = select(Envelope.kiosk, (Envelope.sequence - before - 1).label("gap")).subquery()
    rows = session.execute(
        select(gaps.c.kiosk, func.sum(gaps.c.gap))
        .where(gaps.c.gap.between(1, LARGEST_GAP))
        .group_by(gaps.c.kiosk)
    )
    # An earlier version left no row of those: only their number is known.
    kept = exists().where(Envelope.kiosk == ReceiptRow.kiosk, Envelope.message_id == ReceiptRow.message_id)
    sealed_again = dict(
        session.execute(
            select(ReceiptRow.kiosk, func.count())
            .where(ReceiptRow.status == "reseal", ~kept)
            .group_by(ReceiptRow.kiosk)
        ).all()
    )
    missing = {kiosk: int(gaps) - sealed_again.get(kiosk, 0) for kiosk, gaps in rows}
    return {kiosk: count for kiosk, count in missing.items() if count > 0}


def as_text(counts: dict[str, Any]) -> str:
    """The summary as a person reads it."""
    states = counts["envelopes"]
    again, only_here = counts["quarantined_to_retired_keys"].values()
    oldest = f", the oldest since {counts['oldest_unopened']}" if counts["oldest_unopened"] else ""
    lines = [
        *(f"SILENCE           {sentence}" for sentence in counts["silence"]),
        f"scans             {counts['scans']}, and {counts['withdrawn']} withdrawn",
        f"envelopes         {states[OPENED]} opened, {states[STORED]} waiting{oldest}",
        f"erased            {counted(states[ERASED], 'envelope')}, and {states[DISCARDED]} discarded",
        *([f"asked for again   {counted(states[RESEAL], 'envelope')} {_NOT_KEPT}"] if states[RESEAL] else []),
        f"quarantined       {counted(states[QUARANTINED], 'envelope')}, "
        f"{counted(counts['poison'], 'other payload')}",
        *([f"GIVEN UP          {counted(again, 'envelope')} {_ASKED_AGAIN}"] if again else []),
        *([f"ONLY COPY         {counted(only_here, 'envelope')} {_ONLY_HERE}"] if only_here else []),
        f"receipts unsent   {counts['receipts_unsent']}",
        f"jobs              {counts['jobs']['waiting']} waiting, {counts['jobs']['failed']} given up",
        *(f"OPENING KEY MISSING  {key}: {_KEY_MISSING}" for key in counts["opening_keys_missing"]),
        f"kiosks            {len(counts['kiosks'])}",
    ]
    for kiosk in counts["kiosks"]:
        seen, missing = _seen(kiosk["last_seen"]), counted(kiosk["missing"], "message")
        lines.append(f"  {kiosk['kiosk']}  {kiosk['name']}: {seen}, {missing} missing")
    return "\n".join(map(one_line, lines))


def _seen(last: str | None) -> str:
    if last is None:
        return "never heard"
    if datetime.fromisoformat(last) > now():
        return "last heard nobody knows when: this computer's clock was ahead then"
    return f"last heard {last}"


def _count(session: Session, table: type[Poison] | type[Scan] | type[Withdrawal]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
