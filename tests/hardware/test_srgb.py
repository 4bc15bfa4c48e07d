"""sRGB's curve, against the numbers of its standard; and that it stands in one place only."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest

from hardware.srgb import srgb_coded, srgb_linear
from tests.support.sources import ROOMS, ROOT

CODE = ("py", "js", "html", "css", "toml", "sh", "c", "yaml")
NUMBER = re.compile(r"(?<![\w.])(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?(?![\w.])")
# The knees (today's and an older edition's, the first of 255 too), the slope below them, and the light of 1.
ITS_OWN = (0.0031308, 0.04045, 0.03928, 0.04045 * 255, 12.92, 12.92 * 255, 1 / 12.92, 1 / 12.92 / 255)
# Numbers of many things, but only of the curve when they stand together.
BOTH = {"scale": (1.055, 0.055, 1 / 1.055), "exponent": (2.4, 1 / 2.4)}
NEAR_LINES = 3
WRITTEN_AS_DATA = {
    "tests/support/icc.py": "a profile holds the numbers of its curve",
    "tests/hardware/test_srgb.py": "this test",
}
# Coded numbers of 255 with their light, by IEC 61966-2-1 as it is tabulated.
KNOWN = {0: 0.0, 1: 0.000303527, 10: 0.003035270, 11: 0.003346536, 118: 0.181164, 188: 0.502886, 255: 1.0}


def test_the_curve_goes_through_the_standards_numbers() -> None:
    coded, light = np.array([*KNOWN]) / 255, np.array([*KNOWN.values()])
    assert np.allclose(srgb_linear(coded), light, rtol=1e-5)
    assert np.allclose(srgb_coded(light), coded, atol=1e-6)


def test_every_number_comes_back_and_the_curve_rises_everywhere() -> None:
    coded = np.linspace(-0.2, 1, 65_536)
    assert np.allclose(srgb_coded(srgb_linear(coded)), coded, atol=1e-6)
    assert (np.diff(srgb_linear(coded)) > 0).all()


def numbers(text: str) -> Iterator[tuple[int, float]]:
    """Every number in a text of code, however it is spelled, with its line."""
    for line, words in enumerate(text.splitlines()):
        for found in NUMBER.findall(words):
            yield line, float(found.replace("_", ""))


def writes_the_curve(text: str) -> bool:
    """Whether code has what only sRGB's curve has: a knee, its slope, or its scale beside its exponent."""
    near: dict[str, list[int]] = {"scale": [], "exponent": []}
    for line, number in numbers(text):
        if any(math.isclose(number, own, rel_tol=5e-4) for own in ITS_OWN):
            return True
        for name, values in BOTH.items():
            if any(math.isclose(number, value, rel_tol=5e-4) for value in values):
                near[name].append(line)
    return any(abs(one - other) <= NEAR_LINES for one in near["scale"] for other in near["exponent"])


def test_nobody_writes_the_curve_down_again() -> None:
    files = [path for room in (*ROOMS, "tests") for kind in CODE for path in (ROOT / room).rglob(f"*.{kind}")]
    written = {path.relative_to(ROOT).as_posix() for path in files if writes_the_curve(path.read_text())}
    assert written == {"hardware/srgb.py", *WRITTEN_AS_DATA}


@pytest.mark.parametrize(
    "code",
    [
        "np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)",
        "light = x / 12.92 if x <= .04045 else pow((x + .055) / 1.055, 2.4)",
        "KNEE = 3.1308e-3",
        "KNEE = 31308e-7",
        "if light < 0.003_130_8:",
        "SLOPE = np.float32(12.92)",
        "low = cv2.multiply(light, 12.92)",
        "low = coded * 0.0773993808",
        "table = np.array([0.0, 0.000303527, 0.000607054, 0.000910581])",
        "high = cv2.pow((coded + 0.055) / 1.055, 2.4)",
        "high = 1.055 * light ** (1 / 2.4) - 0.055",
        "high = 1.055 * light ** 0.4166667",
        "A, GAMMA = 0.055, 2.4",
        "SCALE = 1.055\nEXPONENT = 2.4\n",
        "np.piecewise(x, [x < 0.03928], [lambda v: v / 12.92, rest])",
        'CURVE = {"slope": "12.92"}',
        "if (c <= 10.31475) { return c / 3294.6; }",
    ],
)
def test_the_curve_is_found_however_it_is_spelled(code: str) -> None:
    assert writes_the_curve(code)


@pytest.mark.parametrize(
    "code", ["zoom = 2.4", "MARGIN = 0.055", "1.055\n" + "\n" * 9 + "2.4", "v1.12.92", "x129204045 = 12920"]
)
def test_other_numbers_are_left_alone(code: str) -> None:
    assert not writes_the_curve(code)
