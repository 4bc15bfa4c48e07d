"""Skin before a camera."""

from __future__ import annotations

import numpy as np

SKIN = np.array([0.45, 0.25, 0.17], np.float32)
