"""The latest grey-card check of a kiosk: how far each light was off, and whether it forbids scanning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from firmware.cameras.calibration import Calibration
from hardware.board import Board
from hardware.host.durable import write_whole
from hardware.host.folders import make_folder
from hardware.host.regular_file import read_regular_file

# Lamps that differ by this much move ITA° by half a degree.
LEVEL_LIMIT, UNEVEN_LIMIT = 0.03, 0.03


@dataclass(frozen=True)
class GreyCardCheck:
    """One check: which calibration, when, and how far each light is off, as shares of what it should be."""

    calibration: str
    at: datetime
    level_off: Mapping[str, float]
    uneven: Mapping[str, float]

    @property
    def failing(self) -> tuple[str, ...]:
        """The lights that are off beyond the limits."""
        return tuple(
            name
            for name in self.level_off
            if not (abs(self.level_off[name]) <= LEVEL_LIMIT and self.uneven.get(name, 0.0) <= UNEVEN_LIMIT)
        )


def write_check(state: Path, check: GreyCardCheck) -> None:
    """Keep `check` as the latest one, in one step."""
    folder = state / "calibration"
    make_folder(folder)
    told = json.dumps(asdict(check) | {"at": check.at.isoformat()}, indent=2)
    write_whole(folder / "grey-card.json", told)


def why_not_to_scan(
    state: Path, board: Board, calibration: Calibration | None, now: datetime | None = None
) -> str | None:
    """A sentence for staff, where the latest check forbids scanning or the board asks for one; else None."""
    now = now or datetime.now(timezone.utc)
    if calibration is None:
        if board.grey_card_every_h is None:
            return None
        return "This kiosk was never calibrated, or too long ago: staff run 'dermakiosk calibrate'."
    try:
        data = json.loads(read_regular_file(state / "calibration" / "grey-card.json"))
        check = GreyCardCheck(
            str(data["calibration"]),
            datetime.fromisoformat(data["at"]),
            {str(k): float(v) for k, v in data["level_off"].items()},
            {str(k): float(v) for k, v in data["uneven"].items()},
        )
        hours = (now - check.at).total_seconds() / 3600
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        check, hours = None, float("inf")
    if check is not None and check.calibration == calibration.id and check.failing:
        return (
            f"The grey card did not look as it should under {', '.join(check.failing)}: staff clean lamps and"
            " lens, then run 'dermakiosk greycard', or 'dermakiosk calibrate' if that does not help."
        )
    if board.grey_card_every_h is None:
        return None
    if check is None or check.calibration != calibration.id or not 0 <= hours <= board.grey_card_every_h:
        return (
            f"The grey card was not checked by this calibration in the last {board.grey_card_every_h:g} h:"
            " staff run 'dermakiosk greycard'."
        )
    return None
