"""`analyse face` says what became of each picture, in order, whatever the others are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hardware.srgb import srgb_linear
from models.analysis.batch import Row, run_batch
from models.analysis.face import find_face
from models.analysis.zones import outline, polygon_mask, zone_masks

DERMAKIOSK = Path(sys.executable).with_name("dermakiosk")


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(DERMAKIOSK), "analyse", "face", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path, portrait: np.ndarray, landscape: np.ndarray) -> Path:
    cv2.imwrite(str(tmp_path / "face.png"), portrait[..., ::-1])
    cv2.imwrite(str(tmp_path / "coffee.png"), landscape[..., ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_each_picture_gets_its_line_in_order(folder: Path) -> None:
    names = ["coffee.png", "face.png", "notes.txt", "gone.png"]
    done = _run(*(folder / name for name in names), "--json", "-")
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["picture"]).name for row in rows] == names
    assert rows[0]["refused"] == "no_face" and rows[0]["faces"] == []
    assert rows[2]["error"] == rows[3]["error"] == "not_a_picture"
    face = rows[1]["faces"][0]
    assert (rows[1]["width"], rows[1]["height"]) == (512, 512)
    assert len(face["landmarks"]) == 468 and len(face["landmarks"][0]) == 3
    assert set(face["zones"]) == {
        "forehead", "left_cheek", "right_cheek", "nose", "chin", "left_periorbital", "right_periorbital",
    }  # fmt: skip


def test_pictures_are_read_in_the_colours_that_they_are_said_to_have(
    folder: Path, portrait: np.ndarray
) -> None:
    light = np.round(65535 * srgb_linear(portrait / 255.0)).astype(np.uint16)
    cv2.imwrite(str(folder / "light.png"), light[..., ::-1])
    faces = [
        json.loads(_run(folder / name, "--colour", colour).stdout)["faces"][0]["landmarks"]
        for name, colour in (("face.png", "srgb"), ("light.png", "linear-srgb"), ("light.png", "srgb"))
    ]
    apart = [float(np.abs(np.subtract(faces[0], other)).max()) for other in faces[1:]]
    assert apart[0] < apart[1] / 4
    refused = _run(folder / "face.png", "--colour", "purple")
    assert refused.returncode == 2 and "'auto', 'srgb', 'linear-srgb'" in refused.stderr


def test_when_none_succeeds_the_exit_status_is_2(folder: Path) -> None:
    done = _run(folder / "coffee.png")
    assert done.returncode == 2
    assert json.loads(done.stdout)["refused"] == "no_face"
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_when_none_of_several_succeeds_each_is_named_with_its_reason(folder: Path) -> None:
    cv2.imwrite(str(folder / "black.png"), np.zeros((300, 200, 3), np.uint8))
    done = _run(folder / "coffee.png", folder / "black.png", folder / "notes.txt")
    assert done.returncode == 2
    assert [json.loads(line).get("refused") for line in done.stdout.splitlines()] == [
        "no_face", "too_dark", None,
    ]  # fmt: skip
    coffee, black, notes, all_of_them = done.stderr.splitlines()
    assert coffee.startswith(f"{folder / 'coffee.png'}: No face")
    assert black.startswith(f"{folder / 'black.png'}: The picture is too dark")
    assert notes.startswith(f"{folder / 'notes.txt'}: This is not a picture")
    assert all_of_them == "Error: None of 3 inputs could be used."


@pytest.mark.parametrize("option", ["--masks", "--parsing"])
def test_two_inputs_with_one_stem_are_refused_where_one_map_would_overwrite_the_other(
    folder: Path, option: str
) -> None:
    (folder / "face.jpg").write_bytes(b"")
    done = _run(folder / "face.png", folder / "face.jpg", option, folder / "maps")
    assert done.returncode == 2 and done.stdout == ""
    assert "same stem" in done.stderr


def test_two_inputs_with_one_stem_are_read_where_nothing_is_written(folder: Path) -> None:
    (folder / "second").mkdir()
    (folder / "second" / "face.png").write_bytes((folder / "face.png").read_bytes())
    done = _run(folder / "face.png", folder / "second" / "face.png")
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and done.stderr == ""
    assert first["picture"] != second["picture"] and first["faces"] == second["faces"]


def test_masks_are_white_on_skin_and_black_on_eyes_and_around(folder: Path, portrait: np.ndarray) -> None:
    done = _run(folder / "face.png", "--json", folder / "out.json", "--masks", folder / "masks")
    assert done.returncode == 0 and done.stdout == ""
    mask = cv2.imread(str(folder / "masks" / "face.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (512, 512) and set(np.unique(mask)) == {0, 255}
    face = find_face(portrait)
    zones = zone_masks(face.points, np.full((512, 512), 255, np.uint8))
    for name in ("left_cheek", "right_cheek", "nose"):
        assert mask[zones[name]].mean() > 0.85 * 255, name
    for name in ("left_eye", "right_eye", "lips_inner"):
        assert not mask[polygon_mask(outline(face.points, name), mask.shape) > 0].any(), name
    assert not mask[:40].any() and mask[300:].mean() < 0.02 * 255


def test_an_output_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    done = _run(folder / "face.png", "--json", folder / "no" / "out.json")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr and done.stderr.count("\n") == 1


def test_a_picture_too_small_for_a_face_is_refused_as_such(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    done = _run(tmp_path / "dot.png")
    assert done.returncode == 2
    row = json.loads(done.stdout)
    assert row["refused"] == "too_small" and row["faces"] == []
    assert "too small to hold a face" in row["sentence"] and "too small to hold a face" in done.stderr


def test_a_mask_that_cannot_be_written_costs_its_own_row_alone(folder: Path, portrait: np.ndarray) -> None:
    cv2.imwrite(str(folder / "other.png"), portrait[..., ::-1])
    (folder / "masks" / "face.png").mkdir(parents=True)
    done = _run(folder / "face.png", folder / "other.png", "--masks", folder / "masks")
    assert done.returncode == 0
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["error"] == "mask_not_written" and len(first["faces"]) == 1
    assert "face.png cannot be written: is a directory" in first["sentence"]
    assert "error" not in second and (folder / "masks" / "other.png").is_file()
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--masks", "--json"])
def test_a_place_nothing_can_be_written_to_is_one_sentence(folder: Path, option: str) -> None:
    done = _run(folder / "face.png", option, "/proc/nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert "/proc/nowhere cannot be written" in done.stderr and "Name a place" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_full_disk_is_one_sentence(folder: Path) -> None:
    done = _run(folder / "coffee.png", "--json", "/dev/full")
    assert done.returncode == 1
    assert "/dev/full cannot be written (No space left on device)" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("done", [0, 2])
def test_a_batch_that_is_stopped_keeps_the_lines_that_it_has_made(tmp_path: Path, done: int) -> None:
    paths, out = [Path(f"{n}.png") for n in range(3)], tmp_path / "out.jsonl"
    out.write_text("of the run before\n")

    def work(path: Path) -> Row:
        if path == paths[done]:
            raise KeyboardInterrupt
        return {"picture": str(path)}

    with pytest.raises(KeyboardInterrupt):
        run_batch(paths, work, str(out))
    lines = [json.dumps({"picture": str(path)}) for path in paths[:done]] or ["of the run before"]
    assert out.read_text().splitlines() == lines
