"""A small Picamera2: the calls that our driver makes, with the manners of the real one.

Frames come on a beat, whether anyone wants them or not, out of a few buffers: who keeps them gets no more.
New controls work some frames later. `SensorTimestamp` is when the readout begins. A job that nobody waits for
any more takes the next frame, unless it is cancelled. What the real class raises, it raises: RuntimeError for
no camera, one in use, a failing one, or a control that there is not; TimeoutError for a wait that ran out.
`make picamera` runs the driver on the real one.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

LATENCY_FRAMES = 3


class FakeRequest:
    def __init__(self, camera, metadata, value) -> None:
        self._camera, self._metadata, self._value = camera, metadata, value
        self._held = True

    def get_metadata(self) -> dict[str, Any]:
        return dict(self._metadata)

    def make_array(self, name) -> npt.NDArray[np.uint8]:
        assert self._held and name == "raw"
        width, height = self._camera.camera_configuration()["raw"]["size"]
        stride = (2 * width + 31) // 32 * 32
        raw = np.zeros((height, stride // 2), np.uint16)
        red, green, blue = self._value
        raw[:, :width][0::2, 0::2] = blue
        raw[:, :width][0::2, 1::2] = raw[:, :width][1::2, 0::2] = green
        raw[:, :width][1::2, 1::2] = red
        return raw.view(np.uint8)

    def release(self) -> None:
        assert self._held
        self._held = False
        self._camera.free += 1


class FakeJob:
    def __init__(self, flush) -> None:
        self.flush, self.cancelled = flush, False


class FakePicamera2:
    """`scene(begin_ns, exposure_us)` gives the (red, green, blue) that a frame shows."""

    def __init__(self, number, module) -> None:
        if number >= module.cameras:
            raise RuntimeError(f"No camera number {number} found")
        if module.fails == "open":
            raise RuntimeError("Camera __init__ sequence did not complete.") from RuntimeError(
                "Failed to acquire camera: Device or resource busy"
            )
        self.module, self.sensor_format = module, module.sensor_format
        self.free, self.controls_set, self.closed, self.configurations = 0, [], False, []
        self._jobs = []
        module.opened.append(self)

    def create_still_configuration(self, main, raw, buffer_count, queue, controls) -> dict[str, Any]:
        return {
            "main": main,
            "raw": dict(raw),
            "buffer_count": buffer_count,
            "controls": controls,
            "queue": queue,
        }

    def configure(self, configuration) -> None:
        self.configurations.append(configuration)
        self._check(configuration["controls"])
        if self.module.gives_format == "none":
            configuration["raw"] = None
        else:
            configuration["raw"]["size"] = self.module.gives_size or configuration["raw"]["size"]
            configuration["raw"]["format"] = self.module.gives_format or configuration["raw"]["format"]
        self._configuration, self.free = configuration, configuration["buffer_count"]

    def camera_configuration(self) -> dict[str, Any]:
        return self._configuration

    def start(self) -> None:
        if self.module.fails == "start":
            raise RuntimeError("Failed to start camera: Device or resource busy")
        controls = self._configuration["controls"]
        self._period_ns = controls["FrameDurationLimits"][0] * 1000
        self._begun_ns = time.monotonic_ns()
        self._changes = [
            (0, {"ExposureTime": controls["ExposureTime"], "AnalogueGain": controls["AnalogueGain"]})
        ]

    def _check(self, controls) -> None:
        if self.module.lacks in controls:
            raise RuntimeError(f"Control {self.module.lacks} is not advertised by libcamera")

    def set_controls(self, controls) -> None:
        self._check(controls)
        self.controls_set.append(controls)
        frame = (time.monotonic_ns() - self._begun_ns) // self._period_ns
        self._changes.append((frame + LATENCY_FRAMES, dict(controls)))

    def capture_request(self, wait=None, flush=None) -> FakeJob:
        assert wait is False
        self._jobs.append(FakeJob(flush))
        return self._jobs[-1]

    def cancel_all_and_flush(self) -> None:
        for job in self._jobs:
            job.cancelled = True
        self._jobs = []

    def wait(self, job, timeout) -> FakeRequest:
        if job.cancelled:
            raise CancelledError
        if self.module.fails is None:
            # Whoever asked before and went away gets its frame first, and keeps it.
            self.free -= self._jobs.index(job)
            self._jobs = [job]
        request = self._capture(timeout, job.flush)
        self._jobs.remove(job)
        return request

    def _capture(self, wait, flush) -> FakeRequest:
        end_ns = time.monotonic_ns() + int(wait * 1e9)
        if self.module.fails == "freeze" or self.free == 0:
            time.sleep(wait)
            raise TimeoutError
        if self.module.fails == "unplug":
            raise RuntimeError("Camera frontend has timed out")
        self.free -= 1
        frame = (time.monotonic_ns() - self._begun_ns) // self._period_ns
        while True:
            frame += 1
            arrives_ns = self._begun_ns + frame * self._period_ns
            if arrives_ns > end_ns:
                self.free += 1
                time.sleep(max(0.0, (end_ns - time.monotonic_ns()) / 1e9))
                raise TimeoutError
            time.sleep(max(0.0, (arrives_ns - time.monotonic_ns()) / 1e9))
            used = [settings for since, settings in self._changes if since <= frame][-1]
            stamp_ns = arrives_ns - self._period_ns // 2
            begin_ns = stamp_ns - 1000 * used["ExposureTime"]
            if flush and begin_ns < flush:
                continue
            metadata = {
                "SensorTimestamp": stamp_ns,
                "ExposureTime": used["ExposureTime"] - 7,
                "AnalogueGain": used["AnalogueGain"] * 1.004,
            }
            metadata.pop(self.module.unsaid, None)
            return FakeRequest(self, metadata, self.module.scene(begin_ns, used["ExposureTime"]))

    def close(self) -> None:
        self.closed = True
        if self.module.fails == "close":
            raise RuntimeError("Unable to stop preview.")


def fake_module(cameras=1) -> SimpleNamespace:
    """What `import picamera2` gives, and what happens in it."""
    module = SimpleNamespace(
        cameras=cameras,
        sensor_format="SBGGR12_CSI2P",
        gives_format=None,
        gives_size=None,
        lacks=None,
        unsaid=None,
        fails=None,
        opened=[],
        scene=lambda begin_ns, exposure_us: (1000, 800, 600),
    )
    module.Picamera2 = lambda number=0: FakePicamera2(number, module)
    return module
