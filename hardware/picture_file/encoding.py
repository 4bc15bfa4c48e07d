"""What the numbers of a picture mean: curves with a way to linear sRGB, as tags and standards state them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hardware.arrays import Float32Array, Float64Array, FloatArray
from hardware.srgb import srgb_coded, srgb_linear

Curve = Callable[[FloatArray], FloatArray]
Places = Sequence[tuple[float, float]]

# CIE x, y of red, green, blue, and of white, from the standards.
D65, D50, DCI_WHITE, C_WHITE = (0.3127, 0.3290), (0.3457, 0.3585), (0.314, 0.351), (0.310, 0.316)
BT709: Places = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB: Places = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
# One pixel of a 16-bit ramp differs by less; HP's sRGB profile of 1998 is .1 away from the formula.
_SRGB_WITHIN = 0.35 / 255
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class Encoding:
    """What `channels` numbers a pixel, each in 0…1, mean.

    `curves` takes each of them on its own to what `mix` takes (n×channels float32) to linear sRGB (n×3,
    unbounded: colours that sRGB does not have lie outside 0…1). `is_matrix`: that is quickly done.
    """

    channels: int
    curves: tuple[Curve, ...]
    mix: Callable[[Float32Array], FloatArray]
    is_matrix: bool = False

    def linear(self, values: FloatArray) -> FloatArray:
        """(n, channels) in 0…1 as (n, 3) linear sRGB."""
        shaped = np.stack([curve(values[:, n]) for n, curve in enumerate(self.curves)], axis=1)
        return self.mix(shaped.astype(np.float32))

    def is_close_to(self, other: Encoding) -> bool:
        """Whether greys and colours all over the cube are those of `other`, to a third of an 8-bit step."""
        if self.channels != other.channels:
            return False
        steps = np.linspace(0, 1, 9)
        cube = np.stack(np.meshgrid(*[steps] * self.channels), axis=-1).reshape(-1, self.channels)
        greys = np.repeat(np.linspace(0, 1, 256)[:, None], self.channels, axis=1)
        values = np.concatenate([cube, greys])
        ours, others = (srgb_coded(np.clip(e.linear(values), 0, 1)) for e in (self, other))
        return bool(np.abs(ours - others).max() <= _SRGB_WITHIN)


def same(values: FloatArray) -> FloatArray:
    """The curve of linear light."""
    return values


def gamma(exponent: float) -> Curve:
    """The curve value ** exponent."""
    return lambda values: np.maximum(values, 0) ** exponent


def bt709_curve(coded: FloatArray) -> FloatArray:
    """The inverse of the camera curve of ITU-R BT.709 and BT.2020."""
    return np.where(coded < 0.081, coded / 4.5, ((np.maximum(coded, 0) + 0.099) / 1.099) ** (1 / 0.45))


def table(points: Float64Array) -> Curve:
    """The curve through `points`, evenly spaced over 0…1."""
    places = np.linspace(0, 1, len(points))
    return lambda values: np.interp(values, places, points)


def to_xyz(primaries: Places, white: tuple[float, float]) -> Float64Array:
    """The 3×3 from linear RGB to XYZ, in which white has Y = 1. Raises ValueError where there is none."""
    columns = np.array([_xyz(place) for place in primaries]).T
    if abs(np.linalg.det(columns)) < 1e-6:
        raise ValueError("three primaries on one line")
    return np.asarray(columns * np.linalg.solve(columns, _xyz(white)))


def adaptation(seen_as: tuple[float, float], white: tuple[float, float]) -> Float64Array:
    """The 3×3 that takes XYZ under `seen_as` to the same appearance under `white` (Bradford)."""
    before, after = _BRADFORD @ _xyz(seen_as), _BRADFORD @ _xyz(white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(after / before) @ _BRADFORD)


def of_primaries(primaries: Places, white: tuple[float, float], curves: Sequence[Curve]) -> Encoding:
    """RGB with one curve, or one each. Raises ValueError where the places make no colours."""
    to_srgb = np.linalg.inv(to_xyz(BT709, D65)) @ adaptation(white, D65) @ to_xyz(primaries, white)
    return of_matrix(to_srgb, curves)


def of_matrix(to_srgb: Float64Array, curves: Sequence[Curve]) -> Encoding:
    """RGB with one curve, or one each, and a 3×3 to linear sRGB."""
    matrix = to_srgb.T.astype(np.float32)
    each = tuple(curves) if len(curves) == 3 else (curves[0],) * 3
    return Encoding(3, each, lambda rgb: rgb @ matrix, is_matrix=True)


def as_grey(encoding: Encoding) -> Encoding:
    """The RGB `encoding` for pictures that have one number a pixel."""
    return Encoding(1, (same,), lambda grey: encoding.linear(np.repeat(grey, 3, axis=1)))


def _xyz(place: tuple[float, float]) -> Float64Array:
    x, y = place
    if not y > 0:
        raise ValueError("a place without light")
    return np.array([x / y, 1.0, (1 - x - y) / y])


SRGB = of_matrix(np.eye(3), [srgb_linear])
LINEAR_SRGB = of_matrix(np.eye(3), [same])
ADOBE = of_primaries(ADOBE_RGB, D65, [gamma(563 / 256)])
