"""Board: one board profile (pins, lights, camera, interlocks, limits), read from TOML."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from hardware.host.errors import PlainError
from hardware.host.regular_file import FileTooBig, read_regular_file
from hardware.profile import Profile
from hardware.profile_rules import incoherences

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOARDS = Path(__file__).parent / "boards"

# What a profile of ours takes, many times over; what is larger is something else.
_LARGEST = 64 * 1024


class BoardError(PlainError, ValueError):
    """A board profile that cannot be used; the message names each key with its reason."""

    exit_status = 2

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__(f"{path} is not a usable board profile: " + "; ".join(problems) + ".")
        self.problems = problems


class DriverMissing(PlainError):
    """The board names a driver that this kiosk does not have; nothing is put in its place."""

    exit_status = 2


class Board(Profile):
    """A profile whose keys fit each other: the board of one kiosk."""

    @model_validator(mode="after")
    def _is_coherent(self) -> Board:
        problems = list(incoherences(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_board(path: Path) -> Board:
    """The board profile at `path`. Raises BoardError, which names each wrong key with the reason."""
    try:
        text = read_regular_file(path, _LARGEST)
    except FileTooBig as error:
        raise BoardError(
            path, [f"it is larger than {_LARGEST // 1024} KiB, so it is something else"]
        ) from error
    except OSError as error:
        raise BoardError(path, [f"it cannot be read ({error.strerror or error})"]) from error
    try:
        data = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise BoardError(path, [f"it is no TOML ({error})"]) from error
    try:
        return Board.model_validate(data)
    except ValidationError as error:
        raise BoardError(path, [line for item in error.errors() for line in _problems(item)]) from error


_UNION = re.compile(r"constrained-\w+|date|literal\[.*\]|\[key\]|lax-or-strict.*|tuple.*|json-or-python.*")


def _problems(item: Any) -> list[str]:
    """One finding of pydantic's as lines that begin with the key."""
    key = ".".join(str(part) for part in item["loc"] if not _UNION.fullmatch(str(part)))
    if item["type"] == "missing":
        return [f"{key} is missing"]
    if item["type"] == "extra_forbidden":
        return [f"{key} is no key of a board profile: is it misspelt, or in the wrong table?"]
    lines = str(item["msg"]).removeprefix("Value error, ").splitlines()
    if item["type"] == "value_error" or isinstance(item["input"], dict):
        return [f"{key}: {line}" if key else line for line in lines]
    return [f"{key} = {item['input']!r}: {line}" for line in lines]
