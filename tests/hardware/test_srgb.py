"""sRGB's curve, against the numbers of its standard; and that it stands in one place only."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hardware.srgb import srgb_coded, srgb_linear

ROOT = Path(__file__).parents[2]
ROOMS = ("firmware", "hardware", "kiosk_app", "models", "provisioning", "sync", "tests")
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


def test_nobody_writes_the_curve_down_again() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path != Path(__file__)]
    written = [path for path in files if re.search(r"np\.where\(.*12\.92", path.read_text())]
    assert [path.relative_to(ROOT).as_posix() for path in written] == ["hardware/srgb.py"]
