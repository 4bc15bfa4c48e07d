"""An ICC profile (versions 2 and 4): read as the Encoding that it states.

ICC.1:2022. What lcms2 does with the same profile is the reference; it is not called, since through Pillow
it gives 8 bits a channel. Relative colorimetric: colours are to be measured, not to please.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray
from hardware.colour import xyz_of_lab
from hardware.picture_file.encoding import (
    BT709,
    D65,
    Curve,
    Encoding,
    adaptation,
    gamma,
    of_matrix,
    same,
    table,
    to_xyz,
)
from hardware.picture_file.unreadable import Unreadable, broken_profile

# The connection space's white, to the digits that ICC.1 gives.
_D50_XYZ = np.array([0.9642, 1.0, 0.8249])
_D50 = (0.9642 / 2.7891, 1.0 / 2.7891)
_TO_SRGB = np.linalg.inv(adaptation(D65, _D50) @ to_xyz(BT709, D65))
_CHANNELS = {b"RGB ": 3, b"GRAY": 1, b"CMYK": 4}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_PARAMETERS = (1, 3, 4, 5, 7)
# A table's numbers, by their bytes.
_NUMBERS: Mapping[int, np.dtype[np.unsignedinteger[Any]]] = {1: np.dtype("u1"), 2: np.dtype(">u2")}
_MOST_TAGS = 200
# A table of more corners would take more memory than any profile of a camera or a press has.
_MOST_CORNERS = 5_000_000

Step = Callable[[FloatArray], FloatArray]


@lru_cache(maxsize=8)
def read_profile(data: bytes) -> Encoding:
    """What the profile in `data` states. Raises Unreadable where it is damaged or of no picture's kind."""
    try:
        encoding = _encoding(data)
        with np.errstate(all="ignore"):
            greys = np.repeat(np.linspace(0, 1, 256)[:, None], encoding.channels, axis=1)
            ends = encoding.linear(np.concatenate([greys, np.eye(encoding.channels)]))
    except (struct.error, IndexError, KeyError, ValueError, np.linalg.LinAlgError) as error:
        if isinstance(error, Unreadable):
            raise
        raise broken_profile("it is damaged") from error
    if not np.isfinite(ends).all() or np.ptp(ends) < 0.2:
        raise broken_profile("it is damaged")
    return encoding


