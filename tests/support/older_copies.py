"""Older copies of the outbox and of the records, and scans that they know too little of."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from uuid import UUID

from tests.support.scanning import consented, do
from tests.support.whole_way import Way


def copied_records(way: Way) -> Path:
    to = way.state / "records.copy"
    now = sqlite3.connect(way.bench.kiosk.records.path)
    with contextlib.closing(now), contextlib.closing(sqlite3.connect(to)) as copy:
        now.backup(copy)
    return to


def older_records(way: Way, copy: Path) -> None:
    """The copy is put back, and the application starts on it."""
    now = sqlite3.connect(way.bench.kiosk.records.path)
    with contextlib.closing(now), contextlib.closing(sqlite3.connect(copy)) as older:
        older.backup(now)
    way.bench.again().work.recover()


def finished(way: Way) -> UUID:
    scan = consented(way.bench)
    do(way.bench, scan)
    return scan
