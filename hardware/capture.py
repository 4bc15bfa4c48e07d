"""Frame and Capture: the pictures of one visit to the camera, with the light each was taken under."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

COLOURS = ("raw", "linear-srgb", "srgb")
_MAGIC = b"DKCAP1\n"


class CaptureError(ValueError):
    """A capture folder or a Capture in memory that cannot be read; the message says which part and why."""

    exit_status = 2


@dataclass(frozen=True)
class Frame:
    """One picture with the light it was taken under.

    `pixels` is H×W×3 RGB, uint16 (65,535 = reflectance 1.0 where `colour` is "linear-srgb") or uint8.
    `timestamp_ns` is the sensor's start of exposure on the monotonic clock.
    """

    light: str
    pixels: np.ndarray
    exposure_us: int
    gain: float
    timestamp_ns: int
    colour: str = "linear-srgb"

    def header(self) -> dict[str, Any]:
        return {
            "light": self.light,
            "exposure_us": self.exposure_us,
            "gain": self.gain,
            "timestamp_ns": self.timestamp_ns,
            "colour": self.colour,
        }


@dataclass(frozen=True)
class Capture:
    """The frames of one visit to the camera, plus the id of the calibration that was applied to them.

    `missing` names the lights of the sequence that gave no frame, each with the reason.
    """

    board: str
    frames: tuple[Frame, ...]
    calibration: str | None = None
    mm_per_px: float | None = None
    simulated: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)

    def frame(self, light: str) -> Frame | None:
        """The frame taken under `light`, or None."""
        return next((f for f in self.frames if f.light == light), None)

    def joined(self, later: Capture) -> Capture:
        """This Capture with the frames of a later phase of the same visit; what that gave is not missing."""
        missing = {**self.missing, **later.missing}
        frames = (*self.frames, *later.frames)
        taken = {frame.light for frame in frames}
        return replace(
            self, frames=frames, missing={name: why for name, why in missing.items() if name not in taken}
        )

    def _header(self) -> dict[str, Any]:
        return {
            "board": self.board,
            "calibration": self.calibration,
            "mm_per_px": self.mm_per_px,
            "simulated": self.simulated,
            "missing": dict(self.missing),
        }

    def blocks(self) -> Iterator[bytes | memoryview]:
        """What `to_bytes` gives, block by block, without a second copy of the pixels."""
        header = self._header() | {
            "frames": [
                f.header() | {"shape": f.pixels.shape, "dtype": f.pixels.dtype.name} for f in self.frames
            ]
        }
        text = json.dumps(header).encode()
        yield _MAGIC + len(text).to_bytes(4, "big") + text
        for frame in self.frames:
            yield np.ascontiguousarray(frame.pixels).data.cast("B")

    def to_bytes(self) -> bytes:
        """The blocks as one piece."""
        return b"".join(self.blocks())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Capture:
        """The Capture in `data`; the pixels are views into it, not copies. Raises CaptureError."""
        view = memoryview(data)
        start = len(_MAGIC) + 4
        if bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise CaptureError("This is not a Capture: its first bytes are wrong.")
        offset = start + int.from_bytes(view[len(_MAGIC) : start], "big")
        try:
            header = json.loads(bytes(view[start:offset]))
            frames = []
            for item in header.pop("frames"):
                shape, dtype = tuple(item.pop("shape")), np.dtype(item.pop("dtype"))
                size = int(np.prod(shape)) * dtype.itemsize
                pixels = np.frombuffer(view[offset : offset + size], dtype).reshape(shape)
                frames.append(Frame(pixels=pixels, **item))
                offset += size
            return cls(frames=tuple(frames), **header)
        except (ValueError, KeyError, TypeError) as error:
            raise CaptureError(f"This Capture in memory is damaged: {error}.") from error


def write_capture_folder(capture: Capture, folder: Path) -> None:
    """Write `capture.json` and one PNG per light into `folder` (made if missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for frame in capture.frames:
        name = f"{frame.light}.png"
        if not cv2.imwrite(str(folder / name), cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{folder / name} could not be written.")
        entries.append(frame.header() | {"file": name})
    text = json.dumps(capture._header() | {"frames": entries}, indent=2)
    (folder / "capture.json").write_text(text + "\n")


def read_capture_folder(folder: Path) -> Capture:
    """The Capture stored in `folder`. Raises CaptureError with the file and the reason."""
    index = folder / "capture.json"
    try:
        header = json.loads(index.read_text())
        entries = header.pop("frames")
    except FileNotFoundError as error:
        raise CaptureError(f"{folder} has no capture.json: name a capture folder.") from error
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise CaptureError(f"{index} is not a capture index: {error}.") from error
    frames = []
    for entry in entries:
        path = folder / Path(str(entry.get("file", ""))).name
        picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
        if picture is None:
            raise CaptureError(f"{path} is missing or is not a picture; capture.json names it.")
        colour = entry.get("colour", "srgb")
        if colour not in COLOURS:
            raise CaptureError(f"{index}: colour '{colour}' is unknown; use one of {', '.join(COLOURS)}.")
        frames.append(
            Frame(
                light=str(entry["light"]) if "light" in entry else path.stem,
                pixels=cv2.cvtColor(picture, cv2.COLOR_BGR2RGB),
                exposure_us=int(entry.get("exposure_us", 0)),
                gain=float(entry.get("gain", 1.0)),
                timestamp_ns=int(entry.get("timestamp_ns", 0)),
                colour=colour,
            )
        )
    return Capture(
        board=str(header.get("board", "unknown")),
        frames=tuple(frames),
        calibration=header.get("calibration"),
        mm_per_px=header.get("mm_per_px"),
        simulated=bool(header.get("simulated", False)),
        missing=header.get("missing", {}),
    )
