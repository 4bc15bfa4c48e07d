"""Shredding: one scan's key, pictures, findings, unsent envelope, all gone for good."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import structlog

from kiosk_app import records as states
from kiosk_app.courier import Courier
from kiosk_app.delivery import Delivery, delivery
from kiosk_app.records import Records
from kiosk_app.vault import Vault
from sync.kiosk.client import OutboxClient

log = structlog.get_logger()


@dataclass(frozen=True)
class Shredded:
    """What this shredding destroyed; `before` says that the scan's key had been destroyed already.

    `clinic` is what was known right after of what had been sent.
    """

    items: list[str]
    findings: int
    clinic: Delivery
    before: bool


def shred(
    scan: UUID, records: Records, vault: Vault, courier: Courier, outbox: OutboxClient, by: str
) -> Shredded:
    """Destroy the scan here, then take its result out of the outbox or withdraw it at the clinic.

    `by` is who wants it: "patient" or "staff".
    May be repeated. Raises NoSuchScan. Where the outbox cannot be reached, the courier does the rest later.
    """
    row = records.scan(scan)
    before = row.state in states.GONE
    if not before:
        records.forget(scan, states.SHREDDED, by)
    items = vault.destroy(scan)
    courier.run_once()
    clinic = delivery(scan, records, outbox)
    log.info("scan", scan=str(scan), state=states.SHREDDED, items=len(items), clinic=clinic.value)
    findings = 0 if before else int(row.figures.get("findings", 0))
    return Shredded(items=items, findings=findings, clinic=clinic, before=before)
