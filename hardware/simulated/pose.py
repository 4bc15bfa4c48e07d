"""View: how the simulated patient stands in front of the camera during one exposure."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array
from hardware.simulated.scene import Scene
from hardware.simulated.targets import TargetScene


@dataclass(frozen=True)
class View:
    """`scene`, moved by `shift_px` to the right of the picture, swaying by `sway_px` meanwhile."""

    scene: Scene | TargetScene
    eyes_closed: bool = False
    shift_px: int = 0
    sway_px: int = 0

    def moved(self, rows: Float32Array) -> Float32Array:
        """Rows of the picture (float32, n×W×3) as this pose shows them."""
        if self.shift_px:
            rows = np.roll(rows, self.shift_px, axis=1)
        if self.sway_px > 1:
            rows = np.asarray(cv2.blur(rows, (self.sway_px, 1)), np.float32)
        return rows
