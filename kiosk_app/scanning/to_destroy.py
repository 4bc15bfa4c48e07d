"""What there is to destroy: scans of which nothing may stay, since they were given up or deleted."""

from __future__ import annotations

from uuid import UUID

from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import known_state
from kiosk_app.kept.states import GONE, ScanState
from kiosk_app.kept.vault import Vault


class ToDestroy:
    """Scans that were given up, deleted, or may be gone in part, each until all of it is gone.

    In memory only: after a start `ScanWork.recover` finds by the records what there is to destroy.
    """

    def __init__(self, records: Records, vault: Vault) -> None:
        self._records, self._vault = records, vault
        self._reasons: dict[UUID, str | None] = {}

    def __contains__(self, scan: UUID) -> bool:
        return scan in self._reasons

    def scans(self) -> tuple[UUID, ...]:
        return tuple(self._reasons)

    def note(self, scan: UUID, reason: str | None = None) -> None:
        """`reason` is why it was given up; the first one counts."""
        if self._reasons.get(scan) is None:
            self._reasons[scan] = reason

    def destroy(self, scan: UUID) -> None:
        """Destroy what there is of a scan without kept pictures, or of one that is gone already.

        A scan of which pictures are kept, or were by newer records, is left as it is. What raises stays left
        behind. An old key that is in use is ended by `Records.finish_rewrap`.
        """
        reason = self._reasons.pop(scan, None)
        try:
            self._destroy(scan, reason)
        except BaseException:
            self.note(scan, reason)
            raise

    def _destroy(self, scan: UUID, reason: str | None) -> None:
        state = known_state(ScanState, self._records.state(scan))
        if state not in (ScanState.CONSENTED, *GONE):
            return
        if state == ScanState.CONSENTED and self._vault.was_kept(scan):
            return  # the records are an older copy: see `storage.unknown_scans`
        try:
            self._vault.destroy(scan)  # which needs no keys
        finally:  # and the keys no pictures: where the ones cannot be destroyed, the others are
            if state == ScanState.CONSENTED:
                self._records.forget(scan, ScanState.ABANDONED, reason)
