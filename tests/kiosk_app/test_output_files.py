"""What becomes of the file that a command is to write: of every command that takes one."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from hardware.board import BOARDS
from hardware.host import output_file
from hardware.host.output_file import OutputFile, OutputUnwritable, opened_output, streamed_output
from kiosk_app.cli import main
from models.analysis.batch import BatchError, write_output
from sync.clinic.store import output_file as clinics
from sync.clinic.store.database import Database
from tests.support.commands import every_command, found_command, refused
from tests.support.full_disk import on_a_small_disk
from tests.support.own_log import own_log

OUTPUTS = [
    [*command, option.opts[0]]
    for command in every_command()
    for option in found_command(command).params
    if isinstance(option.type, (OutputFile, clinics.OutputFile))
]
ROOMS = ["hardware.host", "sync.clinic.store"]
OPENED = [opened_output, clinics.opened_output]
UNWRITABLE = (OutputUnwritable, clinics.OutputUnwritable)
BEFORE = "of the run before\n"


@contextlib.contextmanager
def streamed(name: str) -> Iterator[SimpleNamespace]:
    with streamed_output(name) as write:
        yield SimpleNamespace(write=write)


def failing(output: list[str], folder: Path) -> list[str]:
    """The rest of a command line that is complete and names nothing that is there."""
    *command, named = output
    missing, words = str(folder / "missing"), list[str]()
    for option in found_command(command).params:
        if isinstance(option, click.Argument):
            words = [*words, missing]
        elif option.opts[0] != named and (option.required or option.name == "engine"):
            words = [option.opts[0], missing, *words]
    return words


def test_every_file_that_a_command_writes_is_taken_in_this_one_way() -> None:
    assert len(OUTPUTS) == 9, OUTPUTS
    for command in every_command():
        for option in found_command(command).params:
            assert not isinstance(option.type, click.File), f"{command} truncates the file of {option.opts}"


@pytest.mark.parametrize("output", OUTPUTS, ids=" ".join)
def test_a_command_that_fails_leaves_the_file_as_it_was(
    output: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "file"
    file.parent.mkdir()
    file.write_text(BEFORE)
    arguments = [*output, str(file), *failing(output, tmp_path)]
    monkeypatch.setattr(sys, "argv", ["dermakiosk", *arguments])
    with own_log(), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    assert "missing" in capsys.readouterr().err
    assert [path.read_text() for path in file.parent.iterdir()] == [BEFORE]


@pytest.mark.parametrize("output", OUTPUTS, ids=" ".join)
def test_a_place_that_takes_no_file_is_refused_before_anything_is_done(
    output: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, why in ((tmp_path, "Is a directory"), (tmp_path / "no" / "file", "No such file")):
        line = refused([*output, str(place), *failing(output, tmp_path)], monkeypatch, capsys)
        assert f"{place} cannot be written ({why}" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [OutputFile(), clinics.OutputFile()])
def test_what_names_no_file_is_refused_before_anything_is_done(
    kind: click.ParamType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a variable of the shell that is not set."""
    monkeypatch.chdir(tmp_path)
    for name in ("", "missing/", "missing/.", "missing/.."):
        with pytest.raises(click.BadParameter) as caught:
            kind(name)
        said = caught.value.message
        assert said.startswith(f"{name or chr(39) * 2} cannot be written (No such file or directory)"), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opened", OPENED)
