"""The ways of a simulated kiosk's own lens, lamps and sensor, which calibration takes out again."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from hardware.arrays import Float32Array
from hardware.board import Board
from hardware.skin_spectra import reflectance
from hardware.spectra import camera_rgb, linear_srgb


class Optics:
    """How the parts of `board` bend what its camera sees: not at all where the profile names none."""

    def __init__(self, board: Board) -> None:
        self._uneven = board.simulation.uneven
        self._colours: dict[str, Float32Array] = {}
        sensor, white = board.camera.sensor, board.lights["white"].led
        if sensor is None or white is None:
            return
        # A colour of a portrait stands for the mixture of three skins that has it.
        skins = reflectance([0.05, 0.05, 0.35], [0.004, 0.03, 0.01])
        for name, light in board.lights.items():
            seen = camera_rgb(skins, light.led or white, sensor)
            self._colours[name] = np.linalg.solve(linear_srgb(skins), seen).astype(np.float32)

    def in_sensor_colours(self, light: str, colours: Float32Array) -> Float32Array:
        """Linear sRGB (…, 3) as the sensor has it under `light`."""
        matrix = self._colours.get(light)
        return colours if matrix is None else np.maximum(colours @ matrix, 0)

    def dim(self, light: str, counts: Float32Array, rows: slice, height: int) -> None:
        """Dim `counts` (rows×W×3 float32 of a picture `height` high) as lens and lamp do, in place."""
        if not self._uneven:
            return
        width = counts.shape[1]
        x = ((np.arange(width) + 0.5) / width - 0.5) * 2 * width / np.hypot(width, height)
        y = ((np.arange(rows.start, rows.stop) + 0.5) / height - 0.5) * 2 * height / np.hypot(width, height)
        field = 1 - self._uneven * (x[None, :] ** 2 + y[:, None] ** 2)
        if not light.startswith("dir"):
            angle = crc32(light.encode()) % 360 * np.pi / 180
            field *= 1 + 0.3 * self._uneven * (np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None])
        counts *= field[:, :, None].astype(np.float32)
        counts *= np.array([1 - 0.4 * self._uneven, 1.0, 1 - 0.25 * self._uneven], np.float32)
