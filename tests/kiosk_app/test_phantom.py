"""The phantom: what its truth says is what its pictures show."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from firmware.cameras.reflectance import to_srgb
from firmware.capture.eyes import eyes_closed
from hardware.board import BOARDS, Board, load_board
from hardware.capture import Capture
from hardware.capture_folder import read_capture_folder
from hardware.simulated.phantom.face import Phantom, PhantomPatient
from hardware.simulated.pose import View
from hardware.simulation import Simulation
from kiosk_app.demo.supervisor import dermakiosk
from kiosk_app.phantom_cli import take
from models.analysis.colour import ita_degrees, linear
from models.analysis.face import find_face
from models.analysis.lights import lights_read
from models.analysis.pigment import optical_density
from models.analysis.zones import zone_masks
from sync.wire.findings import canonical_face
from tests.support.system import small_system_board

SEED, TONE = 5, 38.0
_CHEEKS = ("left_cheek", "right_cheek")


@pytest.fixture(scope="module")
def board() -> Board:
    return load_board(BOARDS / "simulated.toml")


@pytest.fixture(scope="module")
def face(board: Board) -> Phantom:
    return Phantom(board, canonical_face, SEED, TONE)


@pytest.fixture(scope="module")
def capture(board: Board, face: Phantom) -> Capture:
    return take(board, face, ("dark", *board.lights), lambda *_: None)


def seen(capture: Capture, light: str) -> np.ndarray:
    """Reflectance under `light` (what crossed polarisers hold back made good), with the noise smoothed."""
    frame = capture.frame(light)
    assert frame is not None
    reflectance = linear(frame.pixels, frame.colour)
    return cv2.GaussianBlur(reflectance, (0, 0), 0.8) * (2 if light in ("cross", "parallel") else 1)


def in_zones(face: Phantom, *names: str) -> np.ndarray:
    return np.isin(face.zones, [1 + face.zone_names.index(name) for name in names])


def ring(values: np.ndarray, place: tuple[float, float], inner_px: float, outer_px: float) -> float:
    """Median of `values` between two distances from `place`."""
    x, y = place
    reach = int(outer_px) + 1
    rows, columns = np.mgrid[round(y) - reach : round(y) + reach + 1, round(x) - reach : round(x) + reach + 1]
    distance = np.hypot(columns - x, rows - y)
    chosen = (distance >= inner_px) & (distance <= outer_px)
    return float(np.median(values[rows[chosen], columns[chosen]]))


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        dermakiosk(*arguments), capture_output=True, text=True, timeout=240, check=False, cwd=cwd
    )


def test_a_planted_spot_is_darker_by_what_the_truth_says(face: Phantom, capture: Capture) -> None:
    density = optical_density(seen(capture, "cross"))[..., :2].mean(axis=-1)
    planted = [spot for spot in face.marks["spots"] if spot["area_mm2"] > 4]
    assert len(planted) > 5
    told, found = [], []
    for spot in planted:
        radius = (spot["area_mm2"] / np.pi) ** 0.5 / face.mm_per_px
        middle = ring(density, spot["place"], 0, 0.35 * radius)
        told.append(spot["contrast"])
        found.append(middle - ring(density, spot["place"], 1.7 * radius, 2.0 * radius))
    assert min(found) > 0
    assert np.corrcoef(told, found)[0, 1] > 0.85
    assert np.median(np.abs(np.subtract(told, found))) < 0.03


def test_deep_pigment_shows_in_white_light_and_hardly_under_uv(face: Phantom) -> None:
    by_class: dict[str, list[float]] = {"epidermal": [], "mixed": [], "dermal": []}
    for spot in face.marks["spots"]:
        by_class[spot["class"]].append(spot["contrast_uv"] / spot["contrast"])
    epidermal, mixed, dermal = (np.median(by_class[name]) for name in ("epidermal", "mixed", "dermal"))
    assert epidermal > 1 > dermal
    assert epidermal > mixed > dermal


def test_more_melanin_is_darker_and_more_blood_redder(face: Phantom, capture: Capture) -> None:
    density = cv2.GaussianBlur(optical_density(seen(capture, "cross")), (0, 0), 1.5)
    cheeks = in_zones(face, *_CHEEKS)
    chosen = np.random.default_rng(0).choice(np.flatnonzero(cheeks), 8000, replace=False)

    def rank_correlation(truth: np.ndarray, measured: np.ndarray) -> float:
        known = cv2.GaussianBlur(truth, (0, 0), 1.5)
        ranks = [values.ravel()[chosen].argsort().argsort() for values in (known, measured)]
        return float(np.corrcoef(*ranks)[0, 1])

    assert rank_correlation(face.haemoglobin, density[:, :, 1] - density[:, :, 0]) > 0.7
    # Melanin takes more of the blue than of the red, blood of the green; shading takes all alike.
    unmixed = density @ np.linalg.inv([[0.43, 0.61, 0.86], [0.05, 1.0, 0.62], [1, 1, 1]])
    assert rank_correlation(face.melanin, unmixed[:, :, 0]) > 0.7


def test_normals_are_those_of_the_depth(face: Phantom) -> None:
    assert np.allclose(np.linalg.norm(face.normals, axis=2), 1, atol=1e-4)
    right = -face.normals[:, :, 0] / face.normals[:, :, 2]
    row = round(face.plan.landmarks[4, 1])
    left, last = (round(face.plan.landmarks[index, 0]) for index in (50, 280))
    steps = (right[row, left:last] + right[row, left + 1 : last + 1]) / 2
    climbed = np.cumsum(steps) * face.mm_per_px
    assert np.allclose(climbed, face.depth_mm[row, left + 1 : last + 1] - face.depth_mm[row, left], atol=0.1)
    # The tip of the nose stands out of the cheeks by what a nose does.
    assert 15 < face.depth_mm[row, round(face.plan.landmarks[4, 0])] - face.depth_mm[row, left] < 45


def test_light_from_one_side_shows_the_slopes_of_the_truth(face: Phantom, capture: Capture) -> None:
    cheeks = in_zones(face, *_CHEEKS)
    lit = {light: seen(capture, light).mean(axis=2)[cheeks] for light in ("dir0", "dir1", "dir2", "dir3")}
    across = (lit["dir0"] - lit["dir1"]) / (lit["dir0"] + lit["dir1"])
    down = (lit["dir3"] - lit["dir2"]) / (lit["dir3"] + lit["dir2"])
    assert np.corrcoef(across, face.normals[cheeks][:, 0])[0, 1] > 0.9
    assert np.corrcoef(down, face.normals[cheeks][:, 1])[0, 1] > 0.7


def test_porphyrins_glow_red_under_uv_and_nowhere_else(face: Phantom, capture: Capture) -> None:
    def stands_out(light: str) -> list[float]:
        red = seen(capture, light)[:, :, 0]
        return [
            ring(red, point["place"], 0, 1) - ring(red, point["place"], 6, 10)
            for point in face.marks["porphyrins"]
        ]

    assert len(face.marks["porphyrins"]) > 20
    assert np.mean(np.array(stands_out("uv365")) > 0.05) > 0.95
    assert abs(np.median(stands_out("white"))) < 0.02


def test_crossed_polarisers_hold_the_gloss_back(face: Phantom, capture: Capture) -> None:
    skin = in_zones(face, "forehead", "nose")
    light = {name: seen(capture, name).mean(axis=2) for name in ("parallel", "cross")}
    gloss = np.where(skin, light["parallel"] - light["cross"], 0)
    shiny = gloss > np.percentile(gloss[skin], 99)
    assert gloss[shiny].mean() > 0.1

    def stands_out(name: str) -> float:
        around = cv2.blur(light[name], (15, 15))
        return float((light[name] / around)[shiny].mean() - 1)

    assert stands_out("parallel") > 0.05
    assert abs(stands_out("cross")) < 0.2 * stands_out("parallel")


def test_pores_and_wrinkles_are_dark_lines_and_points(face: Phantom, capture: Capture) -> None:
    density = optical_density(seen(capture, "cross"))[..., 1]
    pores = [pore for pore in face.marks["pores"] if pore["diameter_mm"] > 0.3 and pore["zone"] != "nose"]
    darker = [ring(density, pore["place"], 0, 1) - ring(density, pore["place"], 5, 8) for pore in pores]
    assert np.mean(np.array(darker) > 0) > 0.9
    assert all(
        2 < wrinkle["length_mm"] < 90 and wrinkle["depth_mm"] < 0.6 for wrinkle in face.marks["wrinkles"]
    )
    assert all(wrinkle["contrast"] > 0 for wrinkle in face.marks["wrinkles"])


def test_the_face_finder_sees_the_zones_where_they_are(face: Phantom, capture: Capture) -> None:
    picture = to_srgb(capture.frame("white").pixels)
    found = find_face(picture)
    assert np.median(np.linalg.norm(found.points - face.plan.landmarks, axis=1)) * face.mm_per_px < 2.5
    skin = np.where(face.melanin > 0, 255, 0).astype(np.uint8)
    masks = zone_masks(found.points, skin)
    for name in face.zone_names:
        truth, measured = in_zones(face, name), masks[name]
        assert (truth & measured).sum() / (truth | measured).sum() > 0.8, name


def test_the_eyes_close_when_asked(board: Board, face: Phantom, capture: Capture) -> None:
    found = find_face(to_srgb(capture.frame("white").pixels))
    patient = PhantomPatient(board, face.scene)
    for asked in (False, True):
        patient.eyes_closed = asked
        view: View = patient.view("still", 0, Simulation())
        rows = [parts["white"] for _, parts in view.scene.strips({"white": 1.0}, {}, view.eyes_closed)]
        picture = np.clip(np.concatenate(rows) * 65_535, 0, 65_535).astype(np.uint16)
        assert eyes_closed(picture, found) is asked


@pytest.mark.parametrize(("seed", "tone"), [(1, 60.0), (2, 35.0), (3, 0.0), (4, -40.0)])
def test_the_cheeks_have_the_tone_asked_for(tmp_path: Path, seed: int, tone: float) -> None:
    board = load_board(small_system_board(tmp_path))
    face = Phantom(board, canonical_face, seed, tone)
    capture = take(board, face, ("white", "cross"), lambda *_: None)
    cheeks = in_zones(face, *_CHEEKS)
    for light in ("white", "cross"):
        colours = seen(capture, light)[cheeks]
        assert ita_degrees(colours.mean(axis=0)) == pytest.approx(tone, abs=2)
        assert ita_degrees(colours).mean() == pytest.approx(tone, abs=2)


def test_another_tone_is_the_same_face(board: Board, face: Phantom) -> None:
    darker = Phantom(board, canonical_face, SEED, -30.0)
    assert np.array_equal(darker.depth_mm, face.depth_mm)
    assert np.array_equal(darker.zones, face.zones)
    assert [spot["place"] for spot in darker.marks["spots"]] == [
        spot["place"] for spot in face.marks["spots"]
    ]
    assert np.median(darker.melanin[darker.zones > 0]) > 2 * np.median(face.melanin[face.zones > 0])


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    """Into an empty folder, however it is named, and nothing beside it is touched."""
    digests = []
    for folder, named in (("one", "."), ("two", "../face")):
        out, beside = tmp_path / folder / "face", tmp_path / folder / "face.part"
        for each in (out, beside):
            each.mkdir(parents=True)
        (beside / "kept").write_text("mine")
        made = run("phantom", "--seed", 12, "--tone", 20, "--lights", "white,uv365", "--out", named, cwd=out)
        assert made.returncode == 0, made.stderr
        assert "SIMULATED" in made.stdout
        assert (beside / "kept").read_text() == "mine"
        digests.append({file.name: hashlib.sha256(file.read_bytes()).digest() for file in out.iterdir()})
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"capture.json", "white.png", "uv365.png", "truth.npz", "truth.json"}
    capture, truth = read_capture_folder(out), json.loads((out / "truth.json").read_text())
    assert capture.mm_per_px == truth["mm_per_px"] and capture.simulated
    with np.load(out / "truth.npz") as maps:
        shape = capture.frames[0].pixels.shape[:2]
        assert min(shape) >= 1500 and max(shape) >= 2000
        assert {name: maps[name].shape for name in maps} == {
            "melanin": shape,
            "melanin_dermal": shape,
            "haemoglobin": shape,
            "depth_mm": shape,
            "normals": (*shape, 3),
            "zones": shape,
        }
        assert all(maps[name].dtype == np.float32 for name in maps)
    # A landmark network and this phantom share nothing but the numbering: the capture can be measured.
    measured = run("analyse", "capture", out, "--json", "-")
    assert measured.returncode == 0, measured.stderr
    assert "findings" in json.loads(measured.stdout)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--seed", 1, "--tone", 400), "--tone"),
        (("--seed", -1), "--seed"),
        (("--seed", "x"), "--seed"),
        (("--seed", 1, "--lights", "white,moon"), "moon"),
        (("--seed", 1, "--lights", ""), "--lights"),
        ((), "--seed"),
    ],
)
def test_what_no_phantom_can_be_made_from_is_named(
    tmp_path: Path, arguments: tuple[object, ...], word: str
) -> None:
    refused = run("phantom", "--out", tmp_path / "out", *arguments)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1 and word in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    refused = run("phantom", "--seed", 1, "--out", tmp_path)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1 and "holds something already" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "arguments", [("--tone", "20"), ("--phantom", "1", "--portrait", __file__), ("--phantom", "-3")]
)
def test_a_scan_wants_one_patient(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    board = BOARDS / "simulated.toml"
    refused = run("scan", "--board", board, "--out", tmp_path / "out", *arguments)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    real = run("scan", "--board", BOARDS / "laptop.toml", "--out", tmp_path / "out", "--phantom", 1)
    assert real.returncode == 2 and "simulated boards" in real.stderr


def test_a_scan_of_a_phantom_has_every_frame_that_is_read_and_finds_its_tone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    board = small_system_board(tmp_path)
    made = run("scan", "--board", board, "--out", out, "--phantom", 9, "--tone", -20)
    assert made.returncode == 0, made.stderr
    capture = read_capture_folder(out / "capture")
    assert {frame.light for frame in capture.frames} == {"dark", *lights_read()}
    assert not capture.missing
    findings = json.loads((out / "findings.json").read_text())["findings"]
    tones = [row["value"] for row in findings if row["measure"] == "ita" and row["zone"] in _CHEEKS]
    assert np.mean(tones) == pytest.approx(-20, abs=4)
