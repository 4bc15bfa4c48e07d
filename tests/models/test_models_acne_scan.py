"""Acne in a scan: counted in white light by zone, with the interval that its measured error gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from hardware.capture import Capture, Frame
from hardware.capture_folder import read_capture_folder
from models.analysis.acne import NETWORK, Acne, acne_in, acne_of_face, as_it_is
from models.analysis.acne_count import AcneLesion, acne_findings, constants, interval, lesions_on
from models.analysis.capture import NETWORKS, Analysis, analyse_capture
from models.analysis.colour import linear, to_srgb8
from models.analysis.face import Face, find_face
from models.analysis.lights import lights_read
from models.analysis.parsing import parse
from models.analysis.pen import Pen
from models.analysis.skin import facial_skin
from models.analysis.zones import outline, zone_masks
from models.networks.manifest import ModelsError, load_manifest
from models.training.acne_error import coverage, grades, least_side, roots, written
from sync.wire.findings import Finding

DERMAKIOSK = Path(sys.executable).with_name("dermakiosk")
SCAN = UUID("11111111-2222-4333-8444-555555555555")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom's capture folder, with six papules among forty spots."""
    folder = tmp_path_factory.mktemp("phantom") / "4"
    command = [
        DERMAKIOSK,
        "phantom",
        "--seed",
        "4",
        "--lights",
        ",".join(sorted(lights_read())),
        "--out",
        folder,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def analysis(phantom: Path) -> Analysis:
    return analyse_capture(read_capture_folder(phantom), SCAN)


def _counts(analysis: Analysis) -> dict[str, Finding]:
    return {str(f.zone): f for f in analysis.findings.findings if f.measure == "acne_count"}


def test_half_of_a_phantoms_papules_are_found_and_the_interval_holds_their_number(
    phantom: Path, analysis: Analysis
) -> None:
    truth = json.loads((phantom / "truth.json").read_text())
    papules = np.array([lesion["place"] for lesion in truth["lesions"] if lesion["class"] == "papule"])
    count = _counts(analysis)["face"]
    assert count.low <= len(papules) <= count.high
    [white] = [f for f in read_capture_folder(phantom).frames if f.light == "white"]
    picture = to_srgb8(linear(white.pixels, white.colour))
    boxes = acne_of_face(find_face(picture), picture, as_it_is).counted
    held = [((boxes[:, :2] <= place) & (place <= boxes[:, 2:4])).all(axis=1).any() for place in papules]
    assert sum(held) >= len(papules) / 2


def test_counts_are_whole_and_the_zones_are_no_more_than_the_face(analysis: Analysis) -> None:
    counts = _counts(analysis)
    assert all(float(v).is_integer() for f in counts.values() for v in (f.value, f.low, f.high))
    assert sum(f.value for zone, f in counts.items() if zone != "face") <= counts["face"].value
    assert counts["face"].value > 0 and counts["face"].model.startswith("acne@")


def test_every_counted_lesion_is_marked_on_the_drawn_face(analysis: Analysis) -> None:
    marks = [mark for mark in analysis.findings.geometry.marks if mark.kind == "acne"]
    counts = _counts(analysis)
    assert len(marks) == counts["face"].value
    for zone in counts.keys() - {"face"}:
        assert sum(mark.zone == zone for mark in marks) == counts[zone].value
    assert all(abs(mark.x) <= 1.1 and 0.005 < mark.radius < 0.3 for mark in marks)


def test_the_acne_network_is_verified_and_named_with_the_findings(analysis: Analysis) -> None:
    assert "acne" in NETWORKS
    assert analysis.findings.models["acne"] == load_manifest().entry("acne").sha256
    [severity] = [f for f in analysis.findings.findings if f.measure == "acne_severity"]
    assert severity.model == load_manifest().entry(NETWORK).reference
    assert 0 <= severity.low <= severity.value <= severity.high <= 3


def test_the_overlay_says_that_it_was_counted_in_the_light_that_it_shows(
    large_portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    write = Pen.write

    def noted(pen: Pen, x: float, y: float, text: str, *how: object) -> None:
        said.append(text)
        write(pen, x, y, text, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(Pen, "write", noted)
    _measured(large_portrait)
    blemishes = said[said.index("Blemishes") :]
    assert "White light." in blemishes and "blemishes: 0" in blemishes
    assert not any("acne" in text.lower() for text in said)


def _measured(picture: np.ndarray, light: str = "white") -> Analysis:
    pixels = np.round(linear(picture, "srgb") * 65535).astype(np.uint16)
    frames = tuple(
        Frame(name, p, 8000, 1.0, n) for n, (name, p) in enumerate([(light, pixels), ("cross", pixels // 2)])
    )
    return analyse_capture(Capture("test", frames, "nominal-test", simulated=True), SCAN)


def test_a_face_too_small_to_count_on_is_measured_without_acne(portrait: np.ndarray) -> None:
    small = _measured(portrait)
    assert "acne_not_counted" in small.findings.quality
    assert not any(f.measure.startswith("acne") for f in small.findings.findings)
    assert "acne" not in small.overlays and "redness" in small.overlays
    assert any(f.measure == "ita" for f in small.findings.findings)


def test_acne_counted_in_polarised_light_is_flagged(large_portrait: np.ndarray) -> None:
    assert "acne_in_polarised_light" in _measured(large_portrait, "parallel").findings.quality
    assert "acne_in_polarised_light" not in _measured(large_portrait).findings.quality


def test_a_large_frame_is_looked_at_in_the_same_square_as_a_small_one(large_portrait: np.ndarray) -> None:
    face = find_face(large_portrait)
    once = acne_of_face(face, large_portrait, as_it_is)
    frame = np.full((3040, 4056, 3), 30, np.uint8)
    frame[700 : 700 + large_portrait.shape[0], 1200 : 1200 + large_portrait.shape[1]] = large_portrait
    moved = Face(face.box, face.score, face.landmarks + [1200, 700, 0], face.presence)
    again = acne_of_face(moved, frame, as_it_is)
    assert len(again.counted) == len(once.counted) > 0
    assert np.allclose(again.counted[:, :4], once.counted[:, :4] + [1200, 700, 1200, 700], atol=1)


def test_linear_light_is_developed_after_it_is_reduced(large_portrait: np.ndarray) -> None:
    pixels = np.round(linear(large_portrait, "srgb") * 65535).astype(np.uint16)
    sizes = []

    def develop(square: np.ndarray) -> np.ndarray:
        sizes.append(square.shape)
        return to_srgb8(linear(square, "linear-srgb"))

    size = large_portrait.shape[0]
    found = acne_in((0, 0, size, size), pixels, develop)
    plain = acne_in((0, 0, size, size), large_portrait, as_it_is)
    assert sizes == [(640, 640, 3)]
    assert abs(len(found.counted) - len(plain.counted)) <= 1


def test_a_lesion_belongs_to_the_zone_that_holds_most_of_its_box() -> None:
    face = np.zeros((100, 100), bool)
    face[10:90, 10:90] = True
    nose, chin = np.zeros_like(face), np.zeros_like(face)
    nose[10:50, 10:90], chin[60:90, 10:90] = True, True
    boxes = np.array([[20, 40, 30, 54, 0.9, 0], [40, 52, 44, 57, 0.9, 0], [2, 2, 12, 12, 0.9, 0]])
    found = lesions_on(boxes, {"face": face, "nose": nose, "chin": chin})
    assert [(lesion.zone, lesion.x, lesion.y) for lesion in found] == [("nose", 25, 47), ("face", 42, 54.5)]


@pytest.mark.parametrize("part", ["lips_outer", "left_eye", "right_eye", "left_brow", "right_brow"])
def test_what_lies_on_lips_eyes_and_brows_is_no_lesion_of_a_scan(portrait: np.ndarray, part: str) -> None:
    face = find_face(portrait)
    masks = zone_masks(face.points, facial_skin(parse(portrait, [face]), face))
    ring = outline(face.points, part)
    within = (ring + ring.mean(0)) / 2  # half-way to the middle: teeth are not lips, so not the middle alone
    here = lesions_on(np.hstack([within - 2, within + 2]), masks)
    cheek = face.points[[50, 280]]  # the middle of either
    assert (here, len(lesions_on(np.hstack([cheek - 2, cheek + 2]), masks))) == ([], 2)


def test_few_lesions_may_be_none_and_the_interval_widens_with_the_count() -> None:
    known = constants()["face"]
    ends = [interval(counted, known) for counted in range(100)]
    assert all(low <= counted <= high for counted, (low, high) in enumerate(ends))
    assert ends[0][0] == ends[known["clear"]][0] == 0 and ends[0][1] > 0
    assert ends[60][1] - ends[60][0] > ends[15][1] - ends[15][0] > ends[1][1] - ends[1][0]


def test_constants_made_with_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load_manifest()
    acne = manifest.entry("acne").model_copy(update={"sha256": "0" * 64})
    other = manifest.model_copy(update={"networks": manifest.networks | {"acne": acne}})
    monkeypatch.setattr("models.networks.manifest.load_manifest", lambda: other)
    constants.cache_clear()
    with pytest.raises(ModelsError, match=r"acne.toml was made with another 'acne'"):
        constants()
    constants.cache_clear()


def test_intervals_hold_95_percent_of_counts_that_err_as_those_they_were_made_of() -> None:
    draw = np.random.default_rng(3)
    counted = draw.integers(0, 40, 600)
    pairs = [(int(c), int(n)) for c, n in zip(counted, draw.poisson(counted + 1), strict=True)]
    levels = (0, 4, 9, 21)
    assert 0.93 < coverage(pairs, levels, clear=2) < 0.995
    table = roots(pairs, levels)
    assert sum(table["pictures"]) == 600 and all(
        b < a for b, a in zip(table["below"], table["above"], strict=True)
    )


def test_a_grade_names_the_narrowest_run_that_holds_95_percent() -> None:
    said = [0] * 100 + [1] * 100 + [2] * 10 + [3] * 10
    true = [0] * 97 + [1] * 3 + [0] * 10 + [1] * 80 + [2] * 10 + [2] * 10 + [3] * 9 + [1]
    assert grades(said, true) == {"low": [0, 0, 2, 1], "high": [0, 2, 2, 3]}


def test_the_least_size_is_where_the_count_begins_to_err() -> None:
    errors = {
        640: np.array([2, -2]),
        320: np.array([2, -2]),
        180: np.array([2, -2.1]),
        128: np.array([-3, -3]),
    }
    assert least_side(errors) == 180


def test_the_shipped_constants_are_what_their_command_writes() -> None:
    path = load_manifest().entry(NETWORK).constants
    assert path is not None
    tables = {name: table for name, table in constants().items() if name != "networks"}
    assert path.path.read_text() == written(tables)


def test_findings_name_only_the_zones_that_are_in_view(analysis: Analysis) -> None:
    large = AcneLesion(1.0, 1.0, 2.0, "chin")
    findings = acne_findings(Acne(np.zeros((0, 6)), 2), [large], ["face", "nose"])
    assert [(f.measure, f.zone, f.value) for f in findings] == [
        ("acne_count", "face", 1), ("acne_count", "nose", 0), ("acne_severity", "face", 2),
    ]  # fmt: skip
