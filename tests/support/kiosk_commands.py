"""The application's commands as staff meet them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardware.board import BOARDS
from kiosk_app.demo.supervisor import dermakiosk

BOARD = BOARDS / "simulated.toml"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(dermakiosk(*arguments), capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def serving(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`dermakiosk serve` over `state`, with its address."""
    command = dermakiosk("serve", "--board", BOARD, "--state", state, "--port", 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            start = line.strip().removeprefix("kiosk=file://")
            address = re.search(r'url=([^"]+)"', Path(start).read_text())
            assert address is not None, line
            yield process, address[1]
        finally:
            process.kill()
