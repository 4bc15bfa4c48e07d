"""Frame and Capture: the pictures of one visit to the camera, with the light each was taken under."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hardware.arrays import BoolArray, PixelArray
from hardware.host.errors import PlainError

# A close-up of a marked spot has a light of its own: its frame is named closeup0, closeup1, …
CLOSE_UP = "closeup"
MAX_SPOTS = 3
# No clock says more: as a message to the clinic has it (sync/wire/bounds.py). What lies beyond is no moment.
FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=timezone.utc)
END_OF_MOMENTS = datetime(2200, 1, 1, tzinfo=timezone.utc)
_MAGIC = b"DKCAP1\n"


class CaptureError(PlainError, ValueError):
    """A capture folder or a Capture in memory that cannot be read; the message says which part and why."""

    exit_status = 2


@dataclass(frozen=True)
class Frame:
    """One picture with the light it was taken under.

    `pixels` is H×W×3 RGB, uint16 (65,535 = reflectance 1.0 where `colour` is "linear-srgb") or uint8.
    `timestamp_ns` is the sensor's start of exposure on the monotonic clock. `shown` (H×W bool) is false where
    a picture file was transparent; None: it was opaque everywhere, as a camera's pictures are. It does not
    travel.
    """

    light: str
    pixels: PixelArray
    exposure_us: int
    gain: float
    timestamp_ns: int
    colour: str = "linear-srgb"
    shown: BoolArray | None = None

    def header(self) -> dict[str, Any]:
        return {
            "light": self.light,
            "exposure_us": self.exposure_us,
            "gain": self.gain,
            "timestamp_ns": self.timestamp_ns,
            "colour": self.colour,
        }


class Spot(BaseModel):
    """Where on the face a close-up was taken: the zone, and the point if one was pointed at.

    `x`, `y` are canonical face-mesh coordinates. `mm_per_px` is the close-up's scale, where it is known.
    `not_taken` is why there is no picture of it, where none could be taken.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    zone: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")] = "face"
    x: Annotated[float, Field(ge=-2, le=2)] | None = None
    y: Annotated[float, Field(ge=-2, le=2)] | None = None
    mm_per_px: Annotated[float, Field(gt=0, le=1)] | None = None
    not_taken: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] | None = None


@dataclass(frozen=True)
class Capture:
    """The frames of one visit to the camera, plus the id of the calibration that was applied to them.

    `missing` names the lights of the sequence that gave no frame, "dark" among them, each with the reason:
    "room_lit" for a dark that there is none of, because the face is seen in the light of the room.
    `spots` says by the name of a close-up where it was taken, or would have been. `captured_at` is in UTC;
    None where nobody knows it.
    """

    board: str
    frames: tuple[Frame, ...]
    calibration: str | None = None
    mm_per_px: float | None = None
    simulated: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)
    spots: Mapping[str, Spot] = field(default_factory=dict)
    captured_at: datetime | None = None

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

    @property
    def close_ups(self) -> tuple[Frame, ...]:
        """The frames of marked spots, in the order in which they were marked."""
        return tuple(frame for frame in self.frames if frame.light.startswith(CLOSE_UP))

    @property
    def marked(self) -> tuple[str, ...]:
        """The names of the marked spots' close-ups, taken or not, in the order in which they were marked."""
        names = {frame.light for frame in self.close_ups}
        names |= {name for name, spot in self.spots.items() if spot.not_taken and name.startswith(CLOSE_UP)}
        return tuple(sorted(names, key=lambda name: (len(name), name)))

    def with_close_ups(self, taken: Sequence[tuple[Spot, Frame | None]]) -> Capture:
        """This Capture with close-ups, which are numbered as they come; None where none could be taken."""
        named = [(f"{CLOSE_UP}{n}", spot, frame) for n, (spot, frame) in enumerate(taken)]
        frames = tuple(replace(frame, light=name) for name, _, frame in named if frame is not None)
        spots = {name: spot for name, spot, _ in named}
        return replace(self, frames=(*self.frames, *frames), spots={**self.spots, **spots})

    def header(self) -> dict[str, Any]:
        """What is known of the frames together, as JSON has it; `known` reads it back."""
        said: dict[str, Any] = {
            "board": self.board,
            "calibration": self.calibration,
            "mm_per_px": self.mm_per_px,
            "simulated": self.simulated,
            "missing": dict(self.missing),
        }
        if self.spots:
            said["spots"] = {light: spot.model_dump() for light, spot in self.spots.items()}
        if self.captured_at is not None:
            said["captured_at"] = self.captured_at.isoformat()
        return said

    @classmethod
    def known(cls, header: Mapping[str, Any], frames: Sequence[Frame]) -> Capture:
        """The Capture of `frames` with what `header` says. Raises AttributeError, TypeError, ValueError."""
        spots = {light: Spot.model_validate(said) for light, said in header.get("spots", {}).items()}
        at = header.get("captured_at")
        moment = None if at is None else in_utc(datetime.fromisoformat(at))
        return cls(frames=tuple(frames), **{**header, "spots": spots, "captured_at": moment})

    def blocks(self) -> Iterator[bytes | memoryview]:
        """What `to_bytes` gives, block by block, without a second copy of the pixels."""
        header = self.header() | {
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
            return cls.known(header, frames)
        except (AttributeError, ArithmeticError, ValueError, KeyError, TypeError) as error:
            raise CaptureError("This Capture in memory is damaged.") from error


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC. Raises ValueError where it has no time zone, or no clock says it."""
    if moment.tzinfo is None:
        raise ValueError("should have a time zone")
    if not FIRST_MOMENT <= moment < END_OF_MOMENTS:
        raise ValueError("should be within the years 1970 to 2199")
    return moment.astimezone(timezone.utc)
