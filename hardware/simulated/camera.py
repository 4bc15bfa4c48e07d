"""The simulated camera: it sees the simulated patient in the light of the pins, and nothing else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from hardware.board import Board
from hardware.simulated.optics import Optics
from hardware.simulated.patient import AMBIENT, Patient, Scene
from hardware.simulated.senses import light_reader
from hardware.simulated.sensor import Sensor
from hardware.simulated.targets import Target, TargetScene


class SimulatedExposure:
    """One exposure, done: what was lit meanwhile is known, the counts are worked out when asked for."""

    def __init__(
        self,
        board: Board,
        optics: Optics,
        scene: Scene | TargetScene,
        levels: dict[str, float],
        exposure_us: int,
        gain: float,
        timestamp_ns: int,
    ) -> None:
        self._board, self._optics, self._scene, self._levels = board, optics, scene, levels
        self.exposure_us, self.gain, self.timestamp_ns = exposure_us, gain, timestamp_ns

    def counts(self) -> np.ndarray:
        """H×W×3 RGB uint16 linear counts, with the sensor's black in them."""
        camera = self._board.camera
        sensor = Sensor(camera.bits, camera.black_level)
        rng = np.random.default_rng(self.timestamp_ns)
        positions = {n: light.position_mm for n, light in self._board.lights.items() if light.position_mm}
        counts = np.empty((self._scene.height, self._scene.width, 3), np.uint16)
        ambient = AMBIENT * self._counts_per_reflectance("white")
        for rows, parts in self._scene.strips(self._levels, positions):
            light = np.full(counts[rows].shape, ambient, np.float32)
            for name, reflectance in parts.items():
                if not self._scene.in_sensor_colours:
                    reflectance = self._optics.in_sensor_colours(name, reflectance)
                reflectance *= np.float32(self._counts_per_reflectance(name))
                self._optics.dim(name, reflectance, rows, self._scene.height)
                light += reflectance
            counts[rows] = sensor.read(light, self.gain, rng)
        return counts

    def _counts_per_reflectance(self, name: str) -> float:
        """Counts above black of a white diffuser under this light at full level, as exposed now."""
        light = self._board.lights[name]
        return light.white_counts * (self.exposure_us / light.exposure_us) * (self.gain / light.gain)


class SimulatedCamera:
    """A camera whose frames begin on a fixed beat. `page` is the pin page of the light daemon.

    `freezes_after` exposures it stops answering, as real ones do; `close` wakes it up.
    """

    name = "simulated"

    def __init__(self, board: Board, patient: Patient | Target, page: Path) -> None:
        self._board, self._patient = board, patient
        self._optics = Optics(board)
        self._reader = light_reader(board, page)
        self._born_ns = time.monotonic_ns()
        self._left = board.simulation.camera_freezes_after
        self._closed = threading.Event()

    def expose(self, mode: str, exposure_us: int, gain: float, after_ns: int) -> SimulatedExposure:
        """The first whole exposure that begins at `after_ns` (monotonic) or later; `mode` is "still" or
        "preview". Returns when the shutter has closed. Raises OSError.
        """
        if self._left is not None:
            if self._left == 0:
                self._closed.wait()
            else:
                self._left -= 1
        fps = (self._board.camera.still if mode == "still" else self._board.camera.preview).fps
        period_ns = max(int(1e9 / fps), exposure_us * 1000)
        earliest = max(after_ns, time.monotonic_ns())
        beats = -(-(earliest - self._born_ns) // period_ns)
        begin_ns = self._born_ns + beats * period_ns
        end_ns = begin_ns + exposure_us * 1000
        if self._closed.wait(max(0.0, (end_ns - time.monotonic_ns()) / 1e9)):
            raise OSError("the camera was closed")
        levels = {name: level for name, level in self._reader.levels(begin_ns, end_ns).items() if level > 0}
        scene = self._patient.still if mode == "still" else self._patient.preview
        return SimulatedExposure(self._board, self._optics, scene, levels, exposure_us, gain, begin_ns)

    def close(self) -> None:
        self._closed.set()
        self._reader.close()
