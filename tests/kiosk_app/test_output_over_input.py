"""No command writes over what it reads, nor over what it keeps its state in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import pytest

from hardware.board import BOARDS
from kiosk_app.cli import main
from kiosk_app.scan_cli import RUN, ScanFolderRefused, _claimed
from tests.support.commands import every_command, found_command, refused
from tests.support.own_log import own_log

BEFORE = "of the run before\n"


@pytest.mark.parametrize(
    "command",
    [
        ["clinic", "status", "--state", "OWN", "--json"],
        ["scans", "list", "--state", "OWN", "--json"],
        ["provision", "list", "--state", "OWN", "--json"],
        ["provision", "enrol", "--state", "OWN", "--kiosk", "K", "--board", "B", "--json"],
        ["analyse", "face", "OWN/key", "--json"],
        ["analyse", "capture", "OWN", "--json"],
        ["analyse", "face", "missing.png", "--state", "OWN", "--json"],
        ["board", "wiring", "OWN/key", "--out"],
    ],
    ids=" ".join,
)
def test_what_a_command_reads_or_keeps_its_state_in_is_not_written_over(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "key").write_text(BEFORE)
    words = [word.replace("OWN", str(own)) for word in command]
    line = refused([*words, str(own / "key")], monkeypatch, capsys)
    assert "is among what this command reads" in line
    assert [path.read_text() for path in own.iterdir()] == [BEFORE]


@pytest.mark.parametrize("way", ["hard link", "link", "link to its folder"])
@pytest.mark.parametrize(
    "command",
    [
        ["clinic", "status", "--state", "OWN", "--json"],
        ["scans", "list", "--state", "OWN", "--json"],
        ["provision", "list", "--state", "OWN", "--json"],
        ["provision", "enrol", "--state", "A", "--kiosk", "OWN", "--board", "B", "--json"],
        ["analyse", "acne", "missing.png", "--state", "OWN", "--json"],
        ["analyse", "face", "x.png", "--state", "OWN", "--masks"],
        ["analyse", "capture", "OWN", "--json"],
    ],
    ids=" ".join,
)
def test_nor_is_a_file_that_has_a_name_in_there_too(
    command: list[str],
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    own.mkdir()
    out.mkdir()
    (file := out / "x.png").write_text(BEFORE)
    if way == "link to its folder":
        (own / "app").symlink_to(out)
        (out / "round").symlink_to(own)
    else:
        (own / "app").mkdir()
        key = own / "app" / "vault.key"
        key.hardlink_to(file) if way == "hard link" else key.symlink_to(file)
    words = [word.replace("OWN", str(own)) for word in command]
    line = refused([*words, str(out if words[-1] == "--masks" else file)], monkeypatch, capsys)
    assert f"{file} is among what this command reads ({own})" in line
    assert file.read_text() == BEFORE


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("name", ["x.sqlite", "link.sqlite"])
def test_what_sqlite_keeps_beside_a_database_is_not_written_over(
    name: str,
    ending: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "link.sqlite").symlink_to("x.sqlite")
    file = tmp_path / f"x.sqlite{ending}"
    command = [
        "clinic",
        "status",
        "--state",
        str(tmp_path / "clinic"),
        "--db",
        f"sqlite:///{tmp_path / name}",
    ]
    assert "is among what this command reads" in refused([*command, "--json", str(file)], monkeypatch, capsys)
    file.write_text(BEFORE)
    (other := tmp_path / "other").hardlink_to(file)
    assert "is among what this command reads" in refused(
        [*command, "--json", str(other)], monkeypatch, capsys
    )
    assert file.read_text() == BEFORE


FOLDERS = [
    [*command, option.opts[0]]
    for command in every_command()
    if command[0] == "analyse" and command != ["analyse", "capture"]
    for option in found_command(command).params
    if isinstance(option.type, click.Path) and option.name not in ("files", "state")
]


@pytest.mark.parametrize("way", ["folder", "link", "hard link"])
@pytest.mark.parametrize("drawn", FOLDERS, ids=" ".join)
def test_no_picture_is_drawn_over_one_that_is_read(
    drawn: list[str],
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    *command, option = drawn
    (own := tmp_path / "own").mkdir()
    (own / "a.png").write_text(BEFORE)
    if way == "link":
        (tmp_path / "out").symlink_to("own")
    elif way == "hard link":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.png").hardlink_to(own / "a.png")
    out = own if way == "folder" else tmp_path / "out"
    pictures = [str(tmp_path / "other.png"), str(own / "a.png")]
    line = refused([*command, *pictures, option, str(out)], monkeypatch, capsys)
    assert f"{out / 'a.png'} is among what this command reads ({own / 'a.png'}): name another" in line
    assert [path.read_text() for path in own.iterdir()] == [BEFORE]


def test_every_folder_that_pictures_are_drawn_into_is_known() -> None:
    assert [" ".join(drawn) for drawn in FOLDERS] == [
        "analyse face --masks",
        "analyse face --parsing",
        "analyse lesion --masks",
        "analyse lesion --overlays",
        "analyse acne --overlays",
    ]


def test_a_folder_beside_its_pictures_is_no_picture_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as that of the masks, where all that is in the folder is named."""
    (masks := tmp_path / "masks").mkdir()
    monkeypatch.setattr(sys, "argv", ["dermakiosk", "analyse", "face", str(masks), "--masks", str(masks)])
    with own_log(), pytest.raises(SystemExit):
        main()
    assert "is among what this command reads" not in capsys.readouterr().err


