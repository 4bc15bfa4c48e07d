"""Picture files made by hand: any numbers in any container, with whatever it may say of them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

ORIENTATION = 0x0112


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """The PNG with more chunks behind its header."""
    return png[:33] + b"".join(chunk(kind, body) for kind, body in chunks) + png[33:]


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    """PNG's chunk of a profile."""
    return b"iCCP", b"test\0\0" + zlib.compress(profile)


def exif(orientation: int = 1, space: int | None = None, index: bytes = b"") -> bytes:
    """An EXIF block without its "Exif" mark, as PNG and WebP have it."""
    block = Image.Exif()
    block[ORIENTATION] = orientation
    if space is not None:
        block.get_ifd(0x8769)[0xA001] = space
    if index:
        block.get_ifd(0x8769)[0xA005] = {1: index.decode()}
    return block.tobytes().removeprefix(b"Exif\0\0")


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """H×W(×3, ×4) uint8 or uint16 RGB(A), losslessly."""
    if pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    return with_chunks(bytes(cv2.imencode(".png", pixels)[1]), *chunks)


def pillow(pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    """What Pillow writes of H×W(×n) uint8."""
    out = io.BytesIO()
    image = (
        Image.fromarray(pixels)
        if mode is None
        else Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    )
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(
    pixels: np.ndarray,
    profile: bytes | None = None,
    orientation: int = 1,
    alpha: str | None = None,
    orientation_type: str | None = "H",
    **options: object,
) -> bytes:
    """What tifffile writes; `alpha` is "unassalpha" or "assocalpha", `orientation_type` is the
    letter that `struct` has for it, or None for no such tag.
    """
    out = io.BytesIO()
    if pixels.ndim == 3:
        options.setdefault("photometric", "rgb")
    if alpha is not None:
        options["extrasamples"] = [alpha]
    tags = [*options.pop("extratags", [])]  # type: ignore[misc]
    if orientation_type is not None:
        tags.append((ORIENTATION, orientation_type, 1, orientation, True))
    tifffile.imwrite(out, pixels, iccprofile=profile, extratags=tags, metadata=None, **options)
    return out.getvalue()


def bmp(
    pixels: np.ndarray, profile: bytes = b"", ends: tuple[float, ...] = (0.0,) * 9, exponent: float = 0.0
) -> bytes:
    """H×W(×3) uint8 with a header of version 5: a profile, or `ends` (X, Y, Z of red, green, blue)."""
    grey = pixels.ndim == 2
    rows = np.ascontiguousarray(pixels[::-1] if grey else pixels[::-1, :, ::-1])
    width = rows[0].nbytes
    body = np.pad(rows.reshape(len(rows), width), ((0, 0), (0, -width % 4))).tobytes()
    palette = b"".join(bytes((n, n, n, 0)) for n in range(256)) if grey else b""
    start = 124 + len(palette)
    info = struct.pack(
        "<IiiHHIIii2I", 124, pixels.shape[1], len(rows), 1, 8 if grey else 24, 0, len(body), 0, 0, 0, 0
    )
    info += bytes(16) + (b"DEBM" if profile else bytes(4))
    info += struct.pack("<9i3i", *(round(v * 2**30) for v in ends), *[round(exponent * 65536)] * 3)
    info += struct.pack("<4I", 4, start + len(body), len(profile), 0)
    whole = info + palette + body + profile
    return b"BM" + struct.pack("<I4xI", 14 + len(whole), 14 + start) + whole


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that are stored where a picture of this orientation shows `pixels`."""
    across, down = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    pixels = pixels[:, ::-1] if across else pixels
    pixels = pixels[::-1] if down else pixels
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if orientation > 4 else pixels)


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", whole) + chunk(b"IEND", b"")
