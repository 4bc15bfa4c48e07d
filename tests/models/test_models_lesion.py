"""The outline and the class of a lesion: the answers, what is refused, and that turning changes little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hardware.simulated.close_up import draw_skin
from models.analysis import lesion, outline
from models.analysis.abcd import abcd
from models.analysis.artefacts import artefacts
from models.analysis.lesion import chances, constants, find_lesion
from models.analysis.outline import find_outline
from models.analysis.refusal import Refused
from models.networks.lesion_views import CLASSES
from models.training.dermoscopes import FITTED as FITTED_KINDS
from models.training.dermoscopes import UNSEEN, altered
from models.training.strange import FITTED, TESTED, example

DERMAKIOSK = Path(sys.executable).with_name("dermakiosk")


def _close_up(height: int = 300, width: int = 400, size: float = 1.0) -> np.ndarray:
    """A drawn mole on drawn skin: brown, a little ragged, with a darker part, somewhat to the left."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:height, 0:width] / height
    angle = np.arctan2(y - 0.48, x - 0.6)
    radius = (
        np.hypot((x - 0.6) / 1.2, y - 0.48)
        / (0.24 + 0.012 * np.sin(5 * angle) + 0.01 * np.cos(3 * angle))
        / size
    )
    inside = 1 / (1 + np.exp((radius - 1) * 18))
    texture = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), height / 120)
    texture = texture / texture.std()
    # Skin and moles vary in hue as well as in lightness.
    tint = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)), (0, 0), height / 20)
    tint = 5 * tint / tint.std()
    skin = np.array([205, 150, 148]) + 4 * texture[..., None] + tint
    mole = np.array([125, 80, 62]) + 12 * texture[..., None] + 2 * tint - 25 * (radius < 0.55)[..., None]
    return np.clip(skin * (1 - inside[..., None]) + mole * inside[..., None], 0, 255).astype(np.uint8)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).astype(bool).sum() / (a | b).astype(bool).sum())


