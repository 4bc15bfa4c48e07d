"""A capture folder: a Capture as capture.json and one picture a light, which anyone can make."""

from __future__ import annotations

import json
import re
import zlib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from hardware.capture import CLOSE_UP, Capture, CaptureError, Frame, Spot, in_utc
from hardware.picture_colours import Colour
from hardware.picture_file import PictureError, picture_file_size, read_picture_file
from hardware.picture_file.regular_file import read_regular_file
from hardware.picture_file.unreadable import Unreadable

MAX_FRAMES = 32
MAX_INDEX_BYTES = 1_000_000
# Of all frames together: 1.5 GB at 16 bits, and twice what nine frames of a kiosk have.
MAX_CAPTURE_PIXELS = 256_000_000
# What Findings can say of a Capture (sync/wire/findings), which knows as much of it.
MAX_CALIBRATION, MAX_CLOSE_UPS, CLOSE_UP_NAME = 128, 16, r"closeup[0-9]{0,2}"
# A flag names a light that is missing: no_…_frame.
MAX_LIGHT = 64 - len("no__frame")
_PRINTED = r"^\P{C}*$"
# PNG's chunks for BT.709's primaries and white with linear light, and where they go.
_LINEAR_BT709, _GAMMA_1, _AFTER_IHDR = bytes((1, 8, 0, 1)), (100_000).to_bytes(4, "big"), 33


def write_capture_folder(capture: Capture, folder: Path) -> None:
    """Write `capture.json` and one PNG per light into `folder` (made if missing). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for frame in capture.frames:
        name = f"{frame.light}.png"
        (folder / name).write_bytes(_png(frame))
        entries.append(frame.header() | {"file": name})
    text = json.dumps(capture.header() | {"frames": entries}, indent=2)
    (folder / "capture.json").write_text(text + "\n", encoding="utf-8")


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


def _is_text(said: object) -> object:
    """`said`, if it is a date and time as ISO 8601 writes them: a bare number is some unit's."""
    if isinstance(said, str) and re.match(r"\d{4}-\d\d-\d\d[T ]", said):
        return said
    raise ValueError("should be a text as 2026-03-28T23:30:00+01:00")


_Light = Annotated[str, Field(min_length=1, max_length=MAX_LIGHT, pattern=_PRINTED)]
_LIGHT = TypeAdapter(_Light)
_Moment = Annotated[datetime, Field(strict=False), BeforeValidator(_is_text), AfterValidator(in_utc)]


class _Strict(BaseModel):
    """Keys that are not named here are left alone: a folder may say more than is read from it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Entry(_Strict):
    """One frame in capture.json; without "light" it is named by its file."""

    file: Annotated[str, Field(min_length=1, max_length=200)]
    light: _Light | None = None
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

    @model_validator(mode="after")
    def _names_a_light(self) -> _Entry:
        try:
            _LIGHT.validate_python(self.name)
        except ValidationError:
            raise ValueError(
                f'has a file that cannot name a light: give it a "light" of at most {MAX_LIGHT} printed signs'
            ) from None
        return self

    @property
    def name(self) -> str:
        """The light's name."""
        return self.light or Path(self.file).stem


class _Index(_Strict):
    """capture.json. `captured_at` is an ISO 8601 text with its time zone, of the years 1970 to 2199."""

    board: Annotated[str, Field(max_length=200)] = "unknown"
    calibration: Annotated[str, Field(max_length=MAX_CALIBRATION, pattern=_PRINTED)] | None = None
    mm_per_px: Annotated[float, Field(ge=0.001, le=10, allow_inf_nan=False)] | None = None
    simulated: bool = False
    missing: Annotated[dict[_Light, str], Field(max_length=MAX_FRAMES)] = {}
    spots: Annotated[dict[_Light, Spot], Field(max_length=MAX_FRAMES)] = {}
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

    @model_validator(mode="after")
    def _few_close_ups(self) -> _Index:
        every = {*self.spots, *self.missing, *(frame.name for frame in self.frames)}
        names = {name for name in every if name.startswith(CLOSE_UP)}
        strange = next((name for name in sorted(names) if not re.fullmatch(CLOSE_UP_NAME, name)), None)
        if strange is not None:
            raise ValueError(f"names a close-up {strange!r}: name them closeup0, closeup1, … closeup99")
        if len(names) > MAX_CLOSE_UPS:
            raise ValueError(f"has {len(names)} close-ups, of which {MAX_CLOSE_UPS} are read: leave some out")
        return self


def read_capture_folder(folder: Path, colour: Colour = "auto") -> Capture:
    """The Capture stored in `folder`. Raises CaptureError with the file and the reason.

    With "auto" capture.json says what is linear light and what is raw; of the others their own profiles and
    tags do, else they are sRGB. Any other `colour` is said of all frames in its stead.
    """
    index = _read_index(folder)
    _require_room(folder, index)
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
        why = "it is longer than a million bytes" if error.code == "too_big" else "it is not a regular file"
        raise CaptureError(f"{path} is not a capture index: {why}.") from error
    try:
        return _Index.model_validate_json(text)
    except ValidationError as error:
        raise CaptureError(f"{path} is not a capture index: {_problem(error.errors()[0])}.") from error


def _problem(item: Any) -> str:
    """One wrong key with the reason, as the end of a sentence."""
    key = " ".join(".".join(str(part) for part in item["loc"]).split()) or "it"
    message = str(item["msg"])
    if item["type"] == "json_invalid":
        return f"it is no JSON ({item['ctx']['error']})"
    if item["type"] == "missing":
        return f"{key} is missing"
    if item["type"] == "model_type":
        return f"{key} should be an object"
    if item["type"] == "value_error":
        return f"{key} {message.removeprefix('Value error, ')}"
    return f"{key}: {message[0].lower()}{message[1:]}"


def _require_room(folder: Path, index: _Index) -> None:
    """Raises CaptureError where the frames, all of which are held at once, are too many pixels together."""
    pixels = 0
    for entry in index.frames:
        try:
            height, width = picture_file_size(_path(folder, entry))
        except PictureError as error:
            raise CaptureError(str(error)) from error
        pixels += height * width
    if pixels > MAX_CAPTURE_PIXELS:
        raise CaptureError(
            f"The frames of {folder} have {pixels / 1e6:.0f} million pixels together, and"
            f" {MAX_CAPTURE_PIXELS / 1e6:.0f} million can be read: make them smaller, or leave some out."
        )


def _path(folder: Path, entry: _Entry) -> Path:
    path = folder / entry.file
    if not path.is_file():
        raise CaptureError(f"{path} is missing or is not a file; capture.json names it.")
    return path


def _read_frame(folder: Path, entry: _Entry, colour: Colour) -> Frame:
    said = colour
    if colour == "auto" and entry.colour != "srgb":
        # Numbers of the camera's own, which no profile knows, are taken as they are, as linear light is.
        said = "linear-srgb"
    try:
        picture = read_picture_file(_path(folder, entry), said)
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
