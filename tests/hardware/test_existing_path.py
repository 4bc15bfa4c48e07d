"""A file or folder that an option needs: if it cannot be looked at, each command says why."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.support.commands import CONTEXTS

NEEDED = {
    f"{path} {option.opts[0]}": option
    for path, context in CONTEXTS.items()
    for option in context.command.params
    if isinstance(option.type, click.Path) and option.type.exists
}


def refused(option: click.Parameter, path: Path) -> str:
    with pytest.raises(click.BadParameter) as refusal:
        option.type.convert(str(path), option, None)
    return refusal.value.message


def test_pictures_boards_and_states_are_among_what_is_needed() -> None:
    assert {"--portrait", "--close-up", "--board", "--state"} <= {name.split()[-1] for name in NEEDED}


@pytest.mark.parametrize("name", NEEDED)
def test_what_cannot_be_looked_at_is_not_said_to_be_missing(name: str, tmp_path: Path) -> None:
    option, circle, file = NEEDED[name], tmp_path / "circle", tmp_path / "file"
    circle.symlink_to(circle)
    file.touch()
    for path, why in ((circle, "Too many levels of symbolic links"), (file / "in it", "Not a directory")):
        said = refused(option, path)
        assert said.endswith(f" '{path}' cannot be read ({why}): name another.")
    assert refused(option, tmp_path / "none").endswith("none' does not exist.")


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_there_is_taken_and_the_wrong_kind_of_it_is_not(name: str, tmp_path: Path) -> None:
    option, file = NEEDED[name], tmp_path / "file"
    file.touch()
    assert isinstance(option.type, click.Path)
    wants, wrong = (file, tmp_path) if option.type.file_okay else (tmp_path, file)
    assert option.type.convert(str(wants), option, None) == wants
    assert refused(option, wrong).endswith(f"'{wrong}' is a {'directory' if wrong == tmp_path else 'file'}.")
