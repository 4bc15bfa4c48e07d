"""Arrays by what their numbers are: short names for numpy's types, which leave the shape to words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
# A picture's numbers: 8 bits of a channel, or 16.
PixelArray = npt.NDArray[np.uint8 | np.uint16]
# Fractions of either precision: what comes out has that of what went in.
FloatArray = npt.NDArray[np.floating[Any]]
