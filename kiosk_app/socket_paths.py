"""The longest path that a state folder may have: the sockets in its run/ are named by their whole paths."""

from __future__ import annotations

import os
from pathlib import Path

MOST_BYTES = 107  # of sockaddr_un, less its final zero


class PathTooLong(Exception):
    """A folder's path leaves no room for the names of the sockets in it."""

    exit_status = 2


def check_socket_paths(state: Path, option: str) -> None:
    """Raises PathTooLong, naming the command's `option`, where no socket in `state`/run can be bound."""
    excess = len(os.fsencode(state / "run" / "capture.sock")) - MOST_BYTES
    if excess > 0:
        raise PathTooLong(
            f"The path of {option} is {excess} bytes too long for the sockets in it: name a shorter one."
        )
