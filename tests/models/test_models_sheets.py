"""What a clinician sees beside the numbers: what a lesion's class rests on, which acne was counted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from skimage import data

from models.analysis import saliency as module
from models.analysis.acne import THRESHOLD, Acne
from models.analysis.acne_sheet import draw_acne
from models.analysis.batch import BatchError
from models.analysis.lesion import FoundLesion
from models.analysis.lesion_sheet import FLAT, draw_lesion
from models.analysis.lesion_view import framed
from models.analysis.pen import PAPER, Pen
from models.analysis.saliency import GRID, MIRRORS, SPAN, Saliency, saliency
from models.cli import analyse
from models.networks.lesion_views import CLASSES, VIEWS

SIZE = (120, 160)


class _SeesBlue:
    """In the class network's place: the more blue there is in a view, the likelier a melanoma."""

    input_shape = (1, 224, 224, 3)
    runs = 0

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        self.runs += 1
        logits = np.zeros((1, 7))
        blue = np.clip(batch[0, ..., 2] - batch[0, ..., 0] - 0.3, 0, None)
        logits[0, CLASSES.index("mel")] = blue.sum() / 60 - 3
        return [logits]


def _blotched() -> tuple[np.ndarray, np.ndarray]:
    """A lesion of dark blots on light skin, and its mask."""
    picture = np.full((*SIZE, 3), 200, np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    cv2.circle(mask, (80, 60), 34, 255, -1)
    for x in range(50, 112, 12):
        for y in range(30, 92, 12):
            if mask[y, x]:
                cv2.circle(picture, (x, y), 4, (60, 30, 20), -1)
    return picture, mask


@pytest.mark.parametrize("cell", [(1, 1), (3, 5), (6, 0)])
def test_the_place_that_decides_has_the_largest_fall(
    monkeypatch: pytest.MonkeyPatch, cell: tuple[int, int]
) -> None:
    picture, mask = _blotched()
    side = 224 / GRID
    # A blue blot in the middle of the cell.
    at = framed(picture, mask).to_picture(VIEWS[0], 224) @ [(cell[1] + 0.5) * side, (cell[0] + 0.5) * side, 1]
    cv2.circle(picture, (round(at[0]), round(at[1])), 4, (20, 30, 220), -1)
    network = _SeesBlue()
    monkeypatch.setattr(module, "network", lambda name, engine: network)
    found = saliency(picture, mask)
    falls = found.falls[CLASSES.index("mel")]
    best = np.unravel_index(int(falls.argmax()), falls.shape)
    assert best == cell and falls.max() > 0.5
    assert falls[best] > 5 * np.abs(np.median(falls))
    assert network.runs == 2 * (GRID + SPAN - 1) ** 2 + len(MIRRORS)
    spread = found.over("mel", SIZE)
    y, x = np.unravel_index(int(spread.argmax()), SIZE)
    assert np.hypot(x - at[0], y - at[1]) < 1.6 * (found.window[2] - found.window[0]) / GRID


def test_the_window_is_the_view_in_the_pictures_own_pixels() -> None:
    picture, mask = _blotched()
    large = cv2.resize(picture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    grown = cv2.resize(mask, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    small, big = (np.array(saliency(p, m).window) for p, m in ((picture, mask), (large, grown)))
    assert big[2] - big[0] == pytest.approx(8 * (small[2] - small[0]), rel=0.05)
    middle = (big[:2] + big[2:]) / 2
    assert np.allclose(middle, [80 * 8, 60 * 8], atol=12)


def test_a_map_keeps_its_cells_in_place_and_ends_with_its_window() -> None:
    falls = np.zeros((7, GRID, GRID))
    falls[CLASSES.index("nv"), 2, 4] = 1.0
    found = Saliency(falls, (10.0, 20.0, 150.0, 160.0))
    spread = found.over("nv", (200, 180))
    y, x = np.unravel_index(int(spread.argmax()), spread.shape)
    assert abs(x - (10 + 4.5 * 20)) <= 1 and abs(y - (20 + 2.5 * 20)) <= 1
    assert (found.over("mel", (200, 180)) == 0).all()
    falls[:] = 1
    inside = Saliency(falls, (10.0, 20.0, 150.0, 160.0)).over("nv", (200, 180)) > 0
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 159, 10, 149)


def _written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    write = Pen.write

    def noted(pen: Pen, x: float, y: float, text: str, *how: object, **more: object) -> None:
        lines.append(text)
        write(pen, x, y, text, *how, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Pen, "write", noted)
    return lines


def _lesion(melanoma: float) -> tuple[np.ndarray, FoundLesion]:
    picture, mask = _blotched()
    chances = np.full(7, 0.01)
    chances[CLASSES.index("mel")] = melanoma
    chances[CLASSES.index("nv")] = 0.95 - melanoma
    return picture, FoundLesion(mask, chances, melanoma_like=melanoma >= 0.03)


@pytest.mark.parametrize(("melanoma", "panels"), [(0.01, 2), (0.2, 3), (0.9, 2)])
def test_a_melanoma_like_lesion_is_explained_for_melanoma_too(
    monkeypatch: pytest.MonkeyPatch, melanoma: float, panels: int
) -> None:
    lines = _written(monkeypatch)
    picture, lesion = _lesion(melanoma)
    falls = np.zeros((7, GRID, GRID))
    falls[:, 3, 3] = 2.0
    sheet = draw_lesion(picture, lesion, Saliency(falls, (20.0, 0.0, 140.0, 120.0)))
    assert sheet.shape[1:] == (1200, 3) and sheet.dtype == np.uint8
    assert sum("chance" in line for line in lines) == panels - 1
    assert any("never to be called benign" in line for line in lines) == (melanoma >= 0.03)
    assert any("not where disease is" in line for line in lines)
    assert any("lesion-class@" in line for line in lines) and "2.0" in lines


def test_the_longest_names_stay_on_the_sheet() -> None:
    picture, mask = _blotched()
    chances = np.full(7, 0.02)
    chances[CLASSES.index("akiec")] = 0.88
    falls = np.ones((7, GRID, GRID))
    found = Saliency(falls, (20.0, 0.0, 140.0, 120.0))
    sheet = draw_lesion(picture, FoundLesion(mask, chances, melanoma_like=True), found)
    edges = np.concatenate([sheet[:, :24], sheet[:, -24:]], axis=1)
    assert (edges == PAPER).all()


def test_a_flat_map_says_that_no_place_stands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _written(monkeypatch)
    picture, lesion = _lesion(0.01)
    falls = np.full((7, GRID, GRID), 0.9 * FLAT)
    draw_lesion(picture, lesion, Saliency(falls, (20.0, 0.0, 140.0, 120.0)))
    assert "no place stands out" in lines and f"{FLAT:.1f}" in lines


def test_a_score_never_hides_another_box(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _written(monkeypatch)
    boxes = np.array(
        [
            [50, 60, 60, 70, 0.9, 0],
            [50, 45, 60, 58, 0.8, 0],
            [120, 60, 130, 70, 0.7, 0],
            [9, 9, 19, 19, 0.4, 0],
        ]
    )
    sheet = draw_acne(np.full((200, 200, 3), 180, np.uint8), Acne(boxes, 1))
    scores = [line for line in lines if line.startswith("0.")]
    # Above the first stands the second; the last is below the threshold.
    assert scores == ["0.80", "0.70"] and boxes[3, 4] < THRESHOLD
    assert "Acne lesions: 3" in lines and any("95 % interval 0 to" in line for line in lines)
    assert (sheet[160:700].max(axis=2) < 80).sum() > 300
    assert tuple(sheet[2, 2]) == PAPER


def _run(
    task: str, folder: Path, pictures: dict[str, np.ndarray]
) -> tuple[list[dict[str, object]], set[str]]:
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture[..., ::-1])
    files = [str(folder / name) for name in pictures]
    to = ["--json", str(folder / "rows"), "--overlays", str(folder / "drawn")]
    CliRunner().invoke(analyse, [task, *files, *to])
    rows = [json.loads(line) for line in (folder / "rows").read_text().splitlines()]
    return rows, {path.name for path in (folder / "drawn").glob("*")}


def test_analyse_acne_draws_what_it_answers_and_nothing_of_what_it_refuses(
    tmp_path: Path, portrait: np.ndarray, landscape: np.ndarray
) -> None:
    rows, drawn = _run("acne", tmp_path, {"face.png": portrait, "coffee.png": landscape})
    assert drawn == {"face.png"}
    assert [set(rows[0]), rows[1]["refused"]] == [
        {"picture", "boxes", "threshold", "count", "counts", "severity", "model"}, "no_face",
    ]  # fmt: skip


def test_analyse_lesion_draws_nothing_of_what_it_refuses(tmp_path: Path, portrait: np.ndarray) -> None:
    rows, drawn = _run("lesion", tmp_path, {"face.png": portrait, "moon.png": cv2.merge([data.moon()] * 3)})
    assert all("refused" in row for row in rows) and drawn == set()
    assert not (tmp_path / "drawn").exists(), "the folder was made for pictures that there are none of"


def test_analyse_lesion_draws_a_close_up_and_answers_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.analysis.lesion.is_close_up", lambda seen: True)
    picture = cv2.GaussianBlur(_blotched()[0], (0, 0), 2)
    [row], drawn = _run("lesion", tmp_path, {"close-up.png": picture})
    assert drawn == {"close-up.png"}
    sheet = cv2.imread(str(tmp_path / "drawn" / "close-up.png"))
    assert sheet.shape[1] == 1200 and (sheet.std(axis=(0, 1)) > 20).all()
    plain = CliRunner().invoke(analyse, ["lesion", str(tmp_path / "close-up.png")])
    assert json.loads(plain.stdout) == row


def test_masks_and_overlays_do_not_share_a_folder(tmp_path: Path, portrait: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), portrait)
    line = ["lesion", str(tmp_path / "a.png"), "--masks", str(tmp_path), "--overlays", f"{tmp_path}/x/.."]
    (tmp_path / "x").mkdir()
    done = CliRunner().invoke(analyse, line)
    assert isinstance(done.exception, BatchError) and done.exception.exit_status == 2
    assert "Name two folders" in str(done.exception)


def test_an_overlay_that_cannot_be_written_is_named_beside_the_answer(
    tmp_path: Path, portrait: np.ndarray
) -> None:
    (tmp_path / "drawn" / "face.png").mkdir(parents=True)
    [row], _ = _run("acne", tmp_path, {"face.png": portrait})
    assert row["error"] == "overlay_not_written" and "count" in row
