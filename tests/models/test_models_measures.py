"""Measures have the values that the colour science and the planted truth say."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.colour import lab
from models.analysis.colour import ita_degrees, linear, to_srgb8
from models.analysis.findings import Field, measure
from models.analysis.pigment import erythema_index, melanin_index
from models.analysis.redness import red_places
from models.analysis.spots import find_spots
from tests.support.skin import SKIN


def _plain(side: int = 400) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(3).normal(1.0, 0.01, (side, side, 1)).astype(np.float32)
    return SKIN * noise, np.full((side, side), 255, np.uint8)


def _with_spots(places: list[tuple[int, int, float]], contrast: float, mm_per_px: float) -> np.ndarray:
    """Plain skin with Gaussian spots: (x, y, standard deviation in mm), contrast in optical density."""
    light, _ = _plain()
    ys, xs = np.mgrid[: light.shape[0], : light.shape[1]]
    density = np.zeros(light.shape[:2])
    for x, y, sigma_mm in places:
        distance = np.hypot(xs - x, ys - y) * mm_per_px
        density += contrast * np.exp(-(distance**2) / 2 / sigma_mm**2)
    return (light * 10 ** -density[..., None]).astype(np.float32)


def test_lab_of_known_colours() -> None:
    white, grey, red = lab(np.array([[1.0, 1, 1], [0.18, 0.18, 0.18], [1, 0, 0]]))
    assert white == pytest.approx([100, 0, 0], abs=0.01)
    assert grey == pytest.approx([49.5, 0, 0], abs=0.05)
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


def test_ita_falls_from_light_to_dark_skin() -> None:
    tones = [SKIN * share for share in (1.6, 1.0, 0.5, 0.2, 0.08)]
    angles = [float(ita_degrees(tone)) for tone in tones]
    assert angles == sorted(angles, reverse=True)
    assert angles[0] > 41 and angles[-1] < -30


def test_the_indices_are_what_their_formulas_say() -> None:
    assert float(melanin_index(np.array([0.1, 0.05, 0.05]))) == pytest.approx(100)
    assert float(erythema_index(np.array([0.5, 0.05, 0.05]))) == pytest.approx(100)
    assert float(melanin_index(np.zeros(3))) == pytest.approx(300)


def test_srgb_goes_to_linear_light_and_back() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert np.abs(to_srgb8(linear(every, "srgb")).astype(int) - every).max() <= 1
    assert float(linear(np.array(65535, np.uint16), "linear-srgb")) == 1.0


@pytest.mark.parametrize("mm_per_px", [0.1, 0.16, 0.22])
def test_planted_spots_are_all_found_at_their_places(mm_per_px: float) -> None:
    places = [(80, 90, 0.6), (200, 120, 1.0), (310, 300, 1.5), (120, 300, 0.8)]
    light = _with_spots(places, 0.15, mm_per_px)
    spots = find_spots(light, np.full(light.shape[:2], 255, np.uint8), mm_per_px)
    assert len(spots) == len(places)
    for x, y, sigma in places:
        nearest = min(spots, key=lambda spot: (spot.x - x) ** 2 + (spot.y - y) ** 2)
        assert np.hypot(nearest.x - x, nearest.y - y) * mm_per_px < 0.5
        # At half of its height a Gaussian is 2·sqrt(2·ln 2)·sigma wide.
        assert nearest.area_mm2 == pytest.approx(np.pi * 2 * np.log(2) * sigma**2, rel=0.45)
        assert nearest.contrast == pytest.approx(0.15, rel=0.35)


def test_plain_noisy_skin_has_no_spot() -> None:
    light, skin = _plain()
    assert find_spots(light, skin, 0.16) == []


def test_a_hair_is_no_spot() -> None:
    light, skin = _plain()
    for k in range(300):
        light[50 + k, 100 + k // 2 : 106 + k // 2] *= 0.5
    assert len(find_spots(light, skin, 0.16)) <= 1


def test_a_broken_fold_is_no_row_of_spots() -> None:
    light, skin = _plain()
    ys, xs = np.mgrid[:400, :400]
    depth = np.exp(-(((xs - 200) * 0.16) ** 2) / 2 / 0.8**2) * (1 + 0.25 * np.sin(ys / 8))
    light *= (10 ** (-0.15 * depth))[..., None].astype(np.float32)
    assert len(find_spots(light, skin, 0.16)) <= 1


def test_the_edge_of_the_skin_is_no_spot() -> None:
    light, skin = _plain()
    light[:, :120] *= 0.05
    skin[:, :120] = 0
    assert find_spots(light, skin, 0.16) == []


def test_no_skin_gives_no_spots() -> None:
    light, skin = _plain()
    assert find_spots(light, np.zeros_like(skin), 0.16) == []


def test_a_red_patch_is_measured_as_its_share() -> None:
    light, skin = _plain()
    light[100:200, 100:200, 1:] *= 0.7
    red = red_places(light, skin, 0.16)
    assert red.mean() == pytest.approx(1 / 16, rel=0.1)


def test_intervals_hold_the_value_and_shrink_with_more_skin() -> None:
    rng = np.random.default_rng(5)
    uneven = np.kron(rng.normal(1.0, 0.1, (40, 40)), np.ones((30, 30)))[..., None]
    light = (SKIN * uneven).astype(np.float32)
    small, large = np.zeros(light.shape[:2], bool), np.ones(light.shape[:2], bool)
    small[:300, :300] = True
    field = Field(light, {"nose": small, "face": large}, 0.16, "network@0123")
    findings, flags = measure(field, np.zeros_like(small), [])
    width = {}
    for finding in findings:
        assert finding.low <= finding.value <= finding.high
        width[finding.zone, finding.measure] = finding.high - finding.low
    assert flags == []
    assert width["face", "melanin_index"] < 0.5 * width["nose", "melanin_index"]
    assert {f.unit for f in findings} == {"deg", "1", "%", "mm2"}


def test_the_interval_of_a_mean_holds_the_truth_19_times_in_20() -> None:
    rng, hits, rounds = np.random.default_rng(6), 0, 60
    truth = float(melanin_index(SKIN))
    side = round(5.0 / 0.5)
    for _ in range(rounds):
        blocks = np.kron(rng.normal(1.0, 0.06, (12, 12)), np.ones((side, side)))[..., None]
        light = (SKIN * blocks).astype(np.float32)
        mask = np.ones(light.shape[:2], bool)
        findings, _ = measure(Field(light, {"face": mask}, 0.5, "n"), ~mask, [])
        found = next(f for f in findings if f.measure == "melanin_index")
        hits += found.low <= truth <= found.high
    assert hits / rounds > 0.85


def test_no_spot_seen_still_allows_three() -> None:
    light, skin = _plain()
    findings, _ = measure(Field(light, {"face": skin > 0}, 0.16, "n"), np.zeros(skin.shape, bool), [])
    count = next(f for f in findings if f.measure == "spot_count")
    assert (count.value, count.low, count.high) == (0, 0, 3)


def test_a_zone_without_enough_skin_is_flagged_and_left_out() -> None:
    light, skin = _plain()
    masks = {"face": skin > 0, "chin": np.zeros(skin.shape, bool)}
    findings, flags = measure(Field(light, masks, 0.16, "n"), np.zeros(skin.shape, bool), [])
    assert flags == ["chin_hidden"]
    assert {f.zone for f in findings} == {"face"}
