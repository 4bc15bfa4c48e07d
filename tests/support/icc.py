"""ICC profiles made by hand, of every kind that the pictures of a clinic may bring along."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import ImageCms

from hardware.srgb import srgb_coded, srgb_linear

D50 = np.array([0.9642, 1.0, 0.8249])
D65, D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)
# x, y of red, green, blue; white; exponent (None: sRGB's curve).
SPACES: dict[str, tuple[tuple[tuple[float, float], ...], tuple[float, float], float | None]] = {
    "sRGB": (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, None),
    "Display P3": (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65, None),
    "Adobe RGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, 563 / 256),
    "ProPhoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50_XY, 1.8),
    "Rec. 2020": (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65, 2.4),
    "linear sRGB": (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, 1.0),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def colorants(space: str) -> np.ndarray:
    """3×3 from linear RGB of `space` to XYZ under D50."""
    places, white, _ = SPACES[space]
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in places]).T
    seen = np.array([white[0] / white[1], 1, (1 - sum(white)) / white[1]])
    matrix = columns * np.linalg.solve(columns, seen)
    ratio = np.diag((_BRADFORD @ D50) / (_BRADFORD @ seen))
    return np.linalg.inv(_BRADFORD) @ ratio @ _BRADFORD @ matrix


def coded_in(space: str, srgb: np.ndarray) -> np.ndarray:
    """Coded sRGB 0…1 (…, 3) as coded numbers of `space` that look the same; sRGB's gamut fits in each."""
    light = srgb_linear(srgb) @ (np.linalg.inv(colorants(space)) @ colorants("sRGB")).T
    exponent = SPACES[space][2]
    light = np.clip(light, 0, 1)
    return srgb_coded(light) if exponent is None else light ** (1 / exponent)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def curve(exponent: float | None, version: int) -> bytes:
    """A tone curve: sRGB's as a table (version 2) or as a formula (4), else one exponent."""
    if exponent is None and version == 4:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(*numbers)
    if exponent is None:
        points = np.round(srgb_linear(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
        return b"curv\0\0\0\0" + struct.pack(">I", 1024) + points.tobytes()
    if version == 4:
        return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed(exponent)
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(exponent * 256), 0)


def profile(
    tags: dict[bytes, bytes],
    space: bytes = b"RGB ",
    connection: bytes = b"XYZ ",
    version: int = 2,
    kind: bytes = b"mntr",
) -> bytes:
    """The profile with `tags`, whole and in order."""
    said = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78), b"wtpt": _xyz(D50)}
    if version == 4:
        text = "test".encode("utf-16-be")
        said[b"desc"] = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    said |= tags
    table, body, start = b"", b"", 132 + 12 * len(said)
    for name, data in said.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s",
        start + len(body),
        b"test",
        version << 24,
        kind,
        space,
        connection,
        bytes(12),
        b"acsp",
    )
    header += bytes(28) + _fixed(*D50) + bytes(48)
    assert len(header) == 128
    return header + struct.pack(">I", len(said)) + table + body


def matrix_profile(space: str, version: int = 2) -> bytes:
    """`space` by three colorants and their curves."""
    columns = colorants(space).T
    tags = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(SPACES[space][2], version))
    return profile(tags, version=version)


def grey_profile(exponent: float, connection: bytes = b"XYZ ") -> bytes:
    return profile({b"kTRC": curve(exponent, 2)}, b"GRAY", connection)


def lab_of(xyz: np.ndarray) -> np.ndarray:
    t = xyz / D50
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def table_profile(form: str, channels: int, to_xyz: Callable[[np.ndarray], np.ndarray], grid: int) -> bytes:
    """A profile of a table: `to_xyz` takes (…, channels) device numbers 0…1 to XYZ under D50.

    `form` is "mft1", "mft2" or "mAB ".
    """
    axes = np.meshgrid(*[np.linspace(0, 1, grid)] * channels, indexing="ij")
    lab = lab_of(to_xyz(np.stack(axes, -1)))
    shares = np.clip((lab + [0, 128, 128]) / [100, 255, 255], 0, 1)
    space = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}[channels]
    ramp = np.linspace(0, 1, 256)
    if form == "mft1":
        numbers = [np.tile(ramp, channels) * 255, shares.ravel() * 255, np.tile(ramp, 3) * 255]
        body = b"".join(np.round(n).astype("u1").tobytes() for n in numbers)
        lut = b"mft1\0\0\0\0" + bytes((channels, 3, grid, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + body
    elif form == "mft2":
        numbers = [np.tile([0, 65535], channels), shares.ravel() * 65280, np.tile([0, 65535], 3)]
        body = b"".join(np.round(n).astype(">u2").tobytes() for n in numbers)
        head = bytes((channels, 3, grid, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
        lut = b"mft2\0\0\0\0" + head + body
    else:
        line = b"curv\0\0\0\0" + bytes(4)
        b_curves, a_curves = line * 3, line * channels
        m_curves, matrix = line * 3, _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
        table = bytes([grid] * channels) + bytes(16 - channels) + b"\2\0\0\0"
        table += np.round(shares.ravel() * 65535).astype(">u2").tobytes()
        table += bytes(-len(table) % 4)
        places = np.cumsum([32, len(b_curves), len(matrix), len(m_curves), len(table)])
        lut = b"mAB \0\0\0\0" + bytes((channels, 3, 0, 0)) + struct.pack(">5I", *places)
        lut += b_curves + matrix + m_curves + table + a_curves
    version, kind = (4 if form == "mAB " else 2), (b"prtr" if channels == 4 else b"mntr")
    return profile({b"A2B0": lut, b"A2B1": lut}, space, b"Lab ", version, kind)


def rgb_table_profile(form: str, space: str, grid: int = 33) -> bytes:
    """`space` as a table. A table is between its corners only nearly what it stands for."""
    exponent, matrix = SPACES[space][2], colorants(space)

    def to_xyz(rgb: np.ndarray) -> np.ndarray:
        return (srgb_linear(rgb) if exponent is None else rgb**exponent) @ matrix.T

    return table_profile(form, 3, to_xyz, grid)


def inks_profile(form: str = "mft2", grid: int = 9) -> bytes:
    """A press whose inks take their complement out of coded sRGB, and black all of it."""

    def to_xyz(cmyk: np.ndarray) -> np.ndarray:
        return srgb_linear((1 - cmyk[..., :3]) * (1 - cmyk[..., 3:])) @ colorants("sRGB").T

    return table_profile(form, 4, to_xyz, grid)


def opened(data: bytes) -> ImageCms.ImageCmsProfile:
    """The profile as lcms2 opens it."""
    return ImageCms.ImageCmsProfile(io.BytesIO(data))
