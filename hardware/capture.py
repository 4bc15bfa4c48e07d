"""Frame and Capture: the pictures of one visit to the camera, with the light each was taken under."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from hardware.arrays import BoolArray, PixelArray
from hardware.host.errors import PlainError
from hardware.picture_colours import Colour
from hardware.picture_file import PictureError, read_picture_file
from hardware.picture_file.regular_file import read_regular_file
from hardware.picture_file.unreadable import Unreadable

MAX_FRAMES = 32
MAX_INDEX_BYTES = 1_000_000
# A close-up of a marked spot has a light of its own: its frame is named closeup0, closeup1, …
CLOSE_UP = "closeup"
MAX_SPOTS = 3
# No clock says more: as a message to the clinic has it (sync/wire/bounds.py). What lies beyond is no moment.
FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=timezone.utc)
END_OF_MOMENTS = datetime(2200, 1, 1, tzinfo=timezone.utc)
_MAGIC = b"DKCAP1\n"
# PNG's chunks for BT.709's primaries and white with linear light, and where they go.
_LINEAR_BT709, _GAMMA_1, _AFTER_IHDR = bytes((1, 8, 0, 1)), (100_000).to_bytes(4, "big"), 33


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
    mm_per_px: Annotated[float, Field(gt=0, le=10)] | None = None
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


def _is_text(said: object) -> object:
    """`said`, if it is a date and time as ISO 8601 writes them: a bare number is some unit's."""
    if isinstance(said, str) and re.match(r"\d{4}-\d\d-\d\d[T ]", said):
        return said
    raise ValueError("should be a text as 2026-03-28T23:30:00+01:00")


def write_capture_folder(capture: Capture, folder: Path) -> None:
    """Write `capture.json` and one PNG per light into `folder` (made if missing). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for frame in capture.frames:
        name = f"{frame.light}.png"
        (folder / name).write_bytes(_png(frame))
        entries.append(frame.header() | {"file": name})
    text = json.dumps(capture.header() | {"frames": entries}, indent=2)
    (folder / "capture.json").write_text(text + "\n")


def _png(frame: Frame) -> bytes:
    """The frame as a PNG that says itself if it is linear light, so that no viewer takes it for sRGB."""
    made, encoded = cv2.imencode(".png", cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR))
    if not made:
        raise OSError(f"The {frame.light} frame could not be written.")
    data = bytes(encoded)
    if frame.colour != "linear-srgb":
        return data
    return (
        data[:_AFTER_IHDR] + _chunk(b"cICP", _LINEAR_BT709) + _chunk(b"gAMA", _GAMMA_1) + data[_AFTER_IHDR:]
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


_Moment = Annotated[datetime, Field(strict=False), BeforeValidator(_is_text), AfterValidator(in_utc)]


class _Strict(BaseModel):
    """Keys that are not named here are left alone: a folder may say more than is read from it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Entry(_Strict):
    """One frame in capture.json; without "light" it is named by its file."""

    file: Annotated[str, Field(min_length=1, max_length=200)]
    light: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    exposure_us: Annotated[int, Field(ge=0, lt=2**63)] = 0
    gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    timestamp_ns: Annotated[int, Field(ge=0, lt=2**63)] = 0
    colour: Literal["raw", "linear-srgb", "srgb"] = "srgb"

    @field_validator("file")
    @classmethod
    def _plain(cls, name: str) -> str:
        if name in (".", "..") or any(sign in name for sign in "/\\\0"):
            raise ValueError("must be the plain name of a file in the folder")
        return name

    @property
    def name(self) -> str:
        """The light's name."""
        return self.light or Path(self.file).stem


class _Index(_Strict):
    """capture.json. `captured_at` is an ISO 8601 text with its time zone, of the years 1970 to 2199."""

    board: Annotated[str, Field(max_length=200)] = "unknown"
    calibration: Annotated[str, Field(max_length=200)] | None = None
    mm_per_px: Annotated[float, Field(ge=0.001, le=10, allow_inf_nan=False)] | None = None
    simulated: bool = False
    missing: dict[str, str] = {}
    spots: dict[str, Spot] = {}
    captured_at: _Moment | None = None
    frames: Annotated[list[_Entry], Field(max_length=MAX_FRAMES)]

    @field_validator("frames")
    @classmethod
    def _once(cls, frames: list[_Entry]) -> list[_Entry]:
        names = [frame.name for frame in frames]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"name the light {twice!r} twice")
        return frames


def read_capture_folder(folder: Path, colour: Colour = "auto") -> Capture:
    """The Capture stored in `folder`. Raises CaptureError with the file and the reason.

    With "auto" capture.json says what is linear light and what is raw; of the others their own profiles and
    tags do, else they are sRGB. Any other `colour` is said of all frames in its stead.
    """
    index = _read_index(folder)
    return Capture(
        board=index.board,
        frames=tuple(_read_frame(folder, entry, colour) for entry in index.frames),
        calibration=index.calibration,
        mm_per_px=index.mm_per_px,
        simulated=index.simulated,
        missing=index.missing,
        spots=index.spots,
        captured_at=index.captured_at,
    )


def _read_index(folder: Path) -> _Index:
    path = folder / "capture.json"
    try:
        text = read_regular_file(path, MAX_INDEX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CaptureError(f"{folder} has no capture.json: name a capture folder.") from error
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise CaptureError(f"{path} cannot be read: {reason}.") from error
    except Unreadable as error:
        why = "it is longer than a million bytes" if error.reason == "too_big" else "it is not a regular file"
        raise CaptureError(f"{path} is not a capture index: {why}.") from error
    try:
        return _Index.model_validate_json(text)
    except ValidationError as error:
        raise CaptureError(f"{path} is not a capture index: {_problem(error.errors()[0])}.") from error


def _problem(item: Any) -> str:
    """One wrong key with the reason, as the end of a sentence."""
    key = " ".join(".".join(str(part) for part in item["loc"]).split()) or "it"
    message = str(item["msg"])
    if item["type"] == "missing":
        return f"{key} is missing"
    if item["type"] == "model_type":
        return f"{key} should be an object"
    if item["type"] == "value_error":
        return f"{key} {message.removeprefix('Value error, ')}"
    return f"{key}: {message[0].lower()}{message[1:]}"


def _read_frame(folder: Path, entry: _Entry, colour: Colour) -> Frame:
    path = folder / entry.file
    if not path.is_file():
        raise CaptureError(f"{path} is missing or is not a file; capture.json names it.")
    said = colour
    if colour == "auto" and entry.colour != "srgb":
        # Numbers of the camera's own, which no profile knows, are taken as they are, as linear light is.
        said = "linear-srgb"
    try:
        picture = read_picture_file(path, said)
    except PictureError as error:
        raise CaptureError(str(error)) from error
    meaning = "raw" if colour == "auto" and entry.colour == "raw" else picture.colour
    return Frame(
        entry.name,
        picture.pixels,
        entry.exposure_us,
        entry.gain,
        entry.timestamp_ns,
        meaning,
        picture.shown,
    )
