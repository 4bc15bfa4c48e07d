"""Decoding: the pixels of a file whose header is known, as numbers that mean nothing yet."""

from __future__ import annotations

import io
import warnings
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hardware.arrays import PixelArray, UInt8Array
from hardware.picture_file.header import PictureHeader
from hardware.picture_file.unreadable import NO_MEMORY, UNKNOWN_KIND, Unreadable
from hardware.stderr_lines import without_lines

# What libpng, libjpeg, libtiff and OpenCV write of a damaged file, beside the error they return.
_DECODERS_SAY = (b"libpng", b"JPEG", b"TIFF", b"global loadsave.cpp", b"global grfmt_", b"in function 'read")
_CMYK = 4
_OF_PILLOW = {"L": 1, "LA": 1, "La": 1, "RGB": 3, "RGBX": 3, "RGBA": 3, "RGBa": 3, "CMYK": 4, "LAB": 3}

# As the file has them: whole, of 8 or 16 bits, or fractions.
Numbers = npt.NDArray[np.uint8 | np.uint16 | np.floating[Any]]


def decode(header: PictureHeader) -> tuple[Numbers, PixelArray | None]:
    """Colours H×W×(1, 3 or 4), uint8, uint16 or float, and alpha H×W of the same numbers or None.

    Not turned yet. Raises Unreadable.
    """
    deep = header.bits > 8
    by_opencv = deep or (header.container == "jpeg" and header.channels != _CMYK)
    try:
        numbers, alpha = _by_opencv(header) if by_opencv else _by_pillow(header)
    except MemoryError as error:
        raise Unreadable(NO_MEMORY, "too_big") from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise Unreadable(NO_MEMORY, "too_big") from error
        raise Unreadable from error
    if header.channels == 3 and numbers.shape[2] == 1:
        # Pillow makes one number of a palette of greys.
        numbers = np.repeat(numbers, 3, axis=2)
    if numbers.shape[2] != header.channels:
        raise Unreadable(UNKNOWN_KIND.format(kind="picture"))
    return numbers, alpha


def _by_opencv(header: PictureHeader) -> tuple[Numbers, PixelArray | None]:
    """JPEG, in half of Pillow's time to the same bytes; and 16 bits a channel, of which Pillow keeps 8."""
    flags = cv2.IMREAD_COLOR_RGB if header.bits == 8 and header.channels == 3 else cv2.IMREAD_UNCHANGED
    with without_lines(_is_of_a_decoder):
        found = cv2.imdecode(np.frombuffer(header.pixels, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise Unreadable
    picture: npt.NDArray[Any] = np.asarray(found)
    if picture.ndim == 2:
        picture = picture[:, :, None]
    alpha = None
    if header.bits > 8:
        if picture.shape[2] == 4:
            alpha = picture[:, :, 3] if header.alpha else None
        if picture.shape[2] > 2:
            picture = picture[:, :, 2::-1]
        if header.channels == 1:
            picture = picture[:, :, :1]
        if header.grey_inverted:
            picture = (np.iinfo(picture.dtype).max if picture.dtype.kind == "u" else 1) - picture
        if header.clear:
            alpha = np.where((picture == np.array(header.clear)).all(axis=2), 0, 65535).astype(np.uint16)
        if alpha is not None and header.alpha_is_multiplied_in:
            whole = picture.astype(np.float64) * 65535 / np.maximum(alpha, 1)[:, :, None]
            picture = np.minimum(np.round(whole), 65535).astype(np.uint16)
    return picture, alpha


def _by_pillow(header: PictureHeader) -> tuple[UInt8Array, UInt8Array | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow's own limit only warns, and ours has been kept.
            with Image.open(io.BytesIO(header.pixels)) as image:
                image.load()
                return _numbers(image)
    # Pillow raises these for damaged files of one kind or another.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable from error


def _numbers(image: Image.Image) -> tuple[UInt8Array, UInt8Array | None]:
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("P", "PA") or (image.mode in ("L", "RGB") and "transparency" in image.info):
        clear = image.mode == "PA" or "transparency" in image.info
        grey = image.mode == "L"
        image = image.convert("RGBA" if clear else "RGB")
        numbers: UInt8Array = np.asarray(image)
        return numbers[:, :, : 1 if grey else 3], numbers[:, :, 3] if clear else None
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode == "YCbCr":
        image = image.convert("RGB")
    if image.mode not in _OF_PILLOW:
        raise Unreadable(UNKNOWN_KIND.format(kind="picture"))
    numbers = np.asarray(image)
    numbers = numbers[:, :, None] if numbers.ndim == 2 else numbers
    if image.mode == "LAB":
        # Pillow hands a* and b* out as TIFF has them, with a sign: here −128 is the lowest number.
        numbers = numbers ^ np.array([0, 128, 128], np.uint8)
    channels = _OF_PILLOW[image.mode]
    alpha = numbers[:, :, channels] if image.mode in ("LA", "RGBA") else None
    return numbers[:, :, :channels], alpha


def _is_of_a_decoder(line: bytes) -> bool:
    return not line.strip() or any(words in line for words in _DECODERS_SAY)
