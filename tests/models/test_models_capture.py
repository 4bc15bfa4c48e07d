"""A Capture becomes Findings with pictures, or is refused by name with a sentence."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from uuid import UUID, uuid4

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hardware.capture import Capture, Frame
from hardware.capture_folder import write_capture_folder
from hardware.host.memory import in_memory
from models.analysis import acne
from models.analysis.batch import BatchError
from models.analysis.capture import Analysis, analyse_capture
from models.analysis.colour import linear
from models.analysis.describe import measure_folder
from models.analysis.face import find_face
from models.analysis.overlay import OVERLAYS
from models.analysis.redness import shows_redness
from models.analysis.refusal import Refused
from models.analysis.request import Request
from models.analysis.result import AnalysisResult, ResultError, read_result, write_result
from models.analysis.words import ENGLISH, Words
from models.cli import analyse
from models.networks.processor import instruction_set
from models.networks.runtime import DEFAULT_ENGINE
from sync.wire.findings.canonical_face import VERTICES

pytestmark = pytest.mark.usefixtures("one_look")

SCAN = UUID("11111111-2222-4333-8444-555555555555")


def _light(picture: np.ndarray) -> np.ndarray:
    return np.round(linear(picture, "srgb") * 65535).astype(np.uint16)


def _capture(picture: np.ndarray, **given: object) -> Capture:
    """What a simulated board would give: white light, and half of it through crossed polarisers."""
    white = _light(picture)
    frames = tuple(
        Frame(light, pixels.astype(np.uint16), 8000, 1.0, index)
        for index, (light, pixels) in enumerate([("white", white), ("cross", white // 2)])
    )
    given = {"board": "test", "frames": frames, "calibration": "nominal-test", "simulated": True} | given
    return Capture(**given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def analysis(large_portrait: np.ndarray) -> Analysis:
    return analyse_capture(_capture(large_portrait), SCAN)


def test_every_measure_is_there_for_the_zones_in_view(analysis: Analysis) -> None:
    findings = analysis.findings
    assert findings.scan == SCAN
    by_zone: dict[str, set[str]] = {}
    for finding in findings.findings:
        by_zone.setdefault(finding.zone, set()).add(finding.measure)
        assert "@" in finding.model
    for zone in ("face", "left_cheek", "right_cheek", "nose", "chin"):
        assert by_zone[zone] == {
            "ita", "melanin_index", "erythema_index", "redness", "spot_area", "spot_count",
            "acne_count",
        } | ({"acne_severity"} if zone == "face" else set())  # fmt: skip
    assert "uncalibrated_scale" in findings.quality
    assert "uncalibrated_colour" not in findings.quality
    assert findings.calibration == "nominal-test"


def test_findings_name_the_version_the_engine_and_the_processor_that_measured_them(
    analysis: Analysis,
) -> None:
    version, engine = (importlib.metadata.version(name) for name in ("dermakiosk", "ai-edge-litert"))
    named = f"dermakiosk {version}, ai-edge-litert {engine} on {instruction_set()}"
    assert analysis.findings.software == named


def test_the_same_capture_gives_the_same_findings(large_portrait: np.ndarray, analysis: Analysis) -> None:
    again = analyse_capture(_capture(large_portrait), SCAN)
    assert again.findings.findings == analysis.findings.findings
    assert again.findings.geometry == analysis.findings.geometry


def test_marks_lie_on_the_canonical_face(large_portrait: np.ndarray) -> None:
    spotted = large_portrait.copy()
    x, y = find_face(spotted).points[50]
    cv2.circle(spotted, (round(x), round(y)), 8, (60, 30, 20), -1, cv2.LINE_AA)
    marks = analyse_capture(_capture(cv2.GaussianBlur(spotted, (0, 0), 2)), SCAN).findings.geometry.marks
    near = [mark for mark in marks if np.hypot(mark.x - VERTICES[50][0], mark.y - VERTICES[50][1]) < 0.05]
    assert [mark.zone for mark in near] == ["right_cheek"]


def test_half_the_light_under_crossed_polarisers_is_the_same_skin(
    large_portrait: np.ndarray, analysis: Analysis
) -> None:
    only_white = Capture("test", (_capture(large_portrait).frames[0],), "nominal-test")
    plain = analyse_capture(only_white, SCAN)
    assert "no_cross_frame" in plain.findings.quality
    for a, b in zip(analysis.findings.findings, plain.findings.findings, strict=True):
        if a.measure == "ita":
            assert a.value == pytest.approx(b.value, abs=0.5)


def test_a_calibrated_scale_is_used_and_not_flagged(large_portrait: np.ndarray) -> None:
    first = analyse_capture(_capture(large_portrait, mm_per_px=0.25), SCAN).findings
    larger = cv2.resize(large_portrait, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    second = analyse_capture(_capture(larger, mm_per_px=0.125), SCAN).findings
    assert not {"uncalibrated_scale", "implausible_scale"} & set(first.quality)

    def values(findings: object) -> dict[tuple[str, str], float]:
        return {(f.zone, f.measure): f.value for f in findings.findings}  # type: ignore[attr-defined]

    a, b = values(first), values(second)
    assert b["face", "ita"] == pytest.approx(a["face", "ita"], abs=1.0)
    assert b["face", "spot_area"] == pytest.approx(a["face", "spot_area"], rel=0.4, abs=8)


@pytest.mark.parametrize("mm_per_px", [0.005, 0.05, 2.0])
def test_a_scale_by_which_no_face_has_this_size_is_not_believed(
    large_portrait: np.ndarray, analysis: Analysis, mm_per_px: float
) -> None:
    found = analyse_capture(_capture(large_portrait, mm_per_px=mm_per_px), SCAN).findings
    assert set(found.quality) == {*analysis.findings.quality, "implausible_scale"}
    assert "uncalibrated_scale" in found.quality
    assert found.findings == analysis.findings.findings


def test_where_no_skin_is_left_redness_cannot_be_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not shows_redness(np.full((4, 4, 3), 0.3, np.float32), np.zeros((4, 4), np.uint8))


def test_overlays_are_pictures_on_paper_that_hold_their_words(analysis: Analysis) -> None:
    assert set(analysis.overlays) == {"zones", "spots", "redness", "acne"}
    for picture in analysis.overlays.values():
        assert picture.dtype == np.uint8 and picture.shape[1:] == (1200, 3)
        assert tuple(picture[2, 2]) == (250, 248, 244)
        assert picture[20:120, 40:600].min() < 60


def test_missing_lights_are_flagged(large_portrait: np.ndarray) -> None:
    capture = _capture(large_portrait, missing={"uv365": "not allowed"})
    assert "no_uv365_frame" in analyse_capture(capture, SCAN).findings.quality


def _blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 22)


def _moved(picture: np.ndarray) -> np.ndarray:
    return cv2.blur(picture, (61, 1))


def _dim(picture: np.ndarray) -> np.ndarray:
    return (picture * 0.04).astype(np.uint8)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_blurred, "too_blurred"),
        (_moved, "too_blurred"),
        (_dim, "too_dark"),
        (np.zeros_like, "too_dark"),
        (lambda picture: np.full_like(picture, 128), "no_face"),
        (lambda picture: np.ascontiguousarray(np.hstack([picture, picture[:, ::-1]])), "two_faces"),
        (lambda picture: picture[:1, :1], "too_small"),
    ],
    ids=["blurred", "moved", "dim", "black", "empty", "two", "one pixel"],
)
def test_what_cannot_be_measured_is_refused_by_name(
    large_portrait: np.ndarray, spoil: object, reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        analyse_capture(_capture(spoil(large_portrait)), SCAN)  # type: ignore[operator]
    assert refused.value.code == reason
    assert str(refused.value).endswith(".")


def test_a_capture_without_a_picture_is_refused(large_portrait: np.ndarray) -> None:
    only_uv = Capture("test", (Frame("uv365", _light(large_portrait), 1, 1.0, 0),))
    with pytest.raises(Refused) as refused:
        analyse_capture(only_uv, SCAN)
    assert refused.value.code == "not_a_picture"


def _run_child(data: bytes, words: Words = ENGLISH) -> tuple[int, bytes]:
    asked = Request(scan=SCAN, words=words).model_dump_json().encode()
    handles = [in_memory("request", [asked]), in_memory("capture", [data]), in_memory("result")]
    try:
        command = [sys.executable, "-m", "models.analysis.child"]
        for option, handle in zip(("--request-fd", "--capture-fd", "--result-fd"), handles, strict=True):
            command += [option, str(handle)]
        done = subprocess.run(command, pass_fds=handles, env={"LC_ALL": "C"}, timeout=120, check=False)
        return done.returncode, os.pread(handles[2], os.fstat(handles[2]).st_size, 0)
    finally:
        for handle in handles:
            os.close(handle)


def test_the_child_process_gives_the_same_findings(
    large_portrait: np.ndarray,
    one_look: tuple[tuple[float, float, float], ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acne, "VIEWS", one_look)
    analysis = analyse_capture(_capture(large_portrait), SCAN)
    status, data = _run_child(_capture(large_portrait).to_bytes())
    result = read_result(data)
    assert (status, result.refused, result.error) == (0, None, None)
    assert result.findings is not None
    assert result.findings.findings == analysis.findings.findings
    assert all(png.startswith(b"\x89PNG") for png in result.overlays.values()) and len(result.overlays) == 4
    assert result.seconds["total"] > 0 and 50 < result.peak_rss_mb < 2000


def test_the_child_process_writes_with_the_words_that_it_is_given(
    large_portrait: np.ndarray, analysis: Analysis
) -> None:
    words = Words(areas_title="Übersicht — наверху", months=("M",) * 12)
    result = read_result(_run_child(_capture(large_portrait).to_bytes(), words)[1])
    with Image.open(io.BytesIO(result.overlays["zones"])) as picture:
        title = np.asarray(picture)[20:84]
    assert title.shape == analysis.overlays["zones"][20:84].shape
    assert (title != analysis.overlays["zones"][20:84]).any()


def test_the_child_process_names_a_refusal(landscape: np.ndarray) -> None:
    status, data = _run_child(_capture(landscape).to_bytes())
    result = read_result(data)
    assert (status, result.refused, result.findings) == (0, "no_face", None)
    assert "face" in result.sentence


@pytest.mark.parametrize("data", [b"", b"junk", b"DKCAP1\n\0\0\0\x02{}"])
def test_the_child_process_names_a_damaged_capture(data: bytes) -> None:
    status, written = _run_child(data)
    result = read_result(written)
    assert (status, result.error) == (0, "capture")
    assert result.sentence


def test_a_result_comes_back_as_it_was_written(analysis: Analysis) -> None:
    result = AnalysisResult(analysis.findings, {"zones": b"png"}, seconds={"total": 1.5}, peak_rss_mb=99.5)
    assert read_result(write_result(result)) == result


def test_a_result_cut_short_is_an_error(analysis: Analysis) -> None:
    data = write_result(AnalysisResult(analysis.findings, {"zones": b"x" * 100}))
    for end in (0, 5, 60, len(data) - 50):
        with pytest.raises(ResultError):
            read_result(data[:end])


def test_analyse_capture_measures_a_folder(tmp_path: Path, large_portrait: np.ndarray) -> None:
    write_capture_folder(_capture(large_portrait), tmp_path / "visit")
    done = CliRunner().invoke(
        analyse,
        [
            "capture",
            *map(str, [tmp_path / "visit", "--json", tmp_path / "f.json", "--overlays", tmp_path / "o"]),
        ],
    )
    assert done.exit_code == 0, done.output
    findings = json.loads((tmp_path / "f.json").read_text())
    assert findings["schema"] == 1 and len(findings["findings"]) > 30
    drawn = {path.name for path in (tmp_path / "o").iterdir()}
    assert drawn == {"zones.png", "spots.png", "redness.png", "acne.png"}
    assert drawn == {f"{name}.png" for name in OVERLAYS}


def test_overlays_that_cannot_be_written_are_named_beside_the_findings(
    tmp_path: Path, large_portrait: np.ndarray
) -> None:
    write_capture_folder(_capture(large_portrait), tmp_path / "visit")
    (tmp_path / "o" / "spots.png").mkdir(parents=True)
    row = measure_folder(tmp_path / "visit", tmp_path / "o", DEFAULT_ENGINE)
    assert row["error"] == "overlays_not_written" and len(row["findings"]) > 30
    assert "spots.png cannot be written: is a directory. Name a place" in row["sentence"]


def test_a_folder_for_overlays_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(analyse, ["capture", str(tmp_path), "--overlays", "/proc/nowhere"])
    assert isinstance(done.exception, BatchError) and done.exception.exit_status == 2
    assert "/proc/nowhere cannot be written" in str(done.exception)


def test_scans_get_ids_of_their_own(large_portrait: np.ndarray) -> None:
    scan = uuid4()
    assert analyse_capture(_capture(large_portrait), scan).findings.scan == scan
