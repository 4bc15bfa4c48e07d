"""Shredding: one scan's key, pictures, findings, unsent envelope, all gone for good.

What makes it so is that the key is destroyed: `Records.forget` has the survivors wrapped anew, and
`Keyring.destroy_old` ends the generation that it was under. `Vault.destroy` only deletes what it opened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from hardware.host.patience import patience
from kiosk_app.kept.records import KEY_ELSEWHERE, Records
from kiosk_app.kept.records_file import RowDamaged, StateUnknown
from kiosk_app.kept.reserve import DiskFull
from kiosk_app.kept.states import GONE, ScanState
from kiosk_app.kept.vault import Vault
from kiosk_app.scanning.delivery import Delivery, delivery
from sync.kiosk.client import OutboxClient

log = structlog.get_logger()

USED_S = 1.0  # so long whoever deletes a scan waits for others to be done with the records


@dataclass(frozen=True)
class Shredded:
    """What this shredding destroyed; `before` says that the scan had been deleted already.

    `clinic` is what was known right after of what had been sent. `findings`: None where the records no longer
    say how many there were. `key_left`: the scan is deleted, and its old
    key is destroyed by the next one who finds that nobody uses the records. `key_elsewhere`: these records
    never had it.
    """

    items: list[str]
    findings: int | None
    clinic: Delivery
    before: bool
    key_left: bool
    key_elsewhere: bool


def shred(
    scan: UUID,
    records: Records,
    vault: Vault,
    tell: Callable[[UUID], object],
    outbox: OutboxClient,
    by: str,
    unknown: bool = False,
) -> Shredded:
    """Destroy the scan here, then take its result out of the outbox or withdraw it at the clinic.

    `tell` does the latter, as `Courier.run_once`. `by` is who wants it: "patient" or "staff".
    `unknown` are the scans of `storage.unknown_scans`: newer records may have sent them.
    May be repeated. Raises NoSuchScan. Where the outbox cannot be reached, the courier does the rest later.
    """
    before = not unknown and records.state(scan) in GONE
    items, key_left = destroy(scan, ScanState.SHREDDED, by, records, vault, unknown)
    if key_left:
        log.warning("old_key_left", scan=str(scan))
    tell(scan)
    clinic, figures = Delivery.UNTOLD, None
    with contextlib.suppress(RowDamaged, StateUnknown):  # of its message: nobody knows what became of it
        clinic = delivery(scan, records, outbox)
    log.info("scan", scan=str(scan), state=ScanState.SHREDDED, items=len(items), clinic=clinic.value)
    with contextlib.suppress(RowDamaged):  # it is gone all the same
        figures = records.scan(scan).figures
    return Shredded(
        items=items,
        findings=0 if before else None if figures is None else int(figures.get("findings", 0)),
        clinic=clinic,
        before=before,
        key_left=key_left,
        key_elsewhere=figures is not None and KEY_ELSEWHERE in figures,
    )


def destroy(
    scan: UUID, state: ScanState, reason: str, records: Records, vault: Vault, unknown: bool = False
) -> tuple[list[str], bool]:
    """Destroy the key of a scan, then its pictures; which, and whether the old key is left.

    It is where somebody uses the records for longer than USED_S; the scan is gone all the same. A full disk
    has room in reserve for that. Where that was lent before, the pictures make room. `state` is one of GONE.
    Of a scan that is gone already, what is left is destroyed. Raises DiskFull where there is no room even
    then.
    """

    def destroy_key() -> bool:
        if unknown:
            records.take_in(scan, reason)
        if records.state(scan) in GONE:
            with contextlib.suppress(RowDamaged):  # it has had a message, then
                records.ask_for_the_result(scan)
            return records.finish_rewrap()  # of one that ended half-way the key may still be there
        return records.forget(scan, state, reason)

    items = []
    try:
        ended = vault.reserve.lend(destroy_key)
    except DiskFull:
        items = vault.destroy(scan)
        ended = destroy_key()
    items += vault.destroy(scan)
    ended = ended or records.finish_rewrap(patience(USED_S))
    vault.reserve.fill()
    return items, not ended
