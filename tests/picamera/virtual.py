"""Virtual: the real Picamera2, on libcamera's virtual camera, which is no Raspberry Pi's.

Where the two differ from a Pi's camera, and only there, something is put in its place:

- the virtual camera gives NV12 only, no raw frames: its luma is handed out as 12-bit Bayer words, in rows
  padded as on a Pi;
- NV12 has two planes: each buffer of Picamera2's own allocator is split in two;
- it has no exposure time, gain or white balance: these are advertised, set by Picamera2's own code, and
  dropped by libcamera with an error in its log. A frame says what was asked for when it arrived;
- its frames come as fast as the processor draws them, whatever duration was set;
- there is no DMA heap: `dmaheap.c` answers for one, with plain memory.

Loop, jobs, requests, buffers, start, stop and errors are Picamera2's and libcamera's own.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def _stub(name: str, **contents: Any) -> None:
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)


class _AnyFormat:
    def __getattr__(self, name: str) -> str:
        return name


# A display, and DNG files: imported by Picamera2, used by nothing of ours.
_stub("pykms", PixelFormat=_AnyFormat())
_stub("pidng")
_stub("pidng.camdefs", Picamera2Camera=None)
_stub("pidng.core", PICAM2DNG=None)

import libcamera  # noqa: E402
import picamera2.picamera2  # noqa: E402
from picamera2 import CompletedRequest, Picamera2  # noqa: E402
from picamera2.allocators import DmaAllocator  # noqa: E402

RAW_FORMAT, LUMA_TO_COUNTS, ROW_BYTES = "SBGGR12", 4, 64
_LENT = {
    control.name: (control, SimpleNamespace(min=0, max=0, default=0))
    for control in (
        libcamera.controls.AeEnable,
        libcamera.controls.AwbEnable,
        libcamera.controls.ColourGains,
        libcamera.controls.ExposureTime,
        libcamera.controls.AnalogueGain,
        libcamera.controls.draft.NoiseReductionMode,
    )
}
LENT = tuple(_LENT)


class _TwoPlanes(DmaAllocator):
    """Picamera2's allocator, with the second plane that NV12 has."""

    def allocate(self, libcamera_config: Any, use_case: Any) -> None:
        super().allocate(libcamera_config, use_case)
        for config in libcamera_config:
            luma = config.stride * config.size.height
            self.frame_buffers[config.stream] = [
                self._split(buffer, luma) for buffer in self.frame_buffers[config.stream]
            ]

    def _split(self, buffer: Any, luma: int) -> Any:
        (first,) = buffer.planes
        second = libcamera.FrameBuffer.Plane()
        second.fd, second.offset, second.length = first.fd, luma, first.length - luma
        first.length = luma
        split = libcamera.FrameBuffer([first, second])
        self.mapped_buffers[split] = self.mapped_buffers.pop(buffer)
        return split


class _Request(CompletedRequest):
    """One frame: with the settings in force, and with its luma as Bayer words."""

    def __init__(self, request: Any, picam2: Any) -> None:
        super().__init__(request, picam2)
        self._settings = dict(picam2.settings)

    def get_metadata(self) -> dict[str, Any]:
        return {**super().get_metadata(), **self._settings}

    def make_array(self, name: str) -> Any:
        if name != "raw":
            return super().make_array(name)
        raw = self.picam2.camera_configuration()["raw"]
        width, height = raw["size"]
        words = np.zeros((height, raw["stride"] // 2), np.uint16)
        words[:, :width] = super().make_array("main")[:height]
        words[:, :width] <<= LUMA_TO_COUNTS
        return words.view(np.uint8)


picamera2.picamera2.CompletedRequest = _Request


class VirtualPicamera2(Picamera2):
    """The real class; `lacking` names a control that is not lent, or "raw", or a field of the metadata."""

    lacking: str | None = None

    def __init__(self, number: int = 0) -> None:
        self.settings: dict[str, Any] = {}
        super().__init__(number, allocator=_TwoPlanes())

    @property
    def camera_ctrl_info(self) -> dict[str, Any]:
        return self._info

    @camera_ctrl_info.setter
    def camera_ctrl_info(self, info: dict[str, Any]) -> None:
        self._info = {name: lent for name, lent in _LENT.items() if name != self.lacking} | info

    def _get_raw_modes(self) -> list[dict[str, Any]]:
        # libcamera's own answer is None: the virtual camera has no raw stream.
        (area,) = self.camera_properties_["PixelArrayActiveAreas"]
        return [{"format": f"{RAW_FORMAT}_CSI2P", "size": tuple(area[2:])}]

    def create_still_configuration(self, main: Any = (), raw: Any = (), **rest: Any) -> dict[str, Any]:
        """The driver's, with the raw stream's size for the only stream there is."""
        if raw:
            assert raw["format"] == RAW_FORMAT
            main = {"size": raw["size"], "format": "NV12"}
        return super().create_still_configuration(main=dict(main), **rest)

    def configure(self, camera_config: Any = None) -> None:
        super().configure(camera_config)
        self.settings = self._reported(camera_config["controls"])

    def set_controls(self, controls: Any) -> None:
        super().set_controls(controls)
        self.settings |= self._reported(controls)

    def camera_configuration(self) -> dict[str, Any]:
        config = super().camera_configuration()
        if not config or self.lacking == "raw":
            return config
        width, height = config["main"]["size"]
        stride = (2 * width + ROW_BYTES - 1) // ROW_BYTES * ROW_BYTES
        return {**config, "raw": {"format": RAW_FORMAT, "size": (width, height), "stride": stride}}

    def _reported(self, controls: dict[str, Any]) -> dict[str, Any]:
        reported = ("ExposureTime", "AnalogueGain")
        return {name: controls[name] for name in reported if name in controls and name != self.lacking}
