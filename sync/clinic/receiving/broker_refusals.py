"""Refusals: the kiosks to which the broker takes no receipt, and until when none is offered it."""

from __future__ import annotations

from uuid import UUID

FIRST_S, LONGEST_S = 30.0, 15 * 60.0


class Refusals:
    """Waits of each kiosk by itself, by the monotonic clock, which double while the broker refuses."""

    def __init__(self) -> None:
        self._waits: dict[UUID, tuple[float, float]] = {}

    def note(self, kiosk: UUID, moment: float) -> None:
        until, wait = self._waits.get(kiosk, (moment, FIRST_S / 2))
        # Many are on their way at once: they are refused as one.
        if moment >= until:
            wait = min(2 * wait, LONGEST_S)
            self._waits[kiosk] = moment + wait, wait

    def over(self, kiosk: UUID) -> None:
        """The broker has taken one."""
        self._waits.pop(kiosk, None)

    def put_off(self, moment: float) -> set[UUID]:
        """The kiosks to which nothing is sent for now."""
        return {kiosk for kiosk, (until, _) in self._waits.items() if moment < until}
