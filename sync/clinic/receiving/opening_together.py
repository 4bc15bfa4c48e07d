"""Envelopes that are opened together: those that are the first word about their scan, in a few statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Select, Uuid, bindparam, select, update
from sqlalchemy.orm import Session

from sync.clinic.receiving import results, withdrawals
from sync.clinic.receiving.exports import Exports, ExportsUnusable
from sync.clinic.receiving.receipts import owe_late
from sync.clinic.receiving.results import Key
from sync.clinic.receiving.sealed import Opened, Sealed, Seals, among, forget_replaced, read
from sync.clinic.store.database import Database, now
from sync.clinic.store.rows import as_lists, core, listed
from sync.clinic.store.tables import OPENED, STORED, Envelope, UtcDateTime
from sync.wire.messages import ReminderDue, Result, Withdraw, WithdrawMessages

# What is kept in a few statements with others.
Plain = tuple[Sealed, Result | ReminderDue]

log = structlog.get_logger()


class Taken(NamedTuple):
    """How many envelopes waited, and which of them are left, to be opened alone."""

    found: int
    left: Sequence[Key]


def open_together(database: Database, seals: Seals, exports: Exports, which: Select[UUID, UUID]) -> Taken:
    """Open those of `which` that are the first word about their scan.

    What is withdrawn, replaced, refused or spoilt is left. So are all where one of them, or the database,
    fails: then it is found out which. Raises ExportsUnusable, and none of them is opened.
    """
    once = _claimed if database.engine.dialect.name == "postgresql" else _in_turn
    try:
        opened, plain = once(database, seals, exports, which)
    except ExportsUnusable:
        raise
    except Exception as error:
        # Their keys only, for their rows may be the fault; and none that another opener has claimed: this one
        # would wait for it.
        with database.reading() as session:
            free = session.execute(which.with_for_update(skip_locked=True))
            keys = [(kiosk, message_id) for kiosk, message_id in free]
        log.warning("one_by_one", envelopes=len(keys), exc_info=error)
        return Taken(len(keys), keys)
    if plain:
        log.info("opened", **Counter(row.type for row, _ in plain))
    done = {row.key for row, _ in plain}
    return Taken(len(opened), [row.key for row, _ in opened if row.key not in done])


def _claimed(
    database: Database, seals: Seals, exports: Exports, which: Select[UUID, UUID]
) -> tuple[list[Opened], list[Plain]]:
    """On PostgreSQL: no other opener looks at what this one has claimed."""
    with database.writing(gives_way=True) as session:
        opened = seals.look(*read(session, which.with_for_update(skip_locked=True)))
        plain = _unheard_of(session, _first_words(opened))
        exports.write([(row.key, message) for row, message in plain])
        _keep(session, plain)
    return opened, plain


def _in_turn(
    database: Database, seals: Seals, exports: Exports, which: Select[UUID, UUID]
) -> tuple[list[Opened], list[Plain]]:
    """On SQLite: all is looked at before the transaction, for whose end whoever else would write waits."""
    with database.reading() as session:
        found = read(session, which)
    opened = seals.look(*found)
    plain = _first_words(opened)
    if plain and exports.folder is not None:
        # Of a scan that was withdrawn before nothing is written at all.
        with database.reading() as session:
            plain = _unheard_of(session, plain)
        exports.write([(row.key, message) for row, message in plain])
    if plain:
        with database.writing(gives_way=True) as session:
            still = select(Envelope.kiosk, Envelope.message_id).where(
                among([row.key for row, _ in plain]), Envelope.state == STORED
            )
            waiting = {(kiosk, message_id) for kiosk, message_id in session.execute(still)}
            plain = _unheard_of(session, [one for one in plain if one[0].key in waiting])
            _keep(session, plain)
    return opened, plain


def _first_words(opened: Sequence[Opened]) -> list[Plain]:
    """The results and reminders of which none other here is about the same scan or names the message."""
    messages = [(row, content) for row, content in opened if isinstance(content, Result | ReminderDue)]
    named = [content.scan for _, content in opened if isinstance(content, Result | ReminderDue | Withdraw)]
    often = {scan for scan, count in Counter(named).items() if scan is not None and count > 1}
    withdrawn = {
        message
        for _, content in opened
        if isinstance(content, WithdrawMessages)
        for message in content.messages
    }
    return [
        (row, message)
        for row, message in messages
        if message.scan not in often and row.message_id not in withdrawn
    ]


def _unheard_of(session: Session, plain: Sequence[Plain]) -> list[Plain]:
    """Those of whose scan nothing is known yet, and nobody else learns anything now."""
    scans = {message.scan for _, message in plain if message.scan is not None}
    # Who has one withdraws it, and waits for the envelopes that are claimed here: not to be waited for.
    free = withdrawals.lock_those_free(session, scans)
    named = withdrawals.named_among(session, [row.message_id for row, _ in plain])
    known = withdrawals.of_which_something_is_known(session, [message for _, message in plain])
    return [
        (row, message)
        for row, message in plain
        if row.key not in named
        and message.scan not in known
        and (message.scan is None or message.scan in free)
    ]


def _keep(session: Session, plain: Sequence[Plain]) -> None:
    if not plain:
        return
    of_scans = [(row.key, it) for row, it in plain if isinstance(it, Result)]
    results.keep_results(session, of_scans)
    forget_replaced(session, of_scans)
    results.keep_reminders(session, [(row.key, it) for row, it in plain if isinstance(it, ReminderDue)])
    _note_opened(session, plain)
    owe_late(session, {row.kiosk for row, _ in plain}, {row.message_id for row, _ in plain})


def _note_opened(session: Session, plain: Sequence[Plain]) -> None:
    connection, moment = session.connection(), {"moment": now()}
    rows = [dict(zip(_COLUMNS, (*row.key, message.scan), strict=True)) for row, message in plain]
    if connection.dialect.name == "postgresql":
        connection.execute(_OPENED_AT_ONCE, as_lists(rows) | moment)
    else:
        connection.execute(_OPENED, [row | moment for row in rows])


_COLUMNS = ("of_kiosk", "of_message", "about")
_BECOMES = {
    "state": OPENED,
    "reason": None,
    "opened_at": bindparam("moment", type_=UtcDateTime()),
}
_OPENED = (
    update(core(Envelope))
    .where(Envelope.kiosk == bindparam("of_kiosk"), Envelope.message_id == bindparam("of_message"))
    .values(_BECOMES | {"scan": bindparam("about")})
)
_LISTED = listed(dict.fromkeys(_COLUMNS, Uuid()))
_OPENED_AT_ONCE = (
    update(core(Envelope))
    .where(Envelope.kiosk == _LISTED.c.of_kiosk, Envelope.message_id == _LISTED.c.of_message)
    .values(_BECOMES | {"scan": _LISTED.c.about})
)
