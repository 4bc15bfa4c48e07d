"""A colour sensor: from light on the pixels to the counts that a camera hands over."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hardware.arrays import Float32Array, UInt16Array

# A small sensor's well holds some ten thousand electrons; reading it out adds a few of noise.
FULL_WELL_E = 10_000.0
READ_NOISE_E = 4.0


@dataclass(frozen=True)
class ImageSensor:
    """A linear sensor of `bits` with its black at `black_level` counts."""

    bits: int
    black_level: int

    @property
    def electrons_per_count(self) -> float:
        return FULL_WELL_E / 2.0**self.bits

    def read(self, counts: Float32Array, gain: float, rng: np.random.Generator) -> UInt16Array:
        """Counts as read: `counts` (float32, mean counts above black, changed in place) with shot noise,
        read noise, black level and clipping, as uint16.
        """
        # At a higher gain a count stands for fewer electrons, and noise shows more.
        per_count = self.electrons_per_count / gain
        variance = np.maximum(counts, 0) / per_count + (READ_NOISE_E / per_count) ** 2
        noise = np.asarray(cv2.sqrt(variance), np.float32)
        noise *= rng.standard_normal(counts.shape, dtype=np.float32)
        counts += noise
        counts += self.black_level + 0.5
        np.clip(counts, 0, 2**self.bits - 1, out=counts)
        return counts.astype(np.uint16)
