"""The simulated camera: it sees the simulated patient in the light of the pins, and nothing else."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import numpy as np

from hardware.arrays import UInt16Array
from hardware.board import Board
from hardware.simulated.optics import Optics
from hardware.simulated.patient import Patient
from hardware.simulated.pose import View
from hardware.simulated.scene import AMBIENT, ROOM
from hardware.simulated.senses import light_reader
from hardware.simulated.sensor import ImageSensor
from hardware.simulated.shroud import SimulatedShroud
from hardware.simulated.targets import Target


class SimulatedExposure:
    """One exposure, done: what was lit meanwhile is known, the counts are worked out when asked for."""

    def __init__(
        self,
        board: Board,
        optics: Optics,
        view: View,
        levels: dict[str, float],
        exposure_us: int,
        gain: float,
        timestamp_ns: int,
        ambient: float = AMBIENT,
    ) -> None:
        self._board, self._optics, self._view, self._levels = board, optics, view, levels
        self._ambient = ambient
        self.exposure_us, self.gain, self.timestamp_ns = exposure_us, gain, timestamp_ns

    @property
    def end_ns(self) -> int:
        """All rows are exposed at once."""
        return self.timestamp_ns + self.exposure_us * 1000

    def counts(self) -> UInt16Array:
        """H×W×3 RGB uint16 linear counts, with the sensor's black in them."""
        camera = self._board.camera
        sensor = ImageSensor(camera.bits, camera.black_level)
        rng = np.random.default_rng(self.timestamp_ns)
        positions = {n: light.position_mm for n, light in self._board.lights.items() if light.position_mm}
        scene = self._view.scene
        counts = np.empty((scene.height, scene.width, 3), np.uint16)
        ambient = self._ambient * self._counts_per_reflectance("white")
        for rows, parts in scene.strips(self._levels, positions, self._view.eyes_closed):
            light = np.full(counts[rows].shape, ambient, np.float32)
            for name, reflectance in parts.items():
                if not scene.in_sensor_colours:
                    reflectance = self._optics.in_sensor_colours(name, reflectance)
                reflectance *= np.float32(self._counts_per_reflectance(name))
                self._optics.dim(name, reflectance, rows, scene.height)
                light += reflectance
            light = self._view.moved(light)
            counts[rows] = sensor.read(light, self.gain, rng)
        return counts

    def _counts_per_reflectance(self, name: str) -> float:
        """Counts above black of a white diffuser under this light at full level, as exposed now."""
        light = self._board.lights[name]
        return light.white_counts * (self.exposure_us / light.exposure_us) * (self.gain / light.gain)


class SimulatedCamera:
    """A camera whose frames begin on a fixed beat. `page` is the pin page of the light daemon.

    What its board's simulation says goes wrong with it does; `close` wakes it up when it hangs.
    """

    name = "simulated"

    def __init__(self, board: Board, patient: Patient | Target, page: Path) -> None:
        self._board, self._patient = board, patient
        self._faults = board.simulation
        self._optics = Optics(board)
        self._reader = light_reader(board, page)
        self._shroud = SimulatedShroud(board, self._reader)
        self._born_ns = time.monotonic_ns()
        self._exposures = 0
        self._frames = 0
        self._controls: tuple[str, int, float] | None = None
        self._closed = threading.Event()

    def prepare(self, mode: str, exposure_us: int, gain: float) -> None:
        """Make the next exposures so; returns once the camera does. Raises OSError."""
        if self._controls is not None and self._controls != (mode, exposure_us, gain):
            self._wait(self._faults.camera_control_frames * self._period_ns(mode, exposure_us) / 1e9)
        self._controls = (mode, exposure_us, gain)

    def expose(self, mode: str, exposure_us: int, gain: float, after_ns: int) -> SimulatedExposure:
        """The first whole exposure that begins at `after_ns` (monotonic) or later; `mode` is "still" or
        "preview". Returns when the picture has been read out. Raises OSError.
        """
        number = self._exposures
        self._exposures += 1
        self._fail(number)
        self.prepare(mode, exposure_us, gain)
        period_ns = self._period_ns(mode, exposure_us)
        # One that is under way will do, if it began late enough: its picture has not been read out yet.
        earliest = max(after_ns, time.monotonic_ns() - exposure_us * 1000)
        beats = -(-(earliest - self._born_ns) // period_ns)
        self._frames += 1
        every = self._faults.camera_drops_every
        if every is not None and self._frames % every == 0:
            beats += 1
        begin_ns = self._born_ns + beats * period_ns
        end_ns = begin_ns + exposure_us * 1000
        read_ns = end_ns + round(self._faults.camera_readout_ms * 1e6)
        self._wait((read_ns - time.monotonic_ns()) / 1e9)
        levels = {name: level for name, level in self._reader.levels(begin_ns, end_ns).items() if level > 0}
        view = self._view(mode, number)
        ambient = AMBIENT if any(self._shroud.closed((begin_ns + end_ns) // 2)) else ROOM
        return SimulatedExposure(
            self._board, self._optics, view, levels, exposure_us, gain, begin_ns, ambient
        )

    def _view(self, mode: str, number: int) -> View:
        if isinstance(self._patient, Target):
            return View(self._patient.still if mode == "still" else self._patient.preview)
        return self._patient.view(mode, number, self._faults)

    def tell(self, instruction: str) -> None:
        """The patient hears "close_eyes" or "open_eyes"; a target hears nothing."""
        if isinstance(self._patient, Patient) and not self._faults.patient_keeps_eyes_open:
            self._patient.eyes_closed = instruction == "close_eyes"

    def close(self) -> None:
        self._closed.set()
        self._reader.close()

    def _period_ns(self, mode: str, exposure_us: int) -> int:
        fps = (self._board.camera.still if mode == "still" else self._board.camera.preview).fps
        return max(int(1e9 / fps), exposure_us * 1000)

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(max(0.0, seconds)):
            raise OSError("the camera was closed")

    def _fail(self, number: int) -> None:
        faults, at = self._faults, self._faults.camera_fault_at
        frozen = faults.camera_freezes_after is not None and number >= faults.camera_freezes_after
        if frozen or (faults.camera_fault == "hangs" and number >= at):
            self._closed.wait()
        if faults.camera_fault == "raises" and number == at:
            raise OSError(errno.EIO, "the camera gave an error")
        if faults.camera_fault == "disconnects" and number >= at:
            raise OSError(errno.ENODEV, "the camera is not there any more")
