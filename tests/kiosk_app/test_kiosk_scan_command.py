"""`dermakiosk scan`: one scan of a portrait, into a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from hardware.simulated.close_up import draw_skin
from kiosk_app.demo.supervisor import dermakiosk
from tests.support.kiosk_commands import BOARD, run
from tests.support.kiosk_daemons import small_board
from tests.support.waiting import wait_until


def test_scan_writes_pictures_findings_and_overlays(tmp_path: Path) -> None:
    done = run("scan", "--board", BOARD, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found["schema"] == 1
    assert len(found["findings"]) > 20
    frames = json.loads((tmp_path / "capture" / "capture.json").read_text())["frames"]
    assert [frame["light"] for frame in frames] == ["dark", "white", "cross"]
    assert cv2.imread(str(tmp_path / "capture" / "white.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert list((tmp_path / "overlays").glob("*.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"capture", "findings.json", "overlays"}
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_dir()} == {0o700}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = run("scan", "--board", BOARD, "--out", tmp_path, "--seed", 2)
    assert again.returncode == 2
    assert "holds a scan already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_scan_asks_no_locale_how_text_is_written(tmp_path: Path) -> None:
    portrait = tmp_path / "Gesicht ü.png"
    cv2.imencode(".png", cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR))[1].tofile(portrait)
    command = dermakiosk(
        "scan", "--board", small_board(tmp_path), "--out", tmp_path / "out", "--portrait", portrait
    )
    told = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=told, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8"))
    assert {finding["unit"] for finding in found["findings"]} >= {"deg", "%"}


def test_scan_takes_the_lights_that_it_is_told_to(tmp_path: Path) -> None:
    board, named = small_board(tmp_path), "uv365, dir0,white"
    done = run("scan", "--board", board, "--out", tmp_path / "out", "--lights", named, "--phantom", 3)
    assert done.returncode == 0, done.stderr
    frames = json.loads((tmp_path / "out" / "capture" / "capture.json").read_text())["frames"]
    assert [frame["light"] for frame in frames] == ["dark", "white", "dir0", "uv365"]


def test_scan_says_which_lights_a_board_has(tmp_path: Path) -> None:
    done = run("scan", "--board", BOARD, "--out", tmp_path / "out", "--lights", "white,infrared")
    assert done.returncode == 2
    assert "'simulated' has no light infrared: it has white, parallel, cross" in done.stderr
    assert not (tmp_path / "out").exists()


def test_scan_of_a_landscape_says_why_and_exits_2(tmp_path: Path) -> None:
    sky = np.tile(np.linspace(80, 220, 400, dtype=np.uint8)[:, None, None], (1, 600, 3))
    cv2.imwrite(str(tmp_path / "landscape.png"), sky)
    (tmp_path / "mine").mkdir()
    out = tmp_path / "mine" / "scans" / "1"
    done = run("scan", "--board", BOARD, "--out", out, "--portrait", tmp_path / "landscape.png")
    assert done.returncode == 2
    assert f"Error: {tmp_path}/landscape.png: No face" in done.stderr
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "command", [("scan", "--board", BOARD), ("demo", "--once")], ids=lambda each: each[0]
)
def test_a_picture_that_cannot_be_measured_is_refused_before_anything_is_made(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((3000, 3000, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    for option in ("--portrait", "--close-up"):
        done = run(*command, "--out", tmp_path / "out", option, black)
        assert done.returncode == 2
        assert str(black) in done.stderr and "too dark" in done.stderr and "lamp" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", [("scan", "--board", BOARD), ("demo", "--once")], ids=lambda each: each[0]
)
def test_a_close_up_of_no_spot_is_refused_rather_than_left_out(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    file = tmp_path / "mole.png"
    cv2.imwrite(str(file), draw_skin(600, 450, 3).picture[..., ::-1])
    done = run(*command, "--out", tmp_path / "out", "--close-up", file)
    assert done.returncode == 2
    assert "--spot" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_close_up_that_is_out_of_focus_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    sharp = draw_skin(600, 450, 3).picture
    file = tmp_path / "mole.png"
    cv2.imwrite(str(file), cv2.GaussianBlur(sharp, (0, 0), 12)[..., ::-1])
    board = small_board(tmp_path)
    done = run("scan", "--board", board, "--out", tmp_path / "out", "--spot", "nose", "--close-up", file)
    assert done.returncode == 2
    assert f"Error: {file}: " in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_camera_whose_close_up_is_dark_is_named_by_the_spot(tmp_path: Path) -> None:
    board = small_board(tmp_path, '[simulation]\nclose_up_fault = "dark"\n')
    done = run("scan", "--board", board, "--out", tmp_path / "out", "--spot", "left_cheek")
    assert done.returncode == 2
    assert "Error: Close-up (left_cheek): The picture is too dark" in done.stderr


def test_pictures_that_the_patient_spoilt_are_refused(tmp_path: Path) -> None:
    board = small_board(tmp_path, '[simulation]\npatient_opens_shroud_at = { light = "cross" }\n')
    done = run("scan", "--board", board, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "The shroud was open in several pictures: please close it and try again." in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_lamp_that_is_dead_is_still_to_blame(tmp_path: Path) -> None:
    board = small_board(tmp_path, '[simulation]\ndead_lamps = ["white"]\n')
    done = run("scan", "--board", board, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "the lamp or the camera needs a look by staff" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"my face\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"])
def test_scan_reads_the_portrait_before_anything_is_made(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "face.png").write_bytes(content)
    done = run("scan", "--board", BOARD, "--out", tmp_path / "out", "--portrait", tmp_path / "face.png")
    assert done.returncode == 2
    assert "face.png" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_scan_told_to_stop_leaves_no_picture(tmp_path: Path) -> None:
    command = dermakiosk("scan", "--board", BOARD, "--out", tmp_path)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / ".run" / "logs" / "captured.log"
        try:
            wait_until(lambda: log.exists() and "ready" in log.read_text(), "the daemons ready")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read() == "Stopped; nothing of this scan was kept.\n"
    assert list(tmp_path.iterdir()) == []


def test_scan_says_that_it_cannot_write_into_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("scan", "--board", BOARD, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot be written (Not a directory)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_scan_refuses_a_folder_whose_path_has_no_room_for_sockets(tmp_path: Path) -> None:
    out = tmp_path / ("o" * 100)
    done = run("scan", "--board", BOARD, "--out", out)
    assert done.returncode == 2
    assert "too long for the sockets" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()
