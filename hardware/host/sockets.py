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
    length, most = len(os.fsencode(run)), MOST_BYTES - 1 - LONGEST_NAME
    if length > most:
        raise PathTooLong(
            f"The path of {option} has {length} bytes, and with more than {most} it is too long for the "
            "sockets in it: name a shorter one."
        )
