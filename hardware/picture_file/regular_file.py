"""The bytes of a picture's file, for whoever named it: what else stands there is said in a sentence."""

from __future__ import annotations

from pathlib import Path

from hardware.host import regular_file
from hardware.host.regular_file import FileTooBig, NoRegularFile
from hardware.picture_file.unreadable import TOO_BIG, Unreadable


def read_regular_file(path: Path, limit: int) -> bytes:
    """What the regular file at `path`, or at what it links to, holds. Raises Unreadable, OSError."""
    try:
        return regular_file.read_regular_file(path, limit)
    except NoRegularFile as error:
        raise Unreadable(
            f"This is {error.kind}, and only a regular file is read: name one.", "not_a_file"
        ) from error
    except FileTooBig as error:
        raise Unreadable(TOO_BIG, "too_big") from error
