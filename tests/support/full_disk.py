"""A disk that is full: a process in a mount namespace of its own, where one folder is a tiny tmpfs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# What a test's script begins with: `disk` is the folder, `fill()` leaves no byte of room in it.
_BEGINNING = """
import contextlib, os, sys
from pathlib import Path
disk = Path(sys.argv[1])
def fill():
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
"""


def on_a_small_disk(folder: Path, script: str, size: str = "2m", *given: str) -> str:
    """What `script` prints, run where `folder` is a disk of `size` of its own; it gets what is `given`."""
    command = f"mount -t tmpfs -o size={size} tmpfs '{folder}' && exec \"$@\""
    shell = ["unshare", "--mount", "sh", "-c", command, "sh"]
    if os.geteuid() != 0:
        shell[1:1] = ["--map-root-user", "--user"]
    python = [sys.executable, "-c", _BEGINNING + script, str(folder), *given]
    done = subprocess.run([*shell, *python], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
