"""Withdrawals: which scans a patient or the staff took back, and which messages carried them.

What is erased then is in `erasing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import ARRAY, BigInteger, cast, func, select, union_all
from sqlalchemy.orm import Session

from sync.clinic.receiving.results import Key
from sync.clinic.store.rows import insert_once
from sync.clinic.store.tables import ERASED, OPENED, Envelope, Scan, Withdrawal, WithdrawnMessage
from sync.clinic.store.tombstones import Tombstone
from sync.wire.messages import ReminderDue, Result, Withdraw, WithdrawMessages

WITHDRAW = Withdraw.KIND
# What so many withdrawals of one scan name is kept: whoever withdraws it again and again fills neither the
# file nor the database with names; of each that repeats another there stays a row without its ciphertext. A
# kiosk seals one anew for each key that its clinic gives up.
MOST_OF_ONE_SCAN = 16
SCAN_OF_ANOTHER: Final = "scan_of_another_kiosk"

log = structlog.get_logger()


def owner(session: Session, scan: UUID) -> UUID | None:
    """The kiosk whose result of this scan was taken, erased or not; None if none was."""
    taken = select(Envelope.kiosk).where(
        Envelope.scan == scan, Envelope.type == "result", Envelope.state.in_((OPENED, ERASED))
    )
    return session.scalars(taken.limit(1)).first()


def lock(session: Session, scans: Iterable[UUID]) -> None:
    """Until the transaction ends nobody else keeps or withdraws these scans.

    On PostgreSQL a result and its withdrawal could otherwise pass each other unseen. SQLite has one writer.
    Whoever has claimed an envelope does not wait here: see `lock_those_free`.
    """
    if session.get_bind().dialect.name == "postgresql":
        # In one order for all, so that two do not wait for each other in a ring.
        each = func.unnest(cast(sorted(map(_lock_key, scans)), ARRAY(BigInteger)))
        session.execute(select(func.pg_advisory_xact_lock(each)))


def lock_those_free(session: Session, scans: Collection[UUID]) -> set[UUID]:
    """The same for those of these scans that nobody else has now, without waiting; which they are."""
    if session.get_bind().dialect.name != "postgresql" or not scans:
        return set(scans)
    each = func.unnest(cast([_lock_key(scan) for scan in scans], ARRAY(BigInteger))).column_valued("scan")
    tried = select(each, func.pg_try_advisory_xact_lock(each))
    had = {key for key, is_had in session.execute(tried) if is_had}
    return {scan for scan in scans if _lock_key(scan) in had}


def _lock_key(scan: UUID) -> int:
    return scan.int % 2**63


def of_which_something_is_known(session: Session, messages: Collection[Result | ReminderDue]) -> set[UUID]:
    """The scans of these messages that somebody has withdrawn, or has sent a result of before."""
    scans = {message.scan for message in messages if message.scan is not None}
    sent = {message.scan for message in messages if isinstance(message, Result)}
    if not scans:
        return set()
    withdrawn = select(Withdrawal.scan).where(Withdrawal.scan.in_(scans))
    withdrawing = select(Envelope.scan).where(Envelope.scan.in_(scans), Envelope.type == WITHDRAW)
    result = select(Envelope.scan).where(Envelope.scan.in_(sent), Envelope.type == Result.KIND)
    record = select(Scan.id).where(Scan.id.in_(sent))
    return {scan for scan in session.scalars(union_all(withdrawn, withdrawing, result, record)) if scan}


def named_among(session: Session, messages: Collection[UUID]) -> set[tuple[UUID, UUID]]:
    """The messages (kiosk, id) that withdrawals have named, of all kiosks that used one of these ids."""
    columns = WithdrawnMessage.kiosk, WithdrawnMessage.message_id
    if not messages:
        return set()
    named = session.execute(select(*columns).where(WithdrawnMessage.message_id.in_(messages)))
    return {(kiosk, message_id) for kiosk, message_id in named}


def named_scan(session: Session, key: Key) -> UUID | None:
    """The scan whose withdrawal names this message."""
    named = session.get(WithdrawnMessage, (key[1], key[0]))
    return None if named is None else named.scan


def opened_before(session: Session, kiosk: UUID, withdraw: Withdraw) -> list[Key]:
    """What it takes back that may have been exported: messages that were opened, or are not known here."""
    named = set(withdraw.messages) if isinstance(withdraw, WithdrawMessages) else set[UUID]()
    about = (Envelope.scan == withdraw.scan) | Envelope.message_id.in_(named)
    found = session.execute(
        select(Envelope.message_id, Envelope.state).where(
            Envelope.kiosk == kiosk, about, Envelope.type != WITHDRAW
        )
    )
    states = {message: state for message, state in found}
    return [(kiosk, each) for each in {*named, *states} if states.get(each, OPENED) == OPENED]


def named_by(session: Session, row: Envelope) -> UUID | None:
    """The scan whose withdrawal, by the same kiosk, names this message: then it need not even be opened."""
    scan = named_scan(session, (row.kiosk, row.message_id))
    return None if row.type == WITHDRAW or row.scan not in (None, scan) else scan


def is_withdrawn(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether `kiosk` has withdrawn `scan`; then nothing of it is ever kept any more."""
    return session.get(Withdrawal, (scan, kiosk)) is not None


