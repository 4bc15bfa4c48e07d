"""Reading any picture file as an upright one, within bounds that are checked before anything is decoded."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from models.analysis.refusal import SENTENCES

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512_000_000
MIN_PIXELS_A_SIDE = 16


class PictureError(ValueError):
    """A file that cannot be read as a picture; `reason` is a key of SENTENCES, the text names the file."""

    exit_status = 2

    def __init__(self, path: Path, reason: str, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}")
        self.reason = reason
        self.sentence = sentence


def read_picture(path: Path) -> np.ndarray:
    """The picture in `path` as H×W×3 uint8 sRGB, upright as its EXIF orientation says.

    Grey, palette, CMYK and transparent pictures become RGB. A 16-bit picture is taken for linear light with
    65,535 = reflectance 1.0, as everywhere in this software, and is given the sRGB curve.
    Raises PictureError for what is not a picture, is cut short, or has more than MAX_PIXELS pixels.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(path, "too_big", SENTENCES["too_big"])
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise PictureError(path, "not_a_picture", f"This file cannot be read: {reason}.") from error
    try:
        size = _size(data)
    except (struct.error, IndexError, ValueError) as error:
        sentence = SENTENCES["not_a_picture"]
        if str(error) == "truncated":
            sentence = "This picture file is cut short. Copy it again."
        raise PictureError(path, "not_a_picture", sentence) from error
    if size[0] * size[1] > MAX_PIXELS:
        raise PictureError(path, "too_big", SENTENCES["too_big"])
    return _decode(path, data)


def _decode(path: Path, data: bytes) -> np.ndarray:
    buffer = np.frombuffer(data, np.uint8)
    deep = cv2.IMREAD_ANYDEPTH if _is_deep(data) else 0
    try:
        picture = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB | deep)
    except cv2.error as error:
        raise PictureError(path, "not_a_picture", SENTENCES["not_a_picture"]) from error
    if picture is None:
        raise PictureError(path, "not_a_picture", SENTENCES["not_a_picture"])
    if picture.dtype == np.uint16:
        return np.asarray(_srgb_curve()[picture])
    if picture.dtype != np.uint8:
        raise PictureError(path, "not_a_picture", "Pictures of floating-point numbers cannot be read.")
    return np.asarray(picture)


@lru_cache(maxsize=1)
def _srgb_curve() -> np.ndarray:
    linear = np.arange(65536) / 65535.0
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(coded * 255).astype(np.uint8)


def _size(data: bytes) -> tuple[int, int]:
    """(width, height) as the header says. Raises ValueError for an unknown format or a file cut short."""
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_size(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data[:2] == b"BM":
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(width), abs(height)
    raise ValueError("unknown format")


def _is_deep(data: bytes) -> bool:
    if data[:4] == b"\x89PNG":
        return data[24] == 16
    return data[:4] in (b"II*\0", b"MM\0*")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    offset, size = 2, None
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            raise ValueError("not a marker")
        marker = data[offset + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            offset += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, offset + 5)
            size = (width, height)
        if marker == 0xDA and size:
            # Inside the scans every FF is stuffed, so the first FFD9 is the end of the picture.
            if data.find(b"\xff\xd9", offset) < 0:
                raise ValueError("truncated")
            return size
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    raise ValueError("truncated")


def _png_size(data: bytes) -> tuple[int, int]:
    offset = 8
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        offset += 12 + length
    raise ValueError("truncated")


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    sizes = {}
    for index in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHI4s", data, directory + 2 + 12 * index)
        if tag in (256, 257):
            sizes[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
    if len(sizes) < 2:
        raise ValueError("no size")
    return sizes[256], sizes[257]


def _webp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise ValueError("truncated")
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
