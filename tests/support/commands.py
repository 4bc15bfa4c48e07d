"""The commands of `dermakiosk`, each found by the words that it is called by."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import click
import pytest

from kiosk_app.cli import COMMANDS, cli, main
from tests.support.own_log import own_log


def commands(command: click.Command, parent: click.Context | None, name: str) -> Iterator[click.Context]:
    settings = command.context_settings | {"terminal_width": 80}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from commands(found, context, each)


CONTEXTS = {context.command_path: context for context in commands(cli, None, "dermakiosk")}


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with."""
    monkeypatch.setattr(sys, "argv", ["dermakiosk", *arguments])
    with own_log(), pytest.raises(SystemExit) as ended:
        main()
    out, line = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert line.endswith("\n")
    assert line[:-1].isprintable(), f"steers a terminal: {line!r}"
    return line


def leaves(name: str, command: click.Command) -> list[list[str]]:
    if isinstance(command, click.Group):
        return [[name, *rest] for sub in command.commands for rest in leaves(sub, command.commands[sub])]
    return [[name]]


def every_command() -> list[list[str]]:
    found = [
        leaves(name, getattr(importlib.import_module(at), what)) for name, (at, what, _) in COMMANDS.items()
    ]
    return [command for of_one in found for command in of_one]


def found_command(words: list[str]) -> click.Command:
    module, attribute, _ = COMMANDS[words[0]]
    command: click.Command = getattr(importlib.import_module(module), attribute)
    for word in words[1:]:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command