def comes_too_late(session: Session, row: Envelope, scan: UUID) -> bool:
    """Whether the kiosk of `row` has withdrawn `scan`, which is locked, before; another's word is nothing."""
    return row.type != WITHDRAW and is_taken_back(session, row.kiosk, scan)


def is_taken_back(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether `kiosk` has withdrawn `scan`, or would have, had its withdrawal been acted on."""
    return is_withdrawn(session, kiosk, scan) or _withdrawal_waits(session, kiosk, scan)


def _withdrawal_waits(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether a withdrawal of `scan` waits in quarantine, for whatever reason by now, is tried again, or was
    discarded there: what a patient took back nobody else can let in.

    Its scan is known only once its signature and seal have been found good. What another kiosk scanned is
    not this one's to withdraw.
    """
    of_scan = select(Envelope.message_id).where(
        Envelope.kiosk == kiosk,
        Envelope.scan == scan,
        Envelope.type == WITHDRAW,
        Envelope.reason.is_distinct_from(SCAN_OF_ANOTHER),
    )
    return session.scalars(of_scan.limit(1)).first() is not None


def note_withdrawal(session: Session, stone: Tombstone) -> None:
    """Have the database know the withdrawal of `stone`, and the messages that it names."""
    row = Withdrawal(
        scan=stone.scan, kiosk=stone.kiosk, message_id=stone.message_id, at=stone.at, reason=stone.reason
    )
    insert_once(session, row)
    _name(session, stone.kiosk, stone.scan, stone.messages)


def name_messages(session: Session, kiosk: UUID, scan: UUID, messages: Iterable[UUID]) -> None:
    """Have what comes of these messages later be erased unread, unless the scan was withdrawn too often."""
    if takes_names(session, kiosk, scan):
        _name(session, kiosk, scan, messages)


def takes_names(session: Session, kiosk: UUID, scan: UUID) -> bool:
    """Whether more messages of this scan may be named, of which a withdrawal has come once more."""
    so_often = select(func.count()).where(
        Envelope.kiosk == kiosk, Envelope.scan == scan, Envelope.type == WITHDRAW
    )
    if (session.scalar(so_often) or 0) <= MOST_OF_ONE_SCAN:
        return True
    log.warning("withdrawn_too_often", kiosk=str(kiosk), scan=str(scan))
    return False


def names_more(session: Session, stone: Tombstone) -> bool:
    """Whether it names a message that none before it has named."""
    keys = ((message, stone.kiosk) for message in stone.messages)
    return any(session.get(WithdrawnMessage, key) is None for key in keys)


def _name(session: Session, kiosk: UUID, scan: UUID, messages: Iterable[UUID]) -> None:
    for message in messages:
        insert_once(session, WithdrawnMessage(message_id=message, kiosk=kiosk, scan=scan))
