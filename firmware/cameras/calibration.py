"""Calibration: what was measured of one kiosk's cameras and lamps, applied to its counts."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import structlog

from firmware.cameras.camera import Exposure
from hardware.board import Board
from hardware.counts import rounded
from hardware.host.durable import rename, write_whole
from hardware.host.errors import PlainError
from hardware.host.folders import make_folder
from hardware.host.regular_file import FileTooBig, NoRegularFile, read_regular_file

SCHEMA = 1
VALID_FOR = timedelta(days=365)
# A map has one cell for each square of this many pixels: lens and lamps change slowly over a picture.
CELL_PX = 8
_FOLDER = "calibration"
# One that could not be read is tried again after so long.
UNREAD_S = 30.0
# A camera of 64 million pixels has maps of 12 MB a light.
_HEADER_BYTES, _MAPS_BYTES = 2**20, 2**28
# What comes of files that are not what they should be.
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    ArithmeticError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
)

Floats = npt.NDArray[np.float32]
log = structlog.get_logger()


class CalibrationError(PlainError, ValueError):
    """A calibration that cannot be used; the message says why, and what to do."""

    exit_status = 2


class CalibrationUnread(CalibrationError):
    """One that could not be read at this moment, and may be whole."""


@dataclass(frozen=True)
class Calibration:
    """One calibration of one board.

    `black` is h×w×3 counts in the dark. `gains` takes counts above black, at the board's own exposure, gain
    and full level, to reflectance in the sensor's colours: h×w×3 for the lights with a flat field, 1×1×3 for
    the others. `matrix` takes those (rows of pixels @ matrix) to linear sRGB. `lamps_mm` are the measured
    positions of the directional lights; `scores` says how good each part is. `lamp_hours` is how long each
    lamp had been lit in its life, `lamp_renewals` how often it had been renewed.
    """

    board: str
    made_at: datetime
    still: tuple[int, int]
    black: Floats
    gains: Mapping[str, Floats]
    matrix: npt.NDArray[np.float64]
    mm_per_px: float | None = None
    lamps_mm: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    lamp_hours: Mapping[str, float] = field(default_factory=dict)
    lamp_renewals: Mapping[str, int] = field(default_factory=dict)
    # Of the bytes that it was read from: another Python or numpy writes the same maps as other bytes.
    digest: str | None = None

    @property
    def id(self) -> str:
        """Names board, time and content: two calibrations with one id are the same."""
        digest = self.digest or _digest(self._maps(), self._header())
        return f"{self.board}-{self.made_at:%Y%m%dT%H%M%SZ}-{digest}"

    def apply(
        self,
        board: Board,
        light: str,
        counts: npt.NDArray[np.uint16],
        exposure: Exposure,
        level: float = 1.0,
    ) -> npt.NDArray[np.uint16]:
        """Linear sRGB, 65,535 = reflectance 1.0, of H×W×3 `counts` under `light` at `level`, at any size.

        A dark frame is scaled like one under white light; a light without a gain of its own by the board's
        nominal constant.
        """
        name = light if light in board.lights else "white"
        profile = board.lights[name]
        exposed = (exposure.exposure_us / profile.exposure_us) * (exposure.gain / profile.gain) * level
        size = counts.shape[1::-1]
        seen = counts.astype(np.float32)
        cv2.subtract(seen, cv2.resize(self.black, size), dst=seen)
        gain = self.gains.get(name, np.full((1, 1, 3), 1.0 / profile.white_counts, np.float32))
        matrix = self.matrix * (65_535.0 / exposed)
        if gain.shape[:2] == (1, 1):
            matrix = gain.reshape(3, 1) * matrix
        else:
            cv2.multiply(seen, cv2.resize(gain, size), dst=seen)
        linear = cv2.transform(seen, matrix.T)
        return np.asarray(cv2.addWeighted(linear, 1.0, linear, 0.0, 0.0, dtype=cv2.CV_16U), np.uint16)

    def contents(self) -> dict[str, bytes]:
        """What is written of it, by file name; the header names the maps' SHA-256."""
        maps = self._maps()
        header = json.loads(self._header()) | {"maps_sha256": hashlib.sha256(maps).hexdigest()}
        return {"maps.npz": maps, "calibration.json": json.dumps(header, indent=2).encode()}

    def _header(self) -> str:
        header = {
            "schema": SCHEMA,
            "board": self.board,
            "made_at": self.made_at.isoformat(),
            "still": list(self.still),
            "matrix": self.matrix.tolist(),
            "mm_per_px": self.mm_per_px,
            "lamps_mm": {name: list(at) for name, at in self.lamps_mm.items()},
            "scores": dict(self.scores),
        }
        if self.lamp_hours:
            header["lamp_hours"] = dict(self.lamp_hours)
        if self.lamp_renewals:
            header["lamp_renewals"] = dict(self.lamp_renewals)
        return json.dumps(header, indent=2, sort_keys=True)

    def _maps(self) -> bytes:
        buffer = io.BytesIO()
        maps = {f"gain-{name}": self.gains[name] for name in sorted(self.gains)}
        # To numpy 2's types one of them might be its option allow_pickle.
        np.savez(buffer, black=self.black, **maps)  # type: ignore[arg-type, unused-ignore]
        return buffer.getvalue()


