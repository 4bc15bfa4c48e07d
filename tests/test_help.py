"""--help: on a terminal of 80 columns every command and option says what it is for, and no line is cut."""

from __future__ import annotations

import sys

import click
import pytest

from kiosk_app.cli import cli, main
from tests.support.commands import CONTEXTS
from tests.support.own_log import own_log

every_command = pytest.mark.parametrize("path", CONTEXTS)


@every_command
def test_no_line_is_cut(path: str) -> None:
    usage, *lines = CONTEXTS[path].get_help().splitlines()
    assert [line for line in lines if line.endswith("...") or len(line) > 80] == []


@every_command
def test_every_option_says_what_it_is_for(path: str) -> None:
    options = [each for each in CONTEXTS[path].command.params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help or "without prompting" in each.help] == []
    assert CONTEXTS[path].command.help


def test_every_command_of_the_table_is_described_in_one_line() -> None:
    rows = CONTEXTS["dermakiosk"].get_help().partition("Commands:")[2].splitlines()[1:]
    assert [row.split()[0] for row in rows] == cli.list_commands(CONTEXTS["dermakiosk"])  # type: ignore[attr-defined]


GROUPS = [path for path, context in CONTEXTS.items() if isinstance(context.command, click.Group)]


@pytest.mark.parametrize("path", GROUPS)
def test_a_group_without_a_command_shows_its_help_line_by_line(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", path.split())
    with own_log(), pytest.raises(SystemExit) as ended:
        main()
    out, said = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert said.startswith("Usage: ")
    assert "\nCommands:\n" in said
    assert r"\n" not in said
