"""Names that no one foresaw, in every command: each refusal is one line that steers no terminal."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from hardware.board import BOARDS
from kiosk_app.cli import _sentence, main
from tests.support.commands import every_command, found_command, refused

BOARD = str(BOARDS / "simulated.toml")
ODD = "bad\nline\x1b[2J\u202e.png"


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_an_odd_argument_is_refused_in_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([*command, f"--{ODD}"], monkeypatch, capsys)


@pytest.mark.parametrize("empty", ["", "--state="])
@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_a_variable_that_is_not_set_is_no_folder(
    command: list[str], empty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is a variable not set?" in refused([*command, empty], monkeypatch, capsys)


@pytest.mark.parametrize("command", [each for each in every_command() if each != ["screen"]], ids=" ".join)
def test_nor_is_one_behind_two_dashes_but_for_another_program(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is a variable not set?" in refused([*command, "--", ""], monkeypatch, capsys)


def test_what_stands_in_the_place_of_a_file_is_said_in_a_sentence() -> None:
    error = OSError(errno.ELOOP, "it is a link, where a file has to be", "/state/light/owner.lock")
    assert _sentence(error).startswith("It is a link, where a file has to be: /state/light/owner.lock (")


NUMBERS = [
    (" ".join([*command, option.opts[0]]), option.type)
    for command in every_command()
    for option in found_command(command).params
    if isinstance(option.type, click.types.FloatParamType)
]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("taken", [kind for _, kind in NUMBERS], ids=[name for name, _ in NUMBERS])
def test_an_option_takes_no_number_that_is_none(taken: click.types.FloatParamType, number: str) -> None:
    with pytest.raises(click.BadParameter):
        taken(number)


@pytest.mark.parametrize(
    "command",
    [
        ["scan", "--board", BOARD, "--out", "OUT", "--portrait", "ODD"],
        ["scan", "--board", "ODD", "--out", "OUT"],
        ["analyse", "face", "ODD", "--json", "OUT"],
        ["analyse", "lesion", "ODD", "--json", "OUT"],
        ["phantom", "--out", "ODD"],
        ["lights", "status", "--state", "ODD"],
        ["sync", "status", "--state", "ODD"],
        ["scans", "list", "--state", "ODD"],
        ["clinic", "status", "--state", "ODD"],
        ["provision", "list", "--state", "ODD"],
        ["models", "sign", "--key", "ODD", "--state", "OUT"],
    ],
    ids=lambda command: " ".join(command),
)
def test_a_file_with_an_odd_name_is_refused_in_one_line(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / ODD
    odd.write_bytes(cv2.imencode(".png", np.zeros((600, 400, 3), np.uint8))[1].tobytes())
    named = {"ODD": str(odd), "OUT": str(tmp_path / "out")}
    line = refused([named.get(word, word) for word in command], monkeypatch, capsys)
    assert r"bad\nline\x1b[2J\u202e.png" in line


def test_a_network_that_is_not_known_is_a_wrong_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "bench", "--network", "x"]
    assert "No network is called 'x'. Known:" in refused(command, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["phantom", "--seed", "1", "--out", "/dev/zero"], "/dev/zero cannot be written (Not a directory)"),
        (["clinic", "status", "--state", "clinic", "--json", "."], "'--json': . cannot be written (Is a dir"),
    ],
)
def test_what_cannot_be_written_to_is_a_wrong_argument(
    tmp_path: Path,
    command: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clinic").mkdir()
    assert said in refused(command, monkeypatch, capsys)


def test_what_a_program_is_given_that_a_command_runs_is_its_own_affair(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "--proxy-bypass-list=", ""]
    monkeypatch.setattr(sys, "argv", ["dermakiosk", "screen", "--", *program])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code or 0, capfd.readouterr().out) == (0, "['--proxy-bypass-list=', '']\n")
