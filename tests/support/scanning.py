"""One scan on a bench: consented, worked on, looked at; and records that another process holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from uuid import UUID

import pytest

from firmware.line.stamps import ConsentStamp
from kiosk_app.kept.keyring import KeyGone
from kiosk_app.kept.records_file import RecordsHeld
from kiosk_app.scanning.delivery import Delivery
from kiosk_app.scanning.progress import Progress
from kiosk_app.scanning.shred import shred
from tests.support.kiosk_bench import Bench

STAMP = ConsentStamp("1", "en", datetime.now(timezone.utc))


def consented(bench: Bench) -> UUID:
    return bench.kiosk.records.create(STAMP.to_dict(), "demo-1")


def do(bench: Bench, scan: UUID) -> Progress:
    progress = Progress()
    bench.kiosk.work.do(scan, STAMP, False, progress)
    return progress


def state_of(bench: Bench, scan: UUID) -> str:
    return bench.kiosk.records.scan(scan).state


def nothing_is_kept(bench: Bench, scan: UUID) -> bool:
    with pytest.raises(KeyGone):
        bench.kiosk.records.dek(scan)
    return bench.kiosk.vault.items(scan) == [] and not bench.outbox.submitted


def held(*_args: object, **_kwargs: object) -> None:
    raise RecordsHeld("The kiosk's records cannot be used: another process holds it.")


@contextmanager
def reading(bench: Bench) -> Iterator[None]:
    """Meanwhile somebody reads the records, as a backup does."""
    with closing(sqlite3.connect(bench.kiosk.records.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT wrapped_dek FROM scans").fetchall()
        yield


@contextmanager
def writing(bench: Bench) -> Iterator[None]:
    """Meanwhile another process changes the records."""
    with closing(sqlite3.connect(bench.kiosk.records.path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield


def half_destroyed(bench: Bench, scan: UUID) -> tuple[list[int], list[str]]:
    """What could still open a scan that is gone: key generations beside the newest, items in the vault."""
    return bench.kiosk.records.keyring.generations()[:-1], bench.kiosk.vault.items(scan)


def shred_it(bench: Bench, scan: UUID) -> Delivery:
    kiosk = bench.kiosk
    return shred(scan, kiosk.records, kiosk.vault, kiosk.courier.run_once, bench.outbox, by="staff").clinic  # type: ignore[arg-type]
