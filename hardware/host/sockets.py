"""The path of a Unix socket: how long it may be, and so how long that of the folder that it lies in."""

from __future__ import annotations

import os
from pathlib import Path

from hardware.host.errors import PlainError

MOST_BYTES = 107  # of sockaddr_un, less its final zero
LONGEST_NAME = 12  # of a socket in a state folder's run/


class PathTooLong(PlainError):
    """A socket cannot have so long a path."""

    exit_status = 2


def check_folder(run: Path, option: str) -> None:
    """Raises PathTooLong, naming the command's `option`, where not every socket in `run` could be bound."""
    excess = len(os.fsencode(run)) + 1 + LONGEST_NAME - MOST_BYTES
    if excess > 0:
        raise PathTooLong(
            f"The path of {option} is {excess} bytes too long for the sockets in it: name a shorter one."
        )