def test_no_picture_is_drawn_over_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["analyse", "face", str(tmp_path / "a.png"), "--masks", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    line = refused([*command, "--json", str(tmp_path / "out" / "a.png")], monkeypatch, capsys)
    assert "A picture would be written over the lines in" in line
    assert "Name another file" in line


@pytest.mark.parametrize("to", ["--json", "--overlays"])
@pytest.mark.parametrize("way", ["folder", "link", "hard link"])
def test_nothing_is_written_into_a_capture_that_is_read(
    way: str, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own := tmp_path / "own").mkdir()
    for name in ("capture.json", "spots.png"):
        (own / name).write_text(BEFORE)
    if way == "link":
        (tmp_path / "out").symlink_to("own")
    elif way == "hard link":
        (tmp_path / "out").mkdir()
        for path in own.iterdir():
            (tmp_path / "out" / path.name).hardlink_to(path)
    out = own if way == "folder" else tmp_path / "out"
    name = str(out if to == "--overlays" else out / "capture.json")
    line = refused(["analyse", "capture", str(own), to, name], monkeypatch, capsys)
    assert "is among what this command reads" in line
    assert {path.name: path.read_text() for path in own.iterdir()} == {
        "capture.json": BEFORE,
        "spots.png": BEFORE,
    }


@pytest.mark.parametrize("option", ["--board", "--portrait", "--close-up"])
@pytest.mark.parametrize(
    ("command", "within"),
    [
        (["scan", "--out"], ".run"),
        (["demo", "--once", "--out"], "kiosk"),
        (["demo", "--state"], "clinic"),
    ],
)
def test_what_a_command_reads_does_not_lie_in_what_it_makes_anew(
    command: list[str],
    within: str,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (own := tmp_path / within).mkdir()
    (own / "file").write_text(BEFORE)
    board = [] if option == "--board" else ["--board", str(BOARDS / "simulated.toml")]
    line = refused([*command, str(tmp_path), *board, option, str(own / "file")], monkeypatch, capsys)
    assert f"{own / 'file'} lies in {own}, which this command makes anew: put the file elsewhere" in line
    assert [path.read_text() for path in tmp_path.rglob("file")] == [BEFORE]


def test_a_scan_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    out, left = tmp_path / "out", tmp_path / "left"
    with _claimed(out) as run:
        (run / "face.png").touch()
        shutil.copytree(out, left)
    assert not out.exists()
    with _claimed(left) as run:
        assert list(run.iterdir()) == []
    assert list(left.iterdir()) == []
    (mine := out / RUN / "mine").mkdir(parents=True)
    with pytest.raises(ScanFolderRefused, match="is not empty and no scan made it"), _claimed(out):
        pass
    assert [path.name for path in out.iterdir()] == [RUN]
    assert mine.exists()
