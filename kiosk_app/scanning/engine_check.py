"""Whether the board's engine answers as the reference kernels do on this machine, asked once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import structlog

from hardware.host.durable import write_whole
from hardware.host.regular_file import read_regular_text
from models.networks.manifest import ModelsError, load_manifest
from models.networks.runtime import engine_here

log = structlog.get_logger()

CHECKED = "engine.checked"
# The slower engine needed 14 s on a busy build machine.
DEADLINE_S = 300.0


def found_right(engine: str) -> str:
    """The note that `engine` was found right here: engine, processor and manifest, one line."""
    return f"{engine_here(engine)}, known answers {load_manifest().known_answers.sha256}\n"


def require_right_engine(engine: str, state: Path) -> None:
    """Let every network answer its known picture in a process of its own; raises ModelsError if one is wrong.

    What was found right is noted in `state`, where that can be written, and asked again only with another
    engine, processor or manifest.
    """
    note = state / CHECKED
    known = found_right(engine)
    try:
        if read_regular_text(note) == known:
            return
    except (OSError, UnicodeDecodeError):
        pass  # never noted, or not readably: asked again
    command = [sys.executable, "-m", "models.networks.known_answers", engine]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
            env={},
        )
    except subprocess.TimeoutExpired as error:
        raise ModelsError(
            f"The engine '{engine}' did not answer the known picture within {DEADLINE_S:g} s. "
            "See what else is at work on this machine, then start again."
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"It ended with status {done.returncode}."])[-1]
        raise ModelsError(f"No scan can be measured here. {reason}")
    try:
        write_whole(note, known, 0o644)
    except OSError as error:  # a full disk, say: the pages tell of that, and it is asked again after a start
        log.warning("engine_check_not_noted", why=error.strerror)
