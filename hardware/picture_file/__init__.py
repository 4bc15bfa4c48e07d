"""A picture file, of whatever kind: read as upright RGB of a known meaning, within bounds, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardware.arrays import PixelArray
from hardware.picture_colours import Colour
from hardware.picture_file.conversion import converted
from hardware.picture_file.decode import Numbers, decode
from hardware.picture_file.header import PictureHeader, read_header
from hardware.picture_file.meaning import meaning
from hardware.picture_file.picture import Picture, on_white, turned, upright
from hardware.picture_file.regular_file import read_regular_file
from hardware.picture_file.unreadable import (
    NO_MEMORY,
    NOT_A_PICTURE,
    TOO_BIG,
    PictureError,
    Unreadable,
)

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "NOT_A_PICTURE",
    "TOO_BIG",
    "Picture",
    "PictureError",
    "picture_file_size",
    "read_numbers_file",
    "read_picture_file",
]

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512_000_000


def read_picture_file(path: Path, colour: Colour = "auto") -> Picture:
    """The picture in the file at `path`, upright as its EXIF orientation says.

    With "auto" its profile or tags say what its numbers mean, and without any they are sRGB; "srgb" and
    "linear-srgb" say it in their stead. What is transparent is laid on white as a browser does it: in coded
    sRGB. Colours that sRGB does not have keep their luminance and lose as much of their strength as they
    must. Raises PictureError for what is no regular file, is not a whole picture, is one of several in its
    file, has more than MAX_PIXELS pixels, or does not say what its numbers mean.
    """
    path = Path(path)
    with _sentences(path):
        header = _header(path)
        encoding = meaning(header, colour)
        numbers, alpha = _decoded(header)
        return upright(on_white(converted(numbers, encoding), alpha), header.orientation)


def read_numbers_file(path: Path) -> Numbers:
    """The numbers in the file at `path` as they stand, H×W×(1, 3 or 4), upright. Raises PictureError."""
    path = Path(path)
    with _sentences(path):
        header = _header(path)
        return turned(_decoded(header)[0], header.orientation)


def picture_file_size(path: Path) -> tuple[int, int]:
    """Height and width of the picture in the file at `path` as it is stored. Raises PictureError."""
    path = Path(path)
    with _sentences(path):
        header = _header(path)
    return header.height, header.width


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """PictureError for whatever is wrong with the file at `path`."""
    try:
        yield
    except MemoryError as error:
        raise PictureError(path, "too_big", NO_MEMORY) from error
    except Unreadable as error:
        raise PictureError(path, error.code, error.sentence) from error
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise PictureError(path, "not_a_picture", f"This file cannot be read: {reason}.") from error


def _header(path: Path) -> PictureHeader:
    header = read_header(read_regular_file(path, MAX_FILE_BYTES))
    _require_size(header.height, header.width)
    return header


def _decoded(header: PictureHeader) -> tuple[Numbers, PixelArray | None]:
    numbers, alpha = decode(header)
    _require_size(*numbers.shape[:2])
    return numbers, alpha


def _require_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise Unreadable(TOO_BIG, "too_big")
    if not height or not width:
        raise Unreadable
