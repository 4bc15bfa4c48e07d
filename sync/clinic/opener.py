"""The opener: the one process that reads results, with the clinic's opening key."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Row, Select, select, tuple_, update
from sqlalchemy.orm import Session

from sync.wire import envelope
from sync.wire.keys import KeyRefused, OpeningKey, load_opening_keys
from sync.wire.messages import Message, Result, Withdraw, WithdrawMessages

from . import withdrawals
from .database import Database, insert_once, now
from .database_failure import failed_itself, why_away
from .durable import sync_folder
from .errors import ClinicUsageError
from .intake import NO_KEY
from .receipts import owe_late
from .registry import RESULT, key_finder
from .tables import (
    OPENED,
    QUARANTINED,
    STORED,
    Envelope,
    FindingRow,
    HeldKey,
    ReminderRow,
    Scan,
)
from .tombstones import Tombstone, TombstonesUnusable

POLL_SECONDS = 0.25
DATABASE_WAIT_SECONDS = (0.5, 30.0)
# An envelope with which the database has failed so often in a row lets the others go first for a while: the
# database may be well, and only this one more than it can take in a way that nobody has foreseen.
STRIKES = 5
ASIDE_SECONDS = 15 * 60.0

Key = tuple[UUID, UUID]

log = structlog.get_logger()


class Refused(Exception):
    """An opened message that the records cannot take; `reason` is one word for the envelope's row."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Opener:
    """Opens what is stored, oldest first. It believes no row: every signature is checked once more."""

    def __init__(self, database: Database, keys: Sequence[OpeningKey], export: Path | None = None) -> None:
        self._database = database
        self._keys = tuple(keys)
        self._export = export
        # A process may have ended between an erasure and this: nobody remembers it.
        self._to_scrub = True
        self._strikes: Counter[Key] = Counter()
        self._aside: dict[Key, float] = {}

    def begin(self, *, again: bool = False) -> None:
        """Say which keys are held, and look once more at what waited for one.

        A key that was held and is not any more is retired: ingest has kiosks seal again what was sealed to
        it. With `again`, quarantined envelopes are tried once more too.
        """
        withdrawals.reapply(self._database, self._export)
        moment = now()
        with self._database.writing() as session:
            held = {key.kid for key in self._keys}
            for row in session.scalars(select(HeldKey)):
                if row.held != (row.kid in held):
                    row.held, row.since = not row.held, moment
            for kid in held:
                insert_once(session, HeldKey(kid=kid, held=True, since=moment))
            tried_again = update(Envelope).where(Envelope.reason == NO_KEY, Envelope.recipient.in_(held))
            session.execute(tried_again.values(state=STORED, reason=None))
            if again:
                quarantined = update(Envelope).where(Envelope.state == QUARANTINED)
                session.execute(quarantined.values(state=STORED, reason=None))

    def run(self, stop: threading.Event) -> None:
        """Open envelopes as they come, until `stop` is set."""
        wait, longest = DATABASE_WAIT_SECONDS
        while not stop.is_set():
            try:
                if not self.open_next():
                    self._scrub()
                    stop.wait(POLL_SECONDS)
                wait = DATABASE_WAIT_SECONDS[0]
                continue
            except TombstonesUnusable as error:
                log.error("withdrawal-waits", why=str(error), wait_s=wait)
            except Exception as error:
                if failed_itself(error):
                    log.error("database-away", kind=why_away(error), wait_s=wait)
                else:
                    log.error("not-foreseen", wait_s=wait, exc_info=error)
            stop.wait(wait)
            wait = min(2 * wait, longest)
        log.info("stopped")

    def open_next(self) -> bool:
        """Open the oldest envelope that waits; False if there is none.

        Whatever its message raises, that envelope is quarantined. What the database raises of itself comes
        out, and nothing has changed.
        """
        with self._database.reading() as session:
            if session.execute(_waiting(self._set_aside())).first() is None:
                return False
        key: Key | None = None
        try:
            with self._database.writing() as session:
                # Another opener may have been here since, or be at it now: then this one looks elsewhere.
                found = session.execute(_waiting(self._set_aside()).with_for_update(skip_locked=True)).first()
                if found is None:
                    return False
                key = _key(found)
                self._open(session, session.scalars(select(Envelope).where(_is(key))).one())
        except Exception as error:
            if key is None or isinstance(error, TombstonesUnusable):
                raise
            if failed_itself(error):
                self._strike(key)
                raise
            self._quarantine(key, error)
        else:
            self._strikes.pop(key, None)
        self._scrub()
        return True

    def _scrub(self) -> None:
        """After an erasure, once nobody is in the way."""
        if self._to_scrub:
            self._to_scrub = not self._database.scrub()

    def _strike(self, key: Key) -> None:
        self._strikes[key] += 1
        if self._strikes[key] >= STRIKES:
            del self._strikes[key]
            self._aside[key] = time.monotonic() + ASIDE_SECONDS
            log.warning("set-aside", message=str(key[1]), for_s=ASIDE_SECONDS)

    def _set_aside(self) -> list[Key]:
        self._aside = {key: until for key, until in self._aside.items() if until > time.monotonic()}
        return list(self._aside)

    def _quarantine(self, key: Key, error: Exception) -> None:
        """Set an envelope apart by its key, for its row may be what cannot be read."""
        log.error("quarantined", message=str(key[1]), reason="not_foreseen", exc_info=error)
        reason = f"not_foreseen:{type(error).__name__}"[:64]
        with self._database.writing() as session:
            waiting = update(Envelope).where(_is(key), Envelope.state == STORED)
            session.execute(waiting.values(state=QUARANTINED, reason=reason))

    def _open(self, session: Session, row: Envelope) -> None:
        try:
            verified = envelope.verify(row.data, key_finder(session, RESULT), row.kiosk)
            if (named := withdrawals.named_by(session, row)) is not None:
                self._erase(session, row, named)
                return
            message = envelope.open_envelope(verified, self._keys)
            row.scan = message.scan
            if message.scan is not None and withdrawals.comes_too_late(session, row, message.scan):
                self._erase(session, row, message.scan)
                return
            self._keep(session, row, message)
        except envelope.EnvelopeError as error:
            if error.reason == "unknown_recipient":
                log.warning("no-opening-key", key=row.recipient.hex())
            _quarantine(row, NO_KEY if error.reason == "unknown_recipient" else error.reason)
        except Refused as error:
            _quarantine(row, error.reason)
        else:
            if self._export is not None:
                _write(withdrawals.exported(self._export, row.kiosk, row.message_id), message)
            row.state, row.reason, row.opened_at = OPENED, None, now()
            owe_late(session, row.kiosk, row.message_id, row.sha256)
            log.info("opened", message=str(row.message_id), type=row.type)

    def _keep(self, session: Session, row: Envelope, message: Message) -> None:
        if isinstance(message, Result):
            _keep_result(session, row, message)
        elif isinstance(message, Withdraw):
            _refuse_another_kiosk(session, row, message.scan)
            messages = message.messages if isinstance(message, WithdrawMessages) else ()
            stone = Tombstone(
                kiosk=row.kiosk,
                scan=message.scan,
                message_id=row.message_id,
                messages=messages,
                at=message.at,
                reason=message.reason,
            )
            if withdrawals.is_one_too_many(session, stone):
                withdrawals.alarm_once(session, row.kiosk)
                raise Refused(withdrawals.TOO_MANY_UNSEEN)
            self._forget(row.kiosk, withdrawals.withdraw(self._database, session, stone))
        else:
            reminder = ReminderRow(
                id=message.reminder,
                message_id=row.message_id,
                kiosk=row.kiosk,
                patient_reference=message.patient_reference,
                rule=message.rule,
                due_on=message.due_on,
                scan=message.scan,
            )
            insert_once(session, reminder)

    def _erase(self, session: Session, row: Envelope, scan: UUID) -> None:
        """What comes of a scan that was withdrawn before is not kept."""
        self._forget(row.kiosk, withdrawals.erase(session, row.kiosk, scan, [row.message_id]))
        log.info("withdrawn-before", message=str(row.message_id), type=row.type)

    def _forget(self, kiosk: UUID, messages: Sequence[UUID]) -> None:
        withdrawals.forget_exports(self._export, kiosk, messages)
        self._to_scrub = True