def _digest(maps: bytes, header: str) -> str:
    return hashlib.sha256(maps + header.encode()).hexdigest()[:8]


def cells(picture: Floats) -> Floats:
    """A picture's (H×W×3, float32) mean over each cell of a map."""
    height, width = picture.shape[:2]
    size = (max(1, width // CELL_PX), max(1, height // CELL_PX))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def write_calibration(state: Path, calibration: Calibration) -> Path:
    """Keep `calibration` in `state`; it is there whole or not at all. Returns its folder."""
    folder = state / _FOLDER
    make_folder(folder)
    there = folder / calibration.id
    fresh = folder / f".{calibration.id}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    for name, data in calibration.contents().items():
        write_whole(fresh / name, data)
    rename(fresh, there)
    return there


def read_calibration(folder: Path) -> Calibration:
    """The calibration in `folder`. Raises CalibrationError; CalibrationUnread where it may be whole."""
    try:
        header = json.loads(_read_within(folder / "calibration.json", _HEADER_BYTES))
        maps = _read_within(folder / "maps.npz", _MAPS_BYTES)
        if hashlib.sha256(maps).hexdigest() != header.pop("maps_sha256"):
            raise CalibrationError(f"{folder} is damaged: its maps are not those it was written with.")
        if header["schema"] != SCHEMA:
            raise CalibrationError(f"{folder} has schema {header['schema']}: calibrate anew.")
        with np.load(io.BytesIO(maps), allow_pickle=False) as arrays:
            loaded = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
        made_at = datetime.fromisoformat(header["made_at"])
        if made_at.tzinfo is None:
            raise ValueError("made_at names no time zone")
        calibration = Calibration(
            board=str(header["board"]),
            made_at=made_at,
            still=(int(header["still"][0]), int(header["still"][1])),
            black=loaded.pop("black"),
            gains={name.removeprefix("gain-"): values for name, values in loaded.items()},
            matrix=np.asarray(header["matrix"], np.float64).reshape(3, 3),
            mm_per_px=header["mm_per_px"],
            lamps_mm={name: (at[0], at[1], at[2]) for name, at in header["lamps_mm"].items()},
            scores=header["scores"],
            lamp_hours=header.get("lamp_hours", {}),
            lamp_renewals=header.get("lamp_renewals", {}),
            digest=_digest(maps, json.dumps(header, indent=2, sort_keys=True)),
        )
    except CalibrationError:
        raise
    except _DAMAGED as error:
        raise CalibrationError(f"{folder} is no calibration, or a damaged one: calibrate anew.") from error
    if calibration.id != folder.name:
        raise CalibrationError(f"{folder} is damaged: its content does not fit its name.")
    return calibration


class Calibrations:
    """The calibrations in `state` that are whole, and of `board`.

    They are read again when one has come or gone, and those that could not be read a while later; which of
    them is good is asked at each use, because this machine's clock may be set meanwhile. What is passed over
    is named in the log. Only the newest good one is kept in memory: its maps are large. Several threads may
    ask at once.
    """

    def __init__(self, state: Path, board: Board) -> None:
        self._state, self._board = state, board
        self._names: tuple[str, ...] = ()
        self._made_at: dict[str, datetime | None] = {}  # of those that were read; None for what is no good
        self._unread: dict[str, float] = {}  # until when not to try again, on the monotonic clock
        self._kept: Calibration | None = None
        self._passed_over: dict[str, str] = {}
        self._turn = threading.Lock()

    def newest(self, now: datetime | None = None) -> Calibration | None:
        """The newest one that is not older than a year, nor of a time to come; or None."""
        with self._turn:
            return self._newest(now or datetime.now(timezone.utc))

    def _newest(self, now: datetime) -> Calibration | None:
        names = _calibrations_in(self._state)
        if names != self._names:
            self._passed_over, self._made_at, self._unread, self._names = {}, {}, {}, names
        for name in names:
            if name not in self._made_at:
                self._read(name)
        known = [(name, made_at) for name in names if (made_at := self._made_at.get(name)) is not None]
        for name, made_at in sorted(known, key=itemgetter(1), reverse=True):
            if not timedelta(0) <= now - made_at <= VALID_FOR:
                self._pass_over(name, "older than a year, or of a time to come")
                continue
            kept = self._kept
            found = kept if kept is not None and kept.id == name else self._read(name)
            if found is not None:
                self._kept = found
                return found
        return None

    def _read(self, name: str) -> Calibration | None:
        """The calibration `name`, and note what it is; one that is no good is not read again.

        A disk may take seconds for what it cannot read, and the preview asks for each of its pictures.
        """
        if time.monotonic() < self._unread.get(name, 0.0):
            return None
        try:
            calibration = read_calibration(self._state / _FOLDER / name)
            reason = _foreign(calibration, self._board)
        except CalibrationUnread as error:
            self._unread[name] = time.monotonic() + UNREAD_S
            self._pass_over(name, str(error))
            return None
        except CalibrationError as error:
            reason = str(error)
        if reason is not None:
            self._made_at[name] = None
            self._pass_over(name, reason)
            return None
        self._made_at[name] = calibration.made_at
        self._passed_over.pop(name, None)
        return calibration

    def _pass_over(self, name: str, reason: str) -> None:
        if self._passed_over.get(name) != reason:
            self._passed_over[name] = reason
            log.warning("calibration_passed_over", calibration=name, reason=reason)


def newest_calibration(state: Path, board: Board, now: datetime | None = None) -> Calibration | None:
    """The newest calibration in `state` that is whole, of this board, and good now; or None."""
    return Calibrations(state, board).newest(now)


def lamps_aged(board: Board, calibration: Calibration, status: Mapping[str, Any]) -> str | None:
    """A sentence for staff, where a lamp was lit for longer since `calibration` than `board` allows, or is
    another one than then; `status` is the light daemon's, now.

    A calibration that says nothing of a lamp was made when nothing was counted yet.
    """
    hours, renewals = status["lamp_hours"], status["lamp_renewals"]
    limit, then = board.calibrate_after_lamp_h, calibration.lamp_hours
    since = {light: hours.get(light, 0.0) - then.get(light, 0.0) for light in sorted({*hours, *then})}
    # Hours that went back are those of a lamp whose count was lost.
    renewed = [
        light
        for light in since
        if renewals.get(light, 0) != calibration.lamp_renewals.get(light, 0) or since[light] < 0
    ]
    if renewed:
        return f"{', '.join(renewed)}: a new lamp since the calibration. Staff run 'dermakiosk calibrate'."
    aged = {light: lit for light, lit in since.items() if limit is not None and lit > limit}
    if not aged:
        return None
    words = ", ".join(f"{light} for {rounded(lit, 'h')}" for light, lit in aged.items())
    return f"Lit since the calibration: {words}, and lamps fade. Staff run 'dermakiosk calibrate'."


def _calibrations_in(state: Path) -> tuple[str, ...]:
    """The names of what is kept in `state`, for noticing a change cheaply."""
    return tuple(sorted(folder.name for folder in (state / _FOLDER).glob("[!.]*/")))


def _foreign(calibration: Calibration, board: Board) -> str | None:
    if calibration.board != board.name:
        return "another board's"
    if calibration.still != (board.camera.still.width, board.camera.still.height):
        return "another picture size"
    return None


def _read_within(path: Path, limit: int) -> bytes:
    """What is in `path`, of at most `limit` bytes.

    Raises ValueError where there are more, OSError where there is no such file, else CalibrationUnread.
    """
    try:
        return read_regular_file(path, limit)
    except FileTooBig as error:
        raise ValueError(f"{path.name} has more than {limit} bytes") from error
    except (FileNotFoundError, NotADirectoryError, NoRegularFile):
        raise
    except OSError as error:
        raise CalibrationUnread(
            f"{path} cannot be read ({error.strerror}): make it readable, or calibrate anew."
        ) from error
