"""Pictures for the tests of the networks: one public-domain portrait, and what is drawn from it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from skimage import data

from models.analysis import acne


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """NASA's portrait of an astronaut, 512×512×3 uint8 sRGB: one face, 92 pixels wide."""
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="session")
def large_portrait(portrait: np.ndarray) -> np.ndarray:
    """The head and shoulders of the portrait, enlarged to a face of about 550 pixels."""
    return cv2.resize(portrait[0:256, 90:346], None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def landscape() -> np.ndarray:
    """A picture without a face."""
    return np.ascontiguousarray(data.coffee())


@pytest.fixture(scope="module")
def one_look() -> Iterator[tuple[tuple[float, float, float], ...]]:
    """For tests of a scan's other measures: acne is looked for once, not in all the views that this gives."""
    views = acne.VIEWS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acne, "VIEWS", ())
        yield views