def _encoding(data: bytes) -> Encoding:
    (size,) = struct.unpack_from(">I", data)
    if data[36:40] != b"acsp" or size > len(data) or size < 132:
        raise ValueError("no profile")
    kind, space, connection = data[12:16], data[16:20], data[20:24]
    if kind not in _CLASSES or space not in _CHANNELS or connection not in (b"XYZ ", b"Lab "):
        raise broken_profile("it is of a kind that has no place in a photograph")
    tags = _tags(data[:size])
    lut = tags.get(b"A2B1", tags.get(b"A2B0"))
    if lut is not None:
        return _of_steps(_CHANNELS[space], _lut(lut, _CHANNELS[space]), connection, lut[:4])
    if space == b"GRAY":
        return _grey(_curve(tags[b"kTRC"])[0], connection)
    if space != b"RGB " or connection != b"XYZ ":
        raise ValueError("no way to colours")
    colorants = np.stack([_fixed(tags[name][8:], 3) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    if abs(np.linalg.det(colorants)) < 1e-4:
        raise ValueError("three primaries on one line")
    return of_matrix(_TO_SRGB @ colorants, [_curve(tags[name])[0] for name in (b"rTRC", b"gTRC", b"bTRC")])


def _tags(data: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", data, 128)
    if count > _MOST_TAGS:
        raise ValueError("too many tags")
    tags = {}
    for number in range(count):
        name, offset, size = struct.unpack_from(">4sII", data, 132 + 12 * number)
        if offset + size > len(data):
            raise ValueError("a tag outside the profile")
        tags[name] = data[offset : offset + size]
    return tags


def _fixed(data: bytes, count: int) -> Float64Array:
    """s15Fixed16 numbers."""
    return np.array(struct.unpack_from(f">{count}i", data), np.float64) / 65536


def _curve(data: bytes) -> tuple[Curve, int]:
    """The curve at the beginning of `data`, and its length in bytes. Raises ValueError."""
    if data[:4] == b"curv":
        (count,) = struct.unpack_from(">I", data, 8)
        if count == 0:
            return same, 12
        if count > (len(data) - 12) // 2:
            raise ValueError("a curve cut short")
        points = np.frombuffer(data, ">u2", count, 12)
        if count == 1:
            return gamma(float(points[0]) / 256), 14
        return table(points / 65535), 12 + 2 * count
    if data[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack_from(">H", data, 8)
    count = _PARAMETERS[kind]
    return _formula(kind, *_fixed(data[12:], count)), 12 + 4 * count


def _formula(kind: int, g: float, *given: float) -> Curve:
    """The parametric curve of type `kind`: a power above `d`, a line below it."""
    if kind == 0:
        return gamma(g)
    a, b = given[:2]
    if a == 0:
        raise ValueError("a curve that does not rise")
    rest: dict[int, Callable[[], tuple[float, ...]]] = {
        1: lambda: (0.0, -b / a, 0.0, 0.0),
        2: lambda: (0.0, -b / a, given[2], given[2]),
        3: lambda: (given[2], given[3], 0.0, 0.0),
        4: lambda: given[2:6],
    }
    c, d, e, f = rest[kind]()
    # Only above `d`: far below it the power may be too large for a number.
    return lambda x: np.where(x >= d, np.maximum(a * np.maximum(x, d) + b, 0) ** g + e, c * x + f)


def _grey(curve: Curve, connection: bytes) -> Encoding:
    if connection == b"XYZ ":
        return Encoding(1, (curve,), lambda grey: np.repeat(grey, 3, axis=1))
    return Encoding(
        1, (curve,), lambda grey: np.repeat(xyz_of_lab(grey * np.array([[100, 0, 0]]))[:, 1:2], 3, axis=1)
    )


def of_lab() -> Encoding:
    """CIE L*a*b* under D50, as TIFF has it in bytes: L* over 100, a* and b* from −128 over 255."""
    return _of_steps(3, [], b"Lab ", b"mAB ")


def _of_steps(channels: int, steps: Sequence[Step], connection: bytes, form: bytes) -> Encoding:
    """Steps to the connection space, whose numbers are coded as `form` does."""

    def mix(values: Float32Array) -> Float64Array:
        for step in steps:
            values = step(values)
        if connection == b"XYZ ":
            return (values * (1 + 32767 / 32768)) @ _TO_SRGB.T
        # A table of 16 bits keeps version 2's code, in which L* = 100 is FF00.
        stretch = 65535 / 65280 if form == b"mft2" else 1.0
        lab = values * stretch * np.array([100, 255, 255]) - np.array([0, 128, 128])
        return np.asarray(xyz_of_lab(lab) * _D50_XYZ @ _TO_SRGB.T)

    return Encoding(channels, (same,) * channels, mix)


def _lut(data: bytes, channels: int) -> list[Step]:
    form, inputs, outputs = data[:4], data[8], data[9]
    if inputs != channels or outputs != 3:
        raise ValueError("a table of other colours")
    if form == b"mAB ":
        return _steps_of_mab(data, inputs)
    if form not in (b"mft1", b"mft2"):
        raise ValueError("no table")
    number, start, entries = (_NUMBERS[2], 52, struct.unpack_from(">HH", data, 48))
    if form == b"mft1":
        number, start, entries = _NUMBERS[1], 48, (256, 256)
    most = np.iinfo(number).max
    sizes = (inputs * entries[0], _corners((data[10],) * inputs) * 3, 3 * entries[1])
    if min(entries) < 2 or start + sum(sizes) * number.itemsize > len(data):
        raise ValueError("a table cut short")
    numbers = np.frombuffer(data, number, sum(sizes), start) / most
    before, grid, after = np.split(numbers, np.cumsum(sizes)[:-1])
    return [
        _each([table(points) for points in before.reshape(inputs, -1)]),
        _between(grid.reshape(*(data[10],) * inputs, 3)),
        _each([table(points) for points in after.reshape(3, -1)]),
    ]


def _steps_of_mab(data: bytes, inputs: int) -> list[Step]:
    b, matrix, m, grid, a = struct.unpack_from(">5I", data, 12)
    steps: list[Step] = []
    if a:
        steps.append(_each(_curves(data, a, inputs)))
    if grid:
        shape = tuple(data[grid : grid + inputs])
        number = _NUMBERS[data[grid + 16]]
        size = _corners(shape) * 3
        if grid + 20 + size * number.itemsize > len(data):
            raise ValueError("a table cut short")
        numbers = np.frombuffer(data, number, size, grid + 20) / np.iinfo(number).max
        steps.append(_between(numbers.reshape(*shape, 3)))
    elif inputs != 3:
        raise ValueError("no table")
    if m:
        steps.append(_each(_curves(data, m, 3)))
    if matrix:
        numbers = _fixed(data[matrix:], 12)
        times, plus = numbers[:9].reshape(3, 3).T, numbers[9:]
        steps.append(lambda values: values @ times + plus)
    if b:
        steps.append(_each(_curves(data, b, 3)))
    return steps


def _curves(data: bytes, offset: int, count: int) -> list[Curve]:
    curves = []
    for _ in range(count):
        curve, length = _curve(data[offset:])
        curves.append(curve)
        offset += -(-length // 4) * 4
    return curves


def _corners(shape: tuple[int, ...]) -> int:
    corners = int(np.prod([float(side) for side in shape]))
    if min(shape) < 2 or corners > _MOST_CORNERS:
        raise ValueError("a table of an absurd size")
    return corners


def _each(curves: Sequence[Curve]) -> Step:
    return lambda values: np.stack(
        [curve(np.clip(values[:, n], 0, 1)) for n, curve in enumerate(curves)], axis=1
    )


def _between(grid: Float64Array) -> Step:
    """Linear interpolation between the corners of `grid` (one axis a channel, then 3)."""
    shape = np.array(grid.shape[:-1])
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    flat = np.ascontiguousarray(grid.reshape(-1, 3), np.float32)

    def step(values: FloatArray) -> Float32Array:
        places = np.clip(values, 0, 1) * (shape - 1)
        low = np.minimum(places.astype(np.int64), shape - 2)
        share = (places - low).astype(np.float32)
        first = low @ strides
        total = np.zeros((len(values), 3), np.float32)
        for corner in range(2 ** len(shape)):
            up = np.array([corner >> n & 1 for n in range(len(shape))], bool)
            weight = np.where(up, share, 1 - share).prod(axis=1)
            total += weight[:, None] * flat[first + int(strides[up].sum())]
        return total

    return step