def test_the_file_is_replaced_once_all_of_it_is_there(opened: object, tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text(BEFORE)
    file.chmod(0o640)
    link.symlink_to("file")
    with pytest.raises(ZeroDivisionError), opened(str(link)) as half:  # type: ignore[operator]
        half.write("half")
        raise ZeroDivisionError
    assert file.read_text() == BEFORE
    with opened(str(link)) as whole:  # type: ignore[operator]
        whole.write("whole")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("whole", 0o640)
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


@pytest.mark.parametrize("opened", OPENED)
def test_a_new_file_may_be_read_by_whom_any_new_file_may(opened: object, tmp_path: Path) -> None:
    with opened(str(tmp_path / "file")) as out:  # type: ignore[operator]
        out.write("it")
    (tmp_path / "other").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("opened", OPENED)
def test_a_device_that_takes_nothing_is_told(opened: object) -> None:
    with pytest.raises(UNWRITABLE, match="/dev/full cannot be written"), opened("/dev/full") as out:  # type: ignore[operator]
        out.write("it")


def test_a_picture_that_the_disk_takes_no_more_leaves_the_one_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "mask.png").write_text(BEFORE)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BatchError, match="no space left"):
        write_output(tmp_path / "mask.png", b"half")
    assert [path.read_text() for path in tmp_path.iterdir()] == [BEFORE]


@pytest.mark.parametrize("kind", [OutputFile(), clinics.OutputFile()])
def test_a_longest_name_and_a_pipe_are_taken(kind: click.ParamType, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("-", "/dev/null", str(tmp_path / "pipe"), str(tmp_path / ("x" * 255))):
        assert kind(name) == name
    with pytest.raises(click.BadParameter, match="too long"):
        kind(str(tmp_path / ("x" * 256)))


@pytest.mark.parametrize(
    "name",
    ["x" * 255, "é" * 127, "x" + "😀" * 63, "\udcff" * 255],
    ids=["of 1 byte", "of 2", "of 4", "of no text"],
)
@pytest.mark.parametrize("opened", OPENED)
def test_a_file_with_a_longest_name_is_written(opened: object, name: str, tmp_path: Path) -> None:
    for text in ("it", "it once more"):
        with opened(str(tmp_path / name)) as out:  # type: ignore[operator]
            out.write(text)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, text)]


@pytest.mark.parametrize("opened", OPENED)
def test_a_file_with_another_name_or_that_its_folder_does_not_let_be_replaced_is_written_where_it_is(
    opened: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "file").write_text(BEFORE)
    (link := tmp_path / "link").hardlink_to(file)
    with opened(str(link)) as out:  # type: ignore[operator]
        out.write("linked")
    assert file.read_text() == "linked"
    link.unlink()

    def refused_by_the_folder(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refused_by_the_folder)
    with opened(str(file)) as out:  # type: ignore[operator]
        out.write("it")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "it")]


FULL = """
from {room}.output_file import OutputUnwritable, opened_output
file, link = disk / "file", disk / "link"
file.write_text("of the run before\\n")
link.hardlink_to(file)
fill()
try:
    with opened_output(str(link)) as out:
        out.write("half " * 10_000)
except OutputUnwritable as error:
    print("No space left" in str(error), file.read_text())
"""


@pytest.mark.parametrize("room", ROOMS)
def test_a_full_disk_costs_a_file_with_another_name_nothing(room: str, tmp_path: Path) -> None:
    assert on_a_small_disk(tmp_path, FULL.format(room=room)) == f"True {BEFORE}\n"


# The kernel answers a question for room as NFS before 4.2 does, and the C library asks in its own way.
NOTHING_SET_ASIDE = """
import ctypes, errno, struct
from {room}.output_file import opened_output
file, link = disk / "file", disk / "link"
file.write_text("of the run before\\n")
link.hardlink_to(file)
load, equals, answer, allowed, unsupported = 0x20, 0x15, 0x06, 0x7FFF0000, 0x50000 | errno.EOPNOTSUPP
fallocate = {{"x86_64": 285, "aarch64": 47}}[os.uname().machine]
steps = [(load, 0, 0, 0), (equals, 0, 1, fallocate), (answer, 0, 0, unsupported), (answer, 0, 0, allowed)]
rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps), 8 * len(steps))
program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(rules)))
for asked in ((38, 1, 0, 0, 0), (22, 2, program, 0, 0)):
    assert ctypes.CDLL(None).prctl(*asked) == 0
for words in ("it", "more than was there " * 100):
    with opened_output(str(link)) as out:
        out.write(words)
    print(file.read_text() == words)
"""


