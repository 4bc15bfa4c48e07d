"""The daily grey-card check: is the calibration still true?"""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from firmware.bench.card import middle, seen_share, unevenness
from firmware.bench.workbench import Workbench
from firmware.cameras.calibration import Calibration
from firmware.cameras.grey_card_check import GreyCardCheck
from hardware.targets import GREY_REFLECTANCE


def check_grey_card(bench: Workbench, calibration: Calibration) -> GreyCardCheck:
    """Look at the grey card under every light but UV. Raises LightsFault, CameraFrozen, OSError."""
    board = bench.board
    bench.show("grey")
    level_off, uneven = {}, {}
    for name, light in board.lights.items():
        if light.is_uv:
            continue
        pictures = [
            calibration.apply(board, name, counts, exposure) for counts, exposure in bench.expose(name, 2)
        ]
        picture = np.mean(pictures, axis=0) / 65_535
        # A matrix that is right for skin leaves grey a little off: it is wanted where the matrix puts it.
        wanted = GREY_REFLECTANCE * seen_share(name) * calibration.matrix.sum(axis=0)
        off = middle(picture).reshape(-1, 3).mean(axis=0) / wanted - 1
        level_off[name] = round(float(off[np.abs(off).argmax()]), 4)
        if light.position_mm is None:
            uneven[name] = round(unevenness(picture), 4)
    return GreyCardCheck(calibration.id, datetime.now(timezone.utc), level_off, uneven)
