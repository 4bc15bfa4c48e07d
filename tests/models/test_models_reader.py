"""Measures and scores are those of the picture's sRGB twin, whatever kind of file it came in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from uuid import UUID

import cv2
import numpy as np
import pytest

from hardware.capture_folder import read_capture_folder
from hardware.simulated.close_up import draw_skin
from models.analysis import describe, describe_skin
from models.analysis.acne import THRESHOLD, Acne
from models.analysis.acne_count import acne_findings
from models.analysis.capture import analyse_capture
from models.analysis.describe import describe_picture
from models.analysis.describe_skin import describe_acne, describe_lesion
from models.analysis.face import find_face
from models.analysis.opaque import opaque_acne
from models.analysis.zones import zone_masks
from models.networks.runtime import DEFAULT_ENGINE
from tests.support.icc import coded_in, matrix_profile, rgb_table_profile
from tests.support.picture_files import exif, iccp, png, save, tiff, turned


def _deep(space: str, picture: np.ndarray) -> np.ndarray:
    return np.round(coded_in(space, picture / 255) * 65535).astype(np.uint16)


_P3_TABLE = rgb_table_profile("mft2", "Display P3")
KINDS: dict[str, Callable[[np.ndarray], bytes]] = {
    "Display P3": lambda p: png(_deep("Display P3", p), iccp(matrix_profile("Display P3", 4))),
    "Display P3 as a table": lambda p: png(_deep("Display P3", p), iccp(_P3_TABLE)),
    "Adobe RGB": lambda p: tiff(_deep("Adobe RGB", p), matrix_profile("Adobe RGB")),
    "ProPhoto": lambda p: png(_deep("ProPhoto", p), iccp(matrix_profile("ProPhoto"))),
    "16 bits without a tag": lambda p: png(p.astype(np.uint16) * 257),
    "16 bits of tagged light": lambda p: png(_deep("linear sRGB", p), iccp(matrix_profile("linear sRGB"))),
    "turned by EXIF": lambda p: png(turned(p, 3), (b"eXIf", exif(3))),
}  # fmt: skip


def _measures(folder: Path) -> dict[tuple[str, str], float]:
    found = analyse_capture(read_capture_folder(folder), UUID(int=1)).findings.findings
    return {(finding.measure, finding.zone): finding.value for finding in found}


@pytest.fixture(scope="module")
def close_up() -> np.ndarray:
    return draw_skin(600, 450, 3).picture


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_measures_as_its_srgb_twin(tmp_path: Path, portrait: np.ndarray, kind: str) -> None:
    (tmp_path / "capture.json").write_text('{"frames": [{"file": "white.img", "light": "white"}]}')
    save(tmp_path / "white.img", png(portrait))
    twin = _measures(tmp_path)
    save(tmp_path / "white.img", KINDS[kind](portrait))
    read = _measures(tmp_path)
    assert read.keys() == twin.keys()
    for (measure, zone), value in twin.items():
        if measure in ("ita", "melanin_index", "erythema_index"):
            # Between its corners a table is only nearly the space that it stands for.
            assert abs(read[measure, zone] - value) < (1.2 if "table" in kind else 0.5), (measure, zone)


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_score_as_of_the_srgb_twin(
    tmp_path: Path, portrait: np.ndarray, close_up: np.ndarray, kind: str
) -> None:
    def row(describe: Callable[..., dict[str, object]], made: bytes, *nothing: None) -> dict[str, object]:
        return describe(save(tmp_path / "picture", made), *nothing, DEFAULT_ENGINE)

    twin, read = (row(describe_lesion, made, None, None) for made in (png(close_up), KINDS[kind](close_up)))
    assert abs(twin["melanoma"] - read["melanoma"]) < 0.05  # type: ignore[operator]
    for name, chance in twin["classes"].items():  # type: ignore[attr-defined]
        assert abs(chance - read["classes"][name]) < 0.05, name  # type: ignore[index]
    twin, read = (row(describe_acne, made, None) for made in (png(portrait), KINDS[kind](portrait)))
    assert (read["count"], read["severity"]) == (twin["count"], twin["severity"])
    twin, read = (row(describe_picture, made, None, None) for made in (png(portrait), KINDS[kind](portrait)))
    [one], [other] = twin["faces"], read["faces"]  # type: ignore[misc]
    for zone, polygon in one["zones"].items():
        assert np.abs(np.array(polygon) - other["zones"][zone]).max() < 2, zone


def test_what_is_transparent_is_in_no_mask(tmp_path: Path, portrait: np.ndarray) -> None:
    alpha = np.full(portrait.shape[:2], 255, np.uint8)
    alpha[:, :224] = 0
    path = save(tmp_path / "half.png", png(np.dstack([portrait, alpha])))
    (tmp_path / "masks").mkdir()
    describe_picture(path, tmp_path / "masks", None, DEFAULT_ENGINE)
    mask = cv2.imread(str(tmp_path / "masks" / "half.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None and mask[:, 224:].any() and not mask[:, :224].any()


def _veiled(picture: np.ndarray, where: np.ndarray) -> bytes:
    """A PNG that lets a tenth of white through `where` (H×W bool), too little to hide what is there."""
    return png(np.dstack([picture, np.where(where, 230, 255).astype(np.uint8)]))


def test_no_zone_is_measured_through_white(tmp_path: Path, large_portrait: np.ndarray) -> None:
    cheek = zone_masks(find_face(large_portrait).points, np.full(large_portrait.shape[:2], 255, np.uint8))
    (tmp_path / "capture.json").write_text('{"frames": [{"file": "white.img", "light": "white"}]}')
    hidden = {}
    for name, where in (("none", np.zeros_like(cheek["left_cheek"])), ("cheek", cheek["left_cheek"] > 0)):
        save(tmp_path / "white.img", _veiled(large_portrait, where))
        hidden[name] = analyse_capture(read_capture_folder(tmp_path), UUID(int=1)).findings.quality
    assert "left_cheek_hidden" not in hidden["none"] and "left_cheek_hidden" in hidden["cheek"]
    assert "right_cheek_hidden" not in hidden["cheek"]


def test_no_blemish_is_counted_through_white(tmp_path: Path, portrait: np.ndarray) -> None:
    whole = describe_acne(save(tmp_path / "a.png", png(portrait)), None, DEFAULT_ENGINE)
    everywhere = np.ones(portrait.shape[:2], bool)
    everywhere[0, 0] = False
    veiled = describe_acne(save(tmp_path / "b.png", _veiled(portrait, everywhere)), None, DEFAULT_ENGINE)
    assert whole["boxes"] and veiled["boxes"] == []
    assert whole["severity"] in range(4) and veiled["severity"] is None


def test_acne_that_is_not_shown_gives_no_severity() -> None:
    box = np.array([[10.0, 10.0, 20.0, 20.0, THRESHOLD + 0.1, 0.0]])
    faint = np.array([[60.0, 60.0, 70.0, 70.0, THRESHOLD / 2, 0.0]])
    shown = np.ones((100, 100), bool)
    shown[:30, :30] = False
    for boxes, severity in ((np.vstack([box, faint]), None), (faint, 3), (box[:0], 3)):
        assert opaque_acne(Acne(boxes, 3), shown).severity == severity
    assert acne_findings(Acne(faint, None), [], ["face"])[-1].measure == "acne_count"


def test_no_lesion_is_outlined_through_white(tmp_path: Path, close_up: np.ndarray) -> None:
    where = np.zeros(close_up.shape[:2], bool)
    where[:, :300] = True
    path = save(tmp_path / "half.png", _veiled(close_up, where))
    (tmp_path / "masks").mkdir()
    assert "classes" in describe_lesion(path, tmp_path / "masks", None, DEFAULT_ENGINE)
    mask = cv2.imread(str(tmp_path / "masks" / "half.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None and mask[:, 300:].any() and not mask[:, :300].any()


@pytest.mark.parametrize("failure", [MemoryError(), cv2.error("Assertion failed")])
@pytest.mark.parametrize(
    ("module", "name", "describe"),
    [
        (describe, "find_faces", lambda path: describe.describe_picture(path, None, None, DEFAULT_ENGINE)),
        (describe_skin, "find_lesion", lambda path: describe_lesion(path, None, None, DEFAULT_ENGINE)),
        (describe_skin, "find_acne", lambda path: describe_acne(path, None, DEFAULT_ENGINE)),
    ],
)
def test_a_picture_that_overwhelms_the_measuring_costs_its_own_row_alone(
    tmp_path: Path,
    portrait: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    describe: Callable[[Path], dict[str, object]],
    failure: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(module, name, fail)
    row = describe(save(tmp_path / "a.png", png(portrait)))
    assert row["error"] == "not_measured" and str(row["sentence"]).endswith(".")