def read_opening_keys(path: Path) -> tuple[OpeningKey, ...]:
    """The opening keys in the opener's key file."""
    try:
        return load_opening_keys(path.read_bytes())
    except (OSError, KeyRefused) as error:
        raise ClinicUsageError(
            f"{path} is not there or is no file of opening keys: make it with "
            "'dermakiosk provision opener …', or bring back its safe copy."
        ) from error


def _waiting(but: Sequence[Key]) -> Select[UUID, UUID]:
    """The key of the oldest envelope that waits, but for some; not its row, which may be the fault."""
    return (
        select(Envelope.kiosk, Envelope.message_id)
        .where(Envelope.state == STORED, tuple_(Envelope.kiosk, Envelope.message_id).not_in(but))
        .order_by(Envelope.received_at, Envelope.kiosk, Envelope.epoch, Envelope.sequence)
        .limit(1)
    )


def _key(found: Row[UUID, UUID]) -> Key:
    kiosk, message_id = found
    return kiosk, message_id


def _is(key: Key) -> ColumnElement[bool]:
    return (Envelope.kiosk == key[0]) & (Envelope.message_id == key[1])


def _quarantine(row: Envelope, reason: str) -> None:
    row.state, row.reason = QUARANTINED, reason
    log.warning("quarantined", message=str(row.message_id), reason=reason)


def _refuse_another_kiosk(session: Session, row: Envelope, scan: UUID) -> None:
    if withdrawals.owner(session, scan) not in (None, row.kiosk):
        raise Refused(withdrawals.SCAN_OF_ANOTHER)


def _keep_result(session: Session, row: Envelope, result: Result) -> None:
    """One record for one scan: a second result must say which it replaces, or it is not taken."""
    _refuse_another_kiosk(session, row, result.scan)
    known = session.get(Scan, result.scan)
    if known is not None:
        if result.supersedes != known.message_id:
            raise Refused("second_result")
        session.delete(known)
        session.flush()
    findings = result.findings
    scan = Scan(
        id=result.scan,
        message_id=row.message_id,
        kiosk=row.kiosk,
        patient_reference=result.patient_reference,
        supersedes=result.supersedes,
        captured_at=result.captured_at,
        opened_at=now(),
        board=result.board,
        simulated=result.simulated,
        software=findings.software,
        calibration=findings.calibration,
        models=dict(findings.models),
        quality=list(findings.quality),
        consent=result.consent.model_dump(mode="json"),
        geometry=findings.geometry.model_dump(mode="json"),
        spots=[spot.model_dump(mode="json") for spot in findings.spots],
    )
    session.add(scan)
    session.flush()
    session.add_all(
        FindingRow(scan=result.scan, position=position, **finding.model_dump())
        for position, finding in enumerate(findings.findings)
    )
    session.flush()


def _write(path: Path, message: Message) -> None:
    """Write what was opened; before the commit, so that a crash leaves none out."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # By a name that the next try, or a withdrawal, finds again.
    temporary = path.with_suffix(withdrawals.HALF_WRITTEN)
    descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(message.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