def _analyse(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(DERMAKIOSK), "analyse", "lesion", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def close_up() -> np.ndarray:
    return _close_up()


def test_the_mask_has_the_pictures_size_and_lies_on_the_lesion(close_up: np.ndarray) -> None:
    mask = find_outline(close_up).mask
    drawn = np.where(close_up[..., 0] < 165, np.uint8(255), np.uint8(0))
    assert mask.shape == close_up.shape[:2] and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert _overlap(mask, drawn) > 0.8


def test_a_small_lesion_in_a_fine_picture_is_outlined_more_closely_at_a_second_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = _close_up(900, 1200, size=0.3)
    drawn = np.where(picture[..., 0] < 165, np.uint8(255), np.uint8(0))
    again = find_outline(picture)
    monkeypatch.setattr(outline, "_closer", lambda mask: None)
    once = find_outline(picture)
    assert _overlap(again.mask, drawn) > max(0.8, _overlap(once.mask, drawn))
    assert (again.sureness, again.doubt) == (once.sureness, once.doubt)


def test_grain_is_measured_and_grainy_skin_is_answered_like_the_same_skin_without(
    close_up: np.ndarray,
) -> None:
    small = cv2.resize(close_up, (200, 150), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(4).normal(0, 14, small.shape)
    grainy = np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)
    assert lesion._grain(small) < lesion._GRAINY < lesion._grain(grainy)
    plain, found = find_lesion(small), find_lesion(grainy)
    assert _overlap(plain.mask, found.mask) > 0.9
    assert np.abs(plain.chances - found.chances).max() < 0.3


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_has_the_same_outline_and_nearly_the_same_chances(
    close_up: np.ndarray, turns: int
) -> None:
    turned = np.ascontiguousarray(np.rot90(close_up, turns))
    straight, other = find_lesion(close_up), find_lesion(turned)
    assert _overlap(straight.mask, np.rot90(other.mask, -turns)) > 0.95
    assert np.abs(straight.chances - other.chances).max() < 0.2
    assert straight.melanoma_like == other.melanoma_like


def test_a_larger_picture_of_the_same_lesion_says_the_same(close_up: np.ndarray) -> None:
    large = cv2.resize(close_up, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    small, big = find_lesion(close_up), find_lesion(large)
    assert _overlap(cv2.resize(small.mask, big.mask.shape[::-1]), big.mask) > 0.93
    assert np.abs(small.chances - big.chances).max() < 0.2


def test_chances_sum_to_one_and_keep_the_order_of_the_logits_without_a_prior() -> None:
    logits = np.array([[3.0, 1, 0, -1, 2, 4, -2]])
    made = chances(logits, constants()["classes"] | {"share": 0})
    assert made.sum() == pytest.approx(1) and (made.argsort() == logits.argsort()).all()
    assert len(constants()["classes"]["prior"]) == len(CLASSES)


def test_the_chance_of_melanoma_rises_with_its_own_logit_and_falls_with_any_other() -> None:
    known, mel = constants()["classes"], CLASSES.index("mel")
    logits = np.random.default_rng(3).normal(0, 2, (20, len(CLASSES)))
    before = chances(logits, known)[:, mel]
    for index, name in enumerate(CLASSES):
        after = chances(logits + np.eye(len(CLASSES))[index], known)[:, mel]
        assert (after > before).all() if name == "mel" else (after < before).all()


@pytest.mark.parametrize(("first", "last", "like"), [("mel", "nv", True), ("nv", "mel", False)])
def test_a_lesion_whose_first_class_is_melanoma_is_melanoma_like(
    close_up: np.ndarray, monkeypatch: pytest.MonkeyPatch, first: str, last: str, like: bool
) -> None:
    real = lesion.view_logits

    def ordered(*arguments: Any) -> np.ndarray:
        """The network's own logits, in an order of the classes that is not its own."""
        logits = real(*arguments)
        order = [name for name in CLASSES if name not in (first, last)]
        columns = [CLASSES.index(name) for name in (last, *order, first)]
        changed = np.empty_like(logits)
        changed[:, columns] = logits[:, logits.mean(axis=0).argsort()]
        return changed

    monkeypatch.setattr(lesion, "view_logits", ordered)
    found = find_lesion(close_up)
    assert CLASSES[int(found.chances.argmax())] == first
    assert found.melanoma == found.chances[CLASSES.index("mel")]
    assert found.melanoma_like is like


def test_no_scene_that_fitted_the_refusal_tests_it() -> None:
    fitted, tested = ({name.split("_")[0] for name in names.split()} for names in (FITTED, TESTED))
    assert not fitted & tested


@pytest.mark.parametrize("name", sorted(set(TESTED.split()) - {"retina"}))
def test_what_is_no_close_up_of_skin_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        find_lesion(example(name))


@pytest.mark.parametrize("kind", [*FITTED_KINDS, *UNSEEN])
def test_a_close_up_of_another_dermoscope_or_clinic_keeps_its_scores(kind: str) -> None:
    drawn = draw_skin(400, 300, 1)
    draw = np.random.default_rng(len(kind))
    alter = (FITTED_KINDS | UNSEEN)[kind]
    picture = altered(drawn.picture, np.where(drawn.lesion, np.uint8(255), np.uint8(0)), [alter], draw)
    assert find_lesion(picture).chances.sum() == pytest.approx(1)


def test_a_merely_unusual_close_up_is_called_that_and_a_usual_one_is_not(
    close_up: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = constants()["refusal"]["unusual"]
    monkeypatch.setattr(lesion, "unusualness", lambda traits, known: np.float64(limit + 0.1))
    unusual = find_lesion(close_up)
    monkeypatch.setattr(lesion, "unusualness", lambda traits, known: np.float64(limit))
    usual = find_lesion(close_up)
    assert "unusual" in unusual.flags and "unusual" not in usual.flags
    assert np.array_equal(unusual.chances, usual.chances)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("thin dark hairs", "hair"),
        ("thick dark hairs", "hair"),
        ("fair hairs", "hair"),
        ("gel bubbles", "gel"),
        ("ruler", "ruler"),
        ("pen ink", "ink"),
        ("sticker", "sticker"),
    ],
)
def test_what_lies_over_the_skin_is_found_and_on_bare_skin_nothing_is(
    close_up: np.ndarray, kind: str, name: str
) -> None:
    mask = np.where(close_up[..., 0] < 165, np.uint8(255), np.uint8(0))
    assert artefacts(close_up, mask) == ()
    found = 0
    for seed in range(1, 9):
        picture = altered(close_up, mask, [FITTED_KINDS[kind]], np.random.default_rng(seed))
        found += name in artefacts(picture, cv2.resize(mask, picture.shape[1::-1]))
    assert found >= 6


def test_a_wall_noise_and_a_frame_of_skin_without_a_spot_are_refused() -> None:
    rng = np.random.default_rng(1)
    for picture in (
        rng.integers(0, 256, (300, 400, 3)),
        np.clip(rng.normal((232, 228, 220), 3, (300, 400, 3)), 0, 255),
        np.clip(rng.normal((210, 160, 140), 3, (300, 400, 3)), 0, 255),
    ):
        with pytest.raises(Refused):
            find_lesion(picture.astype(np.uint8))


@pytest.mark.parametrize(("size", "reason"), [((8, 8), "too_small"), ((300, 400), "too_dark")])
def test_too_small_and_too_dark_are_said(size: tuple[int, int], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        find_lesion(np.zeros((*size, 3), np.uint8))
    assert refused.value.code == reason


def test_a_disc_is_symmetric_and_a_half_moon_is_not() -> None:
    disc, picture = np.zeros((300, 400), np.uint8), np.full((300, 400, 3), 120, np.uint8)
    cv2.circle(disc, (200, 150), 80, 255, -1)
    moon = disc.copy()
    cv2.circle(moon, (240, 120), 70, 0, -1)
    whole, part = abcd(picture, disc), abcd(picture, moon)
    assert whole["asymmetry"] < 0.02 and whole["border"] < 0.12
    assert part["asymmetry"] > whole["asymmetry"] + 0.05 and part["border"] > whole["border"] + 0.2
    assert whole["diameter_px"] == pytest.approx(161, abs=2) and whole["diameter_mm"] is None


def test_a_speck_too_small_to_measure_has_no_features() -> None:
    mask = np.zeros((20, 5000), np.uint8)
    mask[3, 2501] = 255
    speck = abcd(np.full((20, 5000, 3), 120, np.uint8), mask)
    disc = abcd(np.full((20, 20, 3), 120, np.uint8), np.full((20, 20), 255, np.uint8))
    assert speck.keys() == disc.keys()
    assert not any(speck.values())


def test_colours_are_named_as_dermoscopy_names_them() -> None:
    picture, mask = np.zeros((100, 100, 3), np.uint8), np.full((100, 100), 255, np.uint8)
    picture[:, :60], picture[:, 60:97], picture[:, 97:] = (108, 62, 42), (33, 28, 27), (190, 80, 70)
    assert abcd(picture, mask)["colours"] == ["dark brown", "black"]


def test_white_is_only_what_is_lighter_than_the_skin_around() -> None:
    picture, mask = np.full((100, 100, 3), (228, 205, 190), np.uint8), np.zeros((100, 100), np.uint8)
    mask[20:80, 20:80] = 255
    picture[20:80, 20:80] = (208, 186, 172)  # nearest to white of all six, and darker than its skin
    assert abcd(picture, mask)["colours"] == ["light brown"]
    picture[40:80, 20:80] = (244, 238, 235)
    assert abcd(picture, mask)["colours"] == ["white", "light brown"]


def test_the_command_answers_every_picture_in_order(
    tmp_path: Path, close_up: np.ndarray, landscape: np.ndarray
) -> None:
    for name, picture in (("mole", close_up), ("coffee", landscape)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    files = [tmp_path / name for name in ("coffee.png", "broken.jpg", "mole.png")]
    done = _analyse(*files, "--json", "-", "--masks", tmp_path / "masks")
    assert done.returncode == 0
    coffee, broken, mole = map(json.loads, done.stdout.splitlines())
    assert coffee["refused"] == "not_skin" and broken["error"] == "not_a_picture"
    assert set(mole["classes"]) == set(CLASSES)
    assert sum(mole["classes"].values()) == pytest.approx(1, abs=1e-4)
    assert mole["melanoma"] == mole["classes"]["mel"]
    assert mole["melanoma_like"] == (mole["melanoma"] >= constants()["melanoma"]["never_benign"])
    assert mole["model"].startswith("lesion-class@")
    assert isinstance(mole["flags"], list)
    mask = cv2.imread(str(tmp_path / "masks" / "mole.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == close_up.shape[:2] and (mask > 0).sum() == mole["area_px"]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["mole.png"]


def test_the_command_fails_in_one_sentence_where_nothing_can_be_used(
    tmp_path: Path, landscape: np.ndarray
) -> None:
    file = tmp_path / "coffee.png"
    cv2.imwrite(str(file), landscape[..., ::-1])
    done = _analyse(file, "--json", tmp_path / "rows.jsonl")
    assert done.returncode == 2
    assert "close-up of skin" in done.stderr and len(done.stderr.splitlines()) == 1
