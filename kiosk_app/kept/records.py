"""The kiosk's local records: one row for each scan, in plain SQLite that holds only ciphertext."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog
from pydantic import ValidationError

from hardware.host.patience import waiting_at_most
from kiosk_app.kept import vault
from kiosk_app.kept.keyring import KeyGone, Keyring, KeyringBusy
from kiosk_app.kept.messages import Messages, ask_for_the_result
from kiosk_app.kept.records_file import (
    RecordsError,
    RecordsFile,
    RecordsHeld,
    RowDamaged,
    known_state,
    moment,
    text_of,
)
from kiosk_app.kept.states import GONE, MessageState, ScanState
from kiosk_app.log import Told
from sync.wire.findings import Findings

log = structlog.get_logger()

# Whoever holds the keys alone waits no longer for the file: patients wait for the keys meanwhile.
ALONE_S = 2.0
KEY_ELSEWHERE = "key_elsewhere"  # among the figures of a scan: its key was never in these records
LOOK_S = 0.05  # between two looks whether whoever reads or writes is done
# A result that was to be sealed again has left this kiosk. Where no other took its place, it is withdrawn.
_DISCARD_RESEALED = f"""
UPDATE messages SET state = '{MessageState.DISCARDING}' WHERE id = (
    SELECT id FROM messages WHERE scan = :scan AND kind = 'result' AND state = '{MessageState.RESEAL}'
    ORDER BY epoch DESC, sequence DESC LIMIT 1
) AND NOT EXISTS (
    SELECT 1 FROM messages WHERE scan = :scan AND kind = 'result' AND state != '{MessageState.RESEAL}'
)
"""


class NoSuchScan(RecordsError):
    """No scan has this id."""

    exit_status = 2


@dataclass(frozen=True)
class ScanRow:
    """What the records say about a scan without opening anything."""

    id: UUID
    state: ScanState
    created: datetime
    consent: dict[str, str]
    reason: str | None
    figures: dict[str, Any]


class Records:
    """The records in the SQLite file `path`, with the keys in `keyring`. May be used from any thread."""

    def __init__(self, path: Path, keyring: Keyring, *, as_it_is: bool = False) -> None:
        self._file = RecordsFile(path, as_it_is=as_it_is)
        self.messages = Messages(self._file)
        self.keyring = keyring
        self._told = Told()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._file.path

    def create(self, consent: dict[str, str], reference: str | None) -> UUID:
        """A new scan that a patient has just consented to, with a fresh key of its own; its id."""
        scan, dek = uuid4(), vault.new_key()
        facts = _seal(scan, "facts", dek, {"patient_reference": reference})
        with self.keyring.lock(shared=True), self._file.transaction() as db:
            db.execute(
                "INSERT INTO scans (id, state, created, consent, wrapped_dek, facts)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    str(scan),
                    ScanState.CONSENTED,
                    moment(),
                    json.dumps(consent),
                    self.keyring.wrap(dek),
                    facts,
                ),
            )
        self.messages.unsealed.add(scan)
        return scan

    def dek(self, scan: UUID) -> bytes:
        """The data key of a scan. Raises KeyGone after its shredding."""
        with self.keyring.lock(shared=True):
            wrapped = self._one(scan)["wrapped_dek"]
            if wrapped is None:
                raise KeyGone("This scan has been destroyed: nothing of it can be read any more.")
            return self.keyring.unwrap(wrapped)

    def _one(self, scan: UUID) -> sqlite3.Row:
        for row in self._rows("WHERE id = ?", str(scan)):
            return row
        raise NoSuchScan(f"This kiosk has no scan {scan}. Check the id.")

    def state(self, scan: UUID) -> str:
        """The state of one scan, as it stands there, whatever else its row holds. Raises NoSuchScan."""
        return str(self._one(scan)["state"])

    def is_staffs_wish(self, scan: UUID) -> bool:
        """Whether staff deleted a scan, whatever else its row holds. Raises NoSuchScan."""
        return bool(self._one(scan)["reason"] == "staff")

    def _rows(self, where: str, *values: str) -> list[sqlite3.Row]:
        """The rows of the scans `where` that is; what is no text in them comes as the bytes that it is."""
        with self._file.connection() as db:
            db.text_factory = text_of
            return db.execute(f"SELECT * FROM scans {where}", values).fetchall()

    def scan(self, scan: UUID) -> ScanRow:
        """What is known about one scan. Raises NoSuchScan, RowDamaged."""
        return _scan_row(self._one(scan))

    def scans(self, *states: ScanState) -> list[ScanRow]:
        """The scans in these states (all without any), oldest first. Raises RowDamaged for any of them."""
        return [_scan_row(row) for row in self._in_states(*states)]

    def states(self, *states: ScanState) -> dict[UUID, str]:
        """The scans in these states (all without any), oldest first, each with its state.

        Whatever else their rows hold: one that is damaged does not keep anyone from the others.
        """
        return {UUID(row["id"]): str(row["state"]) for row in self._in_states(*states) if _is_id(row["id"])}

    def _in_states(self, *states: ScanState) -> list[sqlite3.Row]:
        where = f"WHERE state IN ({','.join('?' * len(states))})" if states else ""
        return self._rows(f"{where} ORDER BY created, rowid", *states)

    def latest(self) -> ScanRow | None:
        """The scan that was made last, whatever the clock said; it costs the same however many there are.

        What was only taken in was made through other records, and does not count.
        """
        return next(map(_scan_row, self._newest()), None)

    def knows_any(self) -> bool:
        """Whether there is a `latest` scan, also where its row is damaged."""
        return bool(self._newest())

    def _newest(self) -> list[sqlite3.Row]:
        there = f"json_type(figures, '$.{KEY_ELSEWHERE}')"
        return self._rows(
            f"WHERE CASE WHEN json_valid(figures) THEN {there} END IS NULL ORDER BY rowid DESC LIMIT 1"
        )

    def patient_reference(self, scan: UUID) -> str | None:
        """The clinic's pseudonymous id of the patient; None for a walk-in."""
        dek, row = self.dek(scan), self._one(scan)
        reference: str | None = _open(scan, "facts", dek, row["facts"])["patient_reference"]
        return reference

    def advance(self, scan: UUID, before: ScanState, after: ScanState, **figures: Any) -> None:
        """Move a scan from one state to the next and note figures about it; refused from any other state."""
        with self._file.transaction() as db:
            row = db.execute("SELECT state, figures FROM scans WHERE id = ?", (str(scan),)).fetchone()
            if row is None or row["state"] != before:
                found = row["state"] if row else "missing"
                raise RecordsError(f"A scan cannot go from {found} to {after}: it should be {before}.")
            merged = _merge(_object(row["figures"]), figures)
            db.execute(
                "UPDATE scans SET state = ?, figures = ? WHERE id = ?", (after, json.dumps(merged), str(scan))
            )

    def note(self, scan: UUID, **figures: Any) -> None:
        """Add figures about a scan (seconds of a stage, sizes) without moving it."""
        with self._file.transaction() as db:
            row = db.execute("SELECT figures FROM scans WHERE id = ?", (str(scan),)).fetchone()
            if row is not None:
                merged = _merge(_object(row["figures"]), figures)
                db.execute("UPDATE scans SET figures = ? WHERE id = ?", (json.dumps(merged), str(scan)))

    def keep_findings(self, scan: UUID, findings: Findings, /, **figures: Any) -> None:
        """Keep the Findings of a captured scan, encrypted: the scan is analysed."""
        ciphertext = _seal(scan, "findings", self.dek(scan), findings.model_dump(mode="json"))
        with self._file.transaction() as db:
            row = db.execute(
                "SELECT figures FROM scans WHERE id = ? AND state = ?", (str(scan), ScanState.CAPTURED)
            ).fetchone()
            if row is None:
                raise RecordsError("Findings belong to a captured scan, and this one is not in that state.")
            merged = _merge(_object(row["figures"]), figures)
            db.execute(
                "UPDATE scans SET findings = ?, state = ?, figures = ? WHERE id = ?",
                (ciphertext, ScanState.ANALYSED, json.dumps(merged), str(scan)),
            )

    def findings(self, scan: UUID) -> Findings | None:
        """The Findings of a scan; None before the analysis."""
        dek, row = self.dek(scan), self._one(scan)
        if row["findings"] is None:
            return None
        try:
            return Findings.model_validate(_open(scan, "findings", dek, row["findings"]))
        except ValidationError:
            # The error itself quotes measurements, which belong in no log.
            raise RecordsError(
                "The Findings of this scan are another version's: install the one that kept them."
            ) from None

    def forget(self, scan: UUID, state: ScanState = ScanState.SHREDDED, reason: str | None = None) -> bool:
        """Destroy a scan's key and everything encrypted under it; the survivors get a new key generation.

        The row stays as a tombstone: id, state, reason. A result that was sealed is marked for discarding.
        False where all that is done but the end of the old generation, since another one uses the file at
        this moment: that is left to `finish_rewrap`.
        """
        self._one(scan)
        gone = ",".join("?" * len(GONE))
        with self.keyring.lock(), waiting_at_most(ALONE_S, ALONE_S):
            unused = self._newest_is_unused()
            with self._file.transaction() as db:
                wrapped = db.execute("SELECT wrapped_dek FROM scans WHERE id = ?", (str(scan),)).fetchone()[0]
                # Each one anew: a try that failed may have left this key in the log, under its own.
                if wrapped is not None:
                    self.keyring.begin_generation(instead_of_newest=unused)
                if scan not in self.messages.unsealed:
                    ask_for_the_result(db, scan)
                db.execute(
                    "UPDATE scans SET state = ?, reason = ?, consent = NULL, wrapped_dek = NULL,"
                    " facts = NULL, findings = NULL"
                    f" WHERE id = ? AND state NOT IN ({gone})",
                    (state, reason, str(scan), *GONE),
                )
                db.execute(
                    "UPDATE messages SET state = CASE WHEN state IN (?, ?) THEN ? ELSE ? END, envelope = NULL"
                    " WHERE scan = ? AND kind = 'result' AND state IN (?, ?, ?, ?, ?, ?)",
                    (
                        MessageState.WAITING,
                        MessageState.UNDELIVERABLE,
                        MessageState.DISCARDING_UNSENT,
                        MessageState.DISCARDING,
                        str(scan),
                    )
                    + (
                        MessageState.WAITING,
                        MessageState.UNDELIVERABLE,
                        MessageState.SUBMITTED,
                        MessageState.STORED,
                        MessageState.QUARANTINED,
                        MessageState.WITHDRAWN,
                    ),
                )
                db.execute(_DISCARD_RESEALED, {"scan": str(scan)})
                self._rewrap(db)
            return self._end_old_generations()

    def ask_for_the_result(self, scan: UUID) -> None:
        """Have the outbox asked for the result of a scan that is gone, where nobody has asked it yet."""
        if scan not in self.messages.unsealed and not self.messages.carriers(scan):
            with self._file.transaction() as db:
                ask_for_the_result(db, scan)

    def take_in(self, scan: UUID, reason: str) -> None:
        """Have a scan of which newer records knew more be deleted, with its result at the clinic.

        One that these do not know at all is a tombstone from now on: its key is not here.
        """
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO scans (id, state, created, reason, figures) VALUES (?, ?, ?, ?, ?)",
                (str(scan), ScanState.SHREDDED, moment(), reason, json.dumps({KEY_ELSEWHERE: True})),
            )
            ask_for_the_result(db, scan, may_have_left=True)

    def finish_rewrap(self, wait_s: float = 0.0) -> bool:
        """Complete what a shredding left: one generation, and every key wrapped under it.

        False where others use the keys or the file for `wait_s`. They are not kept from either meanwhile.
        """
        deadline = time.monotonic() + wait_s
        while not self._finish_at_once():
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def _finish_at_once(self) -> bool:
        if len(self.keyring.generations()) == 1:
            return True
        try:
            with waiting_at_most(0.0), self.keyring.lock():
                with self._file.transaction() as db:
                    self._rewrap(db)
                return self._end_old_generations()
        except (KeyringBusy, RecordsHeld):
            return False

    def _newest_is_unused(self) -> bool:
        """Whether a deletion that failed left its generation, and nothing is under it.

        Nor will be: a change that could not be ended may be found in the log after a power cut, as one that
        was. Another one, which says nothing new, is written over it.
        """
        if len(self.keyring.generations()) == 1:
            return False
        with self._file.transaction() as db:
            used = db.execute(
                "SELECT 1 FROM scans WHERE substr(wrapped_dek, 1, 4) = ? LIMIT 1", (self.keyring.mark(),)
            ).fetchone()
            if used is None:
                db.execute("PRAGMA application_id = 0")  # a row that stays as it is would not be written
        return used is None

    def _end_old_generations(self) -> bool:
        emptied = self._file.checkpoint()
        if emptied:
            self.keyring.destroy_old()
        return emptied

    def _rewrap(self, db: sqlite3.Connection) -> None:
        """Wrap anew what is under an older generation.

        A damaged key stays as it is: the right key file, put back, still opens it.
        """
        rows = db.execute(
            "SELECT rowid, wrapped_dek FROM scans WHERE substr(wrapped_dek, 1, 4) != ?",
            (self.keyring.mark(),),
        ).fetchall()
        rewrapped = self.keyring.rewrap(row["wrapped_dek"] for row in rows)
        db.executemany(
            "UPDATE scans SET wrapped_dek = ? WHERE rowid = ?",
            [(wrapped, row["rowid"]) for row, wrapped in zip(rows, rewrapped, strict=True) if wrapped],
        )
        damaged = rewrapped.count(None)
        if damaged and self._told.begins("keys_damaged", str(damaged)):
            log.error("keys_damaged", scans=damaged)

    def summary(self, scan: UUID) -> dict[str, Any]:
        """Figures of one scan for a status or a demonstration; nothing in it describes the patient."""
        row, message = self.scan(scan), self.messages.of(scan)
        return {
            "scan": str(scan),
            "state": row.state,
            "reason": row.reason,
            "frames": row.figures.get("frames", 0),
            "findings": row.figures.get("findings", 0),
            "close_ups": row.figures.get("close_ups", 0),
            "sealed_bytes": message.size if message else 0,
            "message": str(message.id) if message else None,
            "seconds": row.figures.get("seconds", {}),
            "peak_rss_mb": row.figures.get("peak_rss_mb", 0),
        }


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Figures with the new ones added; `seconds` is merged stage by stage."""
    seconds = old.get("seconds", {}) | new.get("seconds", {})
    return old | new | {"seconds": seconds}


def _seal(scan: UUID, item: str, dek: bytes, data: dict[str, Any]) -> bytes:
    return b"".join(vault.encrypt(scan, item, dek, json.dumps(data).encode()))


def _open(scan: UUID, item: str, dek: bytes, data: bytes) -> dict[str, Any]:
    opened: dict[str, Any] = json.loads(vault.decrypt(scan, item, dek, data))
    return opened


def _is_id(found: str | bytes) -> bool:
    with contextlib.suppress(ValueError, TypeError):
        return str(UUID(found)) == found  # type: ignore[arg-type]  # bytes are a TypeError
    return False


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise RowDamaged from error


def _scan_row(row: sqlite3.Row) -> ScanRow:
    if isinstance(row["reason"], bytes):
        raise RowDamaged
    try:
        return ScanRow(
            id=UUID(row["id"]),
            state=known_state(ScanState, row["state"]),
            created=datetime.fromisoformat(row["created"]),
            consent=_object(row["consent"] or "{}"),
            reason=row["reason"],
            figures=_object(row["figures"]),
        )
    except (ValueError, TypeError) as error:
        raise RowDamaged from error
