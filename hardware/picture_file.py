"""A picture file: its size as the header says, checked before anything is decoded."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hardware.standard_error import without_lines

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512_000_000
NOT_A_PICTURE = "This is not a picture that can be read. Use a whole JPEG, PNG, TIFF, WebP or BMP file."
TOO_BIG = "This picture is too big. At most 64 million pixels can be read: make it smaller."

_EXIF_ORIENTATION = 0x0112
# What libpng, libjpeg, libtiff and OpenCV write of a damaged file, beside the error they return.
_DECODERS_SAY = (b"libpng", b"JPEG", b"TIFF", b"global loadsave.cpp", b"global grfmt_", b"in function 'read")


class PictureError(ValueError):
    """A file that cannot be read as a picture; the text names the file, `sentence` is the rest of it.

    `reason` is "not_a_picture" or "too_big".
    """

    exit_status = 2

    def __init__(self, path: Path, reason: str, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}")
        self.reason = reason
        self.sentence = sentence


def read_picture_file(path: Path) -> np.ndarray:
    """The picture in `path` as H×W×3 RGB, uint8 or uint16, upright as its EXIF orientation says.

    Grey, palette, CMYK and transparent pictures become RGB.
    Raises PictureError for what is not a picture, is cut short, or has more than MAX_PIXELS pixels.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(path, "too_big", TOO_BIG)
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise PictureError(path, "not_a_picture", f"This file cannot be read: {reason}.") from error
    try:
        size = _size(data)
    except (struct.error, IndexError, ValueError) as error:
        sentence = NOT_A_PICTURE
        if str(error) == "truncated":
            sentence = "This picture file is cut short. Copy it again."
        raise PictureError(path, "not_a_picture", sentence) from error
    if size[0] * size[1] > MAX_PIXELS:
        raise PictureError(path, "too_big", TOO_BIG)
    try:
        with without_lines(_is_of_a_decoder):
            picture = _decode(data)
    except MemoryError as error:
        sentence = "There is not enough memory for this picture. Make it smaller."
        raise PictureError(path, "too_big", sentence) from error
    except cv2.error as error:
        raise PictureError(path, "not_a_picture", NOT_A_PICTURE) from error
    if picture is None:
        raise PictureError(path, "not_a_picture", NOT_A_PICTURE)
    if picture.dtype not in (np.uint8, np.uint16):
        raise PictureError(path, "not_a_picture", "Pictures of floating-point numbers cannot be read.")
    return picture


def _is_of_a_decoder(line: bytes) -> bool:
    return not line.strip() or any(words in line for words in _DECODERS_SAY)


def _decode(data: bytes) -> np.ndarray | None:
    flags = cv2.IMREAD_COLOR
    if _is_deep(data):
        flags |= cv2.IMREAD_ANYDEPTH
    webp = data[:4] == b"RIFF"
    if webp:
        # Some versions of OpenCV turn a WebP upright and some do not.
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    # IMREAD_COLOR_RGB would leave the pixels of a 16-bit TIFF unset (OpenCV 4.11).
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        return None
    if webp:
        picture = _upright(picture, _webp_orientation(data))
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _webp_orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, struct.error):
        # EXIF that cannot be read says nothing; the pixels are whole.
        return 1


def _upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    """`picture` as seen when its EXIF orientation (1 to 8) is followed."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


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
