"""What became of the newest scan: followed from the kiosk's records to the clinic's database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from kiosk_app.demo.supervisor import PartFailed
from kiosk_app.demo.system import System
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.states import ScanState

RECEIPT_S = 90.0
RECORD_S = 30.0
LOCKED_S = 5.0
LOOK_S = 0.1

_DAY_S = 86_400
_RECORD = f"""
SELECT scans.id,
       (julianday(received_at) - julianday(created_at)) * {_DAY_S},
       (julianday(scans.opened_at) - julianday(received_at)) * {_DAY_S}
FROM scans JOIN envelopes USING (message_id) WHERE scans.id = ?
"""

T = TypeVar("T")


def wait_for_record(system: System, watch: Callable[[], None]) -> dict[str, Any]:
    """The newest scan's figures, once its receipt is here and the clinic has its record.

    `watch` is called while waiting. Raises PartFailed with what did not come by the deadline.
    """

    def until(look: Callable[[], T | None], seconds: float, what: str) -> T:
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            watch()
            if time.monotonic() > deadline:
                raise PartFailed(f"The scan was made, but {what} did not come within {seconds:g} s.")
            time.sleep(LOOK_S)
        return found

    app = system.kiosk / "app"
    records = Records(app / "records.sqlite", Keyring(app / "vault.key"))
    newest = records.latest()
    if newest is None:
        raise PartFailed("The kiosk has no record of the scan.")
    scan = newest.id
    until(lambda: records.scan(scan).state == ScanState.STORED or None, RECEIPT_S, "the clinic's receipt")
    record, seconds = until(lambda: clinic_record(system.clinic, scan), RECORD_S, "the clinic's record")
    summary = records.summary(scan)
    close_ups = {"close_ups": summary["close_ups"]} if summary["close_ups"] else {}
    return close_ups | {
        "scan": summary["scan"],
        "frames": summary["frames"],
        "findings": summary["findings"],
        "sealed_bytes": summary["sealed_bytes"],
        "receipt": summary["state"],
        "clinic_record": record,
        "seconds": summary["seconds"] | seconds,
        "peak_rss_mb": {"analysis": summary["peak_rss_mb"]},
    }


def clinic_record(clinic: Path, scan: UUID) -> tuple[str, dict[str, float]] | None:
    """The clinic's record of `scan`, read from its SQLite database: its id, and the seconds that it took.

    `deliver` is from the sealing on the kiosk to the storing at the clinic, `open` from there to the record.
    """
    address = f"{(clinic / 'clinic.sqlite').absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=LOCKED_S)) as database:
        row = database.execute(_RECORD, (scan.hex,)).fetchone()
    return (str(UUID(row[0])), {"deliver": row[1], "open": row[2]}) if row else None
