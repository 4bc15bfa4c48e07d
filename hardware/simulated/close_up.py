"""The simulated close-up camera: a patch of drawn skin with one mole of known outline, or a picture file."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from hardware.arrays import BoolArray, Float32Array, FloatArray, UInt8Array
from hardware.profile import CloseUpProfile
from hardware.simulated.skin import HAEMOGLOBIN_OD, MELANIN_OD
from hardware.simulation import Simulation
from hardware.srgb import srgb_coded

# What skin without pigment and blood reflects in (red, green, blue), seen through a dermatoscope's gel.
_BARE = np.array([0.92, 0.80, 0.74], np.float32)
_MOLE_SHARE = (0.14, 0.24)  # radius over the width of the picture
_CORNER = 0.10


@dataclass(frozen=True)
class DrawnSkin:
    """`picture` H×W×3 uint8 sRGB; `lesion` H×W bool, the truth of its outline."""

    picture: UInt8Array
    lesion: BoolArray


class SimulatedCloseUp:
    """A hand that holds still on a drawn mole, another one after each still (`taken()` says how many there
    were), or on the `shown` picture (H×W×3 uint8 sRGB).

    Its board's simulation says from which picture on it hangs, is gone, hangs in the dark or is out of focus.
    """

    def __init__(
        self,
        profile: CloseUpProfile,
        faults: Simulation,
        taken: Callable[[], int],
        shown: UInt8Array | None = None,
    ) -> None:
        self._size, self._faults = (profile.width, profile.height), faults
        self._shown = shown
        self._taken, self._pictures = taken, 0
        self._closed = threading.Event()

    def picture(self) -> UInt8Array:
        """H×W×3 RGB uint8 sRGB. Raises OSError."""
        number, self._pictures = self._pictures, self._pictures + 1
        fault = self._faults.close_up_fault if number >= self._faults.close_up_fault_at else None
        if fault == "hangs":
            self._closed.wait()
        if fault == "disconnects" or self._closed.is_set():
            raise OSError(errno.ENODEV, "the close-up camera is not there any more")
        seen = self._shown if self._shown is not None else drawn(*self._size, 1 + self._taken())
        if fault == "dark":
            seen = (seen // 12).astype(np.uint8)
        if fault == "blurred":
            seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), seen.shape[1] / 50), np.uint8)
        return seen

    def close(self) -> None:
        self._closed.set()


@lru_cache(maxsize=4)
def drawn(width: int, height: int, seed: int) -> UInt8Array:
    """The picture of `draw_skin`, kept for the next preview."""
    return draw_skin(width, height, seed).picture


def draw_skin(width: int, height: int, seed: int) -> DrawnSkin:
    """Skin with a mole in its middle, by optical density: melanin and blood vary at every size."""
    rng = np.random.default_rng(seed)
    shape = (height, width)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    centre = np.array([width, height]) * (0.5 + rng.uniform(-0.04, 0.04, 2))
    angle = np.arctan2(ys - centre[1], xs - centre[0])
    stretch = rng.uniform(0.8, 1.0)
    turn = rng.uniform(0, np.pi)
    along = (xs - centre[0]) * np.cos(turn) + (ys - centre[1]) * np.sin(turn)
    across = (ys - centre[1]) * np.cos(turn) - (xs - centre[0]) * np.sin(turn)
    radius = width * rng.uniform(*_MOLE_SHARE)
    edge = radius * (
        1 + sum(rng.normal(0, 0.07 / n) * np.cos(n * angle + rng.uniform(0, 6.3)) for n in range(2, 8))
    )
    inside = (edge - np.hypot(along * stretch, across / stretch)) / radius
    mole = np.clip(0.5 + inside / 0.25, 0, 1)
    unit = width / 600
    net = np.abs(_cloud(rng, shape, 5 * unit)) ** 0.7
    melanin = 0.05 + 0.008 * _clouds(rng, shape, unit) + 0.012 * _cloud(rng, shape, 2.0 * unit)
    blood = 0.11 + 0.016 * _clouds(rng, shape, unit) + 0.014 * _cloud(rng, shape, 3.0 * unit)
    depth = rng.uniform(0.22, 0.34)
    pattern = 1 + 0.22 * _clouds(rng, shape, unit) - 0.30 * net + 0.10 * _cloud(rng, shape, 2.0 * unit)
    melanin = melanin + mole * depth * (0.75 + 0.5 * np.clip(inside, 0, 0.8)) * np.clip(pattern, 0.2, 2)
    blood = blood + 0.04 * mole
    for _ in range(rng.integers(2, 6)):
        melanin = melanin + 0.5 * _hair(rng, shape, unit)
    density = melanin[..., None] * MELANIN_OD + blood[..., None] * HAEMOGLOBIN_OD
    linear = _BARE * np.float32(10.0) ** -np.maximum(density, 0)
    away = ((xs / width - 0.5) ** 2 + (ys / height - 0.5) ** 2) * 2
    linear = linear * (1 - _CORNER * away)[..., None] + rng.normal(0, 0.004, (*shape, 3))
    return DrawnSkin(_srgb(linear), inside > 0)


def _cloud(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Float32Array:
    """Smooth noise of one size, mean 0, deviation 1."""
    small = (max(2, round(shape[1] / size)), max(2, round(shape[0] / size)))
    noise = cv2.resize(
        rng.normal(size=small[::-1]).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC
    )
    return np.asarray((noise - noise.mean()) / noise.std())


def _clouds(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Float32Array:
    """Noise whose larger sizes count for more, as in skin."""
    return np.asarray(
        sum(
            _cloud(rng, shape, size * unit) * weight
            for size, weight in ((160, 1.0), (60, 0.7), (20, 0.5), (8, 0.35))
        )
    )


def _hair(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Float32Array:
    """One fine hair across the picture: H×W float32 in 0…1."""
    ends = rng.uniform(-0.1, 1.1, (3, 2)) * shape[::-1]
    t = np.linspace(0, 1, 40)[:, None]
    line = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    drawn = np.zeros(shape, np.uint8)
    path = [np.round(line * 16).astype(np.int32)]
    cv2.polylines(drawn, path, False, (255,), max(1, round(1.5 * unit)), cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), 0.6 * unit))


def _srgb(linear: FloatArray) -> UInt8Array:
    return np.asarray(np.round(255 * srgb_coded(np.clip(linear, 0, 1))), np.uint8)