@pytest.mark.parametrize("room", ROOMS)
def test_a_file_with_another_name_is_written_where_no_room_can_be_set_aside(
    room: str, tmp_path: Path
) -> None:
    assert on_a_small_disk(tmp_path, NOTHING_SET_ASIDE.format(room=room)) == "True\nTrue\n"


@pytest.mark.parametrize("opened", OPENED)
def test_what_is_written_where_it_is_is_on_the_disk_before_it_is_said_to_be(
    opened: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_disk(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    (file := tmp_path / "file").write_text(BEFORE)
    (link := tmp_path / "link").hardlink_to(file)
    monkeypatch.setattr(os, "fsync", failing_disk)
    with pytest.raises(UNWRITABLE, match="Input/output error"), opened(str(link)) as out:  # type: ignore[operator]
        out.write("it")


def test_of_the_two_rooms_each_names_the_others_twin() -> None:
    """Neither may import the other."""
    here, there = (Path(found.__file__).read_text() for found in (output_file, clinics))
    assert f"Its twin is `{clinics.__name__}`" in here
    assert f"Its twin is `{output_file.__name__}`" in there


FACE, CLINIC = "analyse face missing.png --json", "clinic status --state clinic --json"
WIRING = f"board wiring {BOARDS / 'raspberrypi5.toml'} --out"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{FACE} /dev/stderr 2>> log", '"error"'),
        (f"{FACE} link 3>> log", '"error"'),
        (f"{WIRING} /dev/stdout >> log", "</svg>"),
        (f"{WIRING} /dev/fd/3 3>> log", "</svg>"),
        (f"{CLINIC} /proc/self/fd/2 2>> log", '"silence"'),
    ],
)
def test_what_the_shell_appends_to_is_appended_to(line: str, said: str, tmp_path: Path) -> None:
    if line.startswith("clinic"):
        Database.at(tmp_path / "clinic").migrate()
    (tmp_path / "link").symlink_to("/dev/fd/3")
    (log := tmp_path / "log").write_text(BEFORE)
    shell = ["sh", "-c", f"{Path(sys.executable).with_name('dermakiosk')} {line}"]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 2), done.stderr
    assert log.read_text().startswith(BEFORE)
    assert log.read_text().count(said) == 1


@pytest.mark.parametrize(
    "name", ["/dev/fd/N", "/proc/self/fd/N", "/proc/thread-self/fd/N", "/proc/PID/fd/N", "link", "link-of-it"]
)
@pytest.mark.parametrize("opened", [*OPENED, streamed])
def test_by_whichever_name_what_is_open_is_appended_to(opened: object, name: str, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text(BEFORE)
    (tmp_path / "link-of-it").symlink_to("link")
    with file.open("a") as appended:
        (tmp_path / "link").symlink_to(f"/dev/fd/{appended.fileno()}")
        place = name.replace("N", str(appended.fileno())).replace("PID", str(os.getpid()))
        for word in ("once\n", "more\n"):
            with opened(str(tmp_path / place)) as out:  # type: ignore[operator]
                out.write(word)
    assert file.read_text() == f"{BEFORE}once\nmore\n"


@pytest.mark.parametrize("opened", OPENED)
def test_standard_output_by_its_name_is_what_is_printed_to(
    opened: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened("/dev/stdout") as out:  # type: ignore[operator]
        out.write("it")
    assert capsys.readouterr().out == "it"


@pytest.mark.parametrize("kind", [OutputFile(), clinics.OutputFile()])
def test_an_open_file_that_is_only_read_is_refused(kind: click.ParamType, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text(BEFORE)
    with file.open() as read, pytest.raises(click.BadParameter, match="Bad file descriptor"):
        kind(f"/dev/fd/{read.fileno()}")
    with pytest.raises(click.BadParameter, match="Bad file descriptor"):
        kind("/dev/fd/987654")
    with file.open("a") as appended:
        assert kind(f"/dev/fd/{appended.fileno()}")
