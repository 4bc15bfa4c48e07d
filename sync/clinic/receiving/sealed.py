"""Envelopes that wait for the opener, and what is in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, tuple_, update
from sqlalchemy.orm import Session

from sync.clinic.receiving import opening_keys, withdrawals
from sync.clinic.receiving.opening_keys import NO_KEY
from sync.clinic.receiving.registry import RESULT, KioskKeys
from sync.clinic.receiving.results import Key
from sync.clinic.store.database import Database
from sync.clinic.store.errors import ClinicUsageError
from sync.clinic.store.tables import DISCARDED, QUARANTINED, STORED, Envelope
from sync.wire import envelope
from sync.wire.keys import KeyRefused, OpeningKey, load_opening_keys
from sync.wire.messages import Message, Result, Withdraw
from sync.wire.regular_file import read_regular_file

# What an envelope holds, or why it is not known; None where a withdrawal says that nobody shall look.
Content = Message | envelope.EnvelopeError | None


class Sealed(NamedTuple):
    """An envelope that waits: what has to be read of its row to open it, since any more may be its fault."""

    kiosk: UUID
    message_id: UUID
    type: str
    data: bytes

    @property
    def key(self) -> Key:
        return self.kiosk, self.message_id


Opened = tuple[Sealed, Content]


class Seals:
    """The keys that open envelopes. No row is believed: every signature is checked once more."""

    def __init__(self, database: Database, keys: Iterable[OpeningKey]) -> None:
        self._keys = tuple(keys)
        self._kiosk_keys = KioskKeys(database, RESULT)

    @property
    def kids(self) -> set[bytes]:
        return {key.kid for key in self._keys}

    def look(self, rows: Sequence[Sealed], named: set[Key]) -> list[Opened]:
        """What is in each of these; those that a withdrawal has `named` are not looked into.

        A withdrawal that another one has named counts all the same.
        """
        return [
            (
                row,
                None if row.type != Withdraw.KIND and row.key in named else self.content(row.kiosk, row.data),
            )
            for row in rows
        ]

    def content(self, kiosk: UUID, data: bytes) -> Message | envelope.EnvelopeError:
        """What is in the envelope `data` of `kiosk`, or why that is not known."""
        try:
            return envelope.open_envelope(envelope.verify(data, self._kiosk_keys.find, kiosk), self._keys)
        except envelope.EnvelopeError as error:
            return error


def read_opening_keys(path: Path) -> tuple[OpeningKey, ...]:
    """The opening keys in the opener's key file."""
    try:
        return load_opening_keys(read_regular_file(path))
    except (OSError, KeyRefused) as error:
        raise ClinicUsageError(
            f"{path} is not there or is no file of opening keys: make it with "
            "'dermakiosk provision opener …', or bring back its safe copy."
        ) from error


def waiting(
    most: int,
    kids: Collection[bytes],
    but: Iterable[Key] = (),
    *,
    tombstones_rest: bool = False,
    exports_rest: bool = False,
) -> Select[UUID, UUID]:
    """The keys of the oldest envelopes that wait for an opener with the keys `kids`, but for some.

    What is sealed to a key that only another opener holds waits for that one.
    While `tombstones_rest`, none of the withdrawals that have been put off: of those the scan is known. While
    `exports_rest`, only withdrawals.
    """
    found = select(Envelope.kiosk, Envelope.message_id).where(
        Envelope.state == STORED, Envelope.recipient.not_in(opening_keys.held_elsewhere(kids))
    )
    if but := list(but):
        found = found.where(tuple_(Envelope.kiosk, Envelope.message_id).not_in(but))
    if tombstones_rest:
        found = found.where((Envelope.type != Withdraw.KIND) | Envelope.scan.is_(None))
    if exports_rest:
        found = found.where(Envelope.type == Withdraw.KIND)
    in_order = (Envelope.received_at, Envelope.kiosk, Envelope.epoch, Envelope.sequence)
    return found.order_by(*in_order).limit(most)


def read(session: Session, which: Select[UUID, UUID]) -> tuple[list[Sealed], set[Key]]:
    """These envelopes as they lie there, and those of them that withdrawals have named."""
    rows = [Sealed(*found) for found in session.execute(which.add_columns(Envelope.type, Envelope.data))]
    return rows, withdrawals.named_among(session, [row.message_id for row in rows])


def forget_replaced(session: Session, results: Sequence[tuple[Key, Result]]) -> None:
    """Discard what nobody could read here and was sealed again as these: nobody has to see to it now."""
    replaced = [(kiosk, result.supersedes) for (kiosk, _), result in results if result.supersedes is not None]
    unread = (Envelope.state == QUARANTINED) & (Envelope.reason == NO_KEY)
    if replaced:
        session.execute(
            update(Envelope).where(among(replaced), unread).values(data=b"", state=DISCARDED),
            execution_options={"synchronize_session": False},
        )


def among(keys: Sequence[Key]) -> ColumnElement[bool]:
    return tuple_(Envelope.kiosk, Envelope.message_id).in_(keys)


def has_key(key: Key) -> ColumnElement[bool]:
    return (Envelope.kiosk == key[0]) & (Envelope.message_id == key[1])
