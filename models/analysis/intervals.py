"""95 % confidence intervals: a bootstrap over blocks of skin (percentile method, Efron 1979).

The seed is fixed, so that the same picture gives the same interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardware.arrays import BoolArray, FloatArray

# Blocks are larger than pores, hairs and most spots, so that they vary independently of each other.
BLOCK_MM = 5.0
REPLICATES = 500

# By name, over each block of a zone.
Sums = dict[str, npt.NDArray[np.float64 | np.int64]]


@dataclass(frozen=True)
class Grid:
    """Square blocks over a picture, numbered row by row."""

    side_px: int
    columns: int
    count: int

    @classmethod
    def over(cls, mask: BoolArray, mm_per_px: float) -> Grid:
        side = max(1, round(BLOCK_MM / mm_per_px))
        height, width = mask.shape
        columns = -(-width // side)
        return cls(side, columns, columns * -(-height // side))

    def block(
        self, x: npt.NDArray[np.int64] | int, y: npt.NDArray[np.int64] | int
    ) -> npt.NDArray[np.int64] | int:
        """The number of the block that holds each pixel."""
        return (y // self.side_px) * self.columns + x // self.side_px


def replicated(sums: Sums) -> dict[str, FloatArray]:
    """The sums over all blocks: row 0 takes each block once, the others draw blocks with replacement."""
    count = len(sums["pixels"])
    draws = np.random.default_rng(count).multinomial(count, np.full(count, 1 / count), REPLICATES)
    weights = np.vstack([np.ones(count), draws])
    return {name: np.asarray(weights @ values, np.float64) for name, values in sums.items()}


def interval(values: FloatArray, at_zero: float = 0.0) -> tuple[float, float, float]:
    """A value with the ends of its interval, of the value and its replicates; `at_zero` the end of none."""
    value = float(values[0])
    low, high = (float(v) for v in np.percentile(values[1:], [2.5, 97.5]))
    if value == 0 and high == 0:
        high = at_zero
    return value, min(low, value), max(high, value)
