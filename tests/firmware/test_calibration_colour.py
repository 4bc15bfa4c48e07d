"""Colour: the matrix is fitted to modelled skins, and right on skins that were measured on people."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pytest

from firmware.bench.colour import delta_e00, fit_matrix, skin_matrix
from hardware.board import BOARDS, load_board
from hardware.colour import from_lab, ita_of_lab, lab
from hardware.skin_spectra import skin_spectra
from hardware.spectra import camera_rgb, linear_srgb
from tests.support.kiosk_daemons import ROOT
from tests.support.skin_archive import measured_skin

LED, SENSOR = "violet-pump-6500k", "bayer"
# Sharma, Wu and Dalal (2005), table 1: pairs that catch the usual mistakes, with their ΔE00.
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (50.0, 3.1736, 0.5854), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.fixture(scope="module")
def measured() -> npt.NDArray[np.float64]:
    """Spectra of the subjects that were never looked at while the model of skin was set up."""
    spectra, subjects = measured_skin(ROOT / "build" / "test-data")
    unseen = np.array([zlib.crc32(str(subject).encode()) % 2 == 1 for subject in subjects])
    return spectra[unseen]


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_colour_difference_is_that_of_its_authors_table(first, second, expected) -> None:
    assert delta_e00(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-4)
    assert delta_e00(np.array(second), np.array(first)) == pytest.approx(expected, abs=1e-4)


def test_lab_and_back_is_the_same_colour() -> None:
    colours = np.random.default_rng(1).uniform(0, 1, (50, 3))
    assert from_lab(lab(colours)) == pytest.approx(colours, abs=1e-9)


def test_a_perfect_white_is_white_to_eye_and_camera() -> None:
    white = np.ones(31)
    assert linear_srgb(white) == pytest.approx(1.0)
    assert lab(linear_srgb(white)) == pytest.approx([100, 0, 0], abs=1e-3)
    assert camera_rgb(white, LED, SENSOR) == pytest.approx(1.0)


def test_a_matrix_that_is_there_is_found() -> None:
    matrix = np.array([[1.6, -0.3, 0.0], [-0.5, 1.5, -0.4], [0.0, -0.2, 1.4]])
    seen = camera_rgb(skin_spectra(300), LED, SENSOR)
    assert fit_matrix(seen, seen @ matrix, np.ones(300)) == pytest.approx(matrix, abs=1e-3)


def test_the_model_reaches_from_very_light_to_dark_skin() -> None:
    ita = ita_of_lab(lab(linear_srgb(skin_spectra())))
    assert (ita > 41).mean() > 0.1
    assert (ita < -30).mean() > 0.1


def test_skin_measured_on_people_comes_out_in_its_own_colour(measured: npt.NDArray[np.float64]) -> None:
    led = load_board(BOARDS / "simulated-uncalibrated.toml").lights["white"].led
    right = lab(linear_srgb(measured))
    got = lab(camera_rgb(measured, led, SENSOR) @ skin_matrix(led, SENSOR))
    errors, ita = delta_e00(got, right), ita_of_lab(right)
    dark = ita < -30
    assert len(measured) > 7_000
    assert dark.sum() > 300
    found = {
        "mean": errors.mean(),
        "p95": np.percentile(errors, 95),
        "darkest group, median": np.median(errors[dark]),
        "ITA°": np.abs(ita_of_lab(got) - ita).mean(),
    }
    print({name: round(float(value), 3) for name, value in found.items()})
    assert found["mean"] <= 0.6
    assert found["p95"] <= 1.5
    assert found["darkest group, median"] <= 0.8
    assert found["ITA°"] <= 0.7


def test_a_matrix_fitted_to_the_chart_is_worse_on_skin(measured: npt.NDArray[np.float64]) -> None:
    """Why the chart only checks: the study's finding, kept true."""
    from hardware.targets import chart_spectra

    paints = chart_spectra()[12:]
    on_paints = fit_matrix(camera_rgb(paints, LED, SENSOR), linear_srgb(paints), np.ones(len(paints)))
    right, seen = lab(linear_srgb(measured)), camera_rgb(measured, LED, SENSOR)
    on_skin = delta_e00(lab(seen @ skin_matrix(LED, SENSOR)), right).mean()
    assert delta_e00(lab(seen @ on_paints), right).mean() > 1.5 * on_skin
