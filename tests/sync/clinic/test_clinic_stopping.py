"""A daemon of the clinic that is told to stop ends, whatever the step at hand waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sync.clinic.store.database import Database
from sync.wire.keys import dump_opening_keys, generate_opening_key

# One step waits as for a server that hangs.
HANGING = """
import sys, time
from sync.clinic import cli
from sync.clinic.{module} import {daemon}
cli.STOP_SECONDS = 0.1

def hang(*_):
    print("waits", file=sys.stderr, flush=True)
    time.sleep(3600)

{daemon}.{step} = hang
cli.clinic()
"""
STEPS = {
    "open": ("receiving.opener", "Opener", "open_next"),
    "work": ("work.worker", "Worker", "look_at_the_clock"),
}


@pytest.mark.parametrize("command", STEPS)
def test_a_daemon_whose_step_hangs_ends_all_the_same(sqlite: Database, tmp_path: Path, command: str) -> None:
    state = tmp_path / "clinic"
    (state / "opener").mkdir()
    (state / "opener" / "opening.key").write_bytes(dump_opening_keys([generate_opening_key()]))
    module, daemon, step = STEPS[command]
    program = HANGING.format(module=module, daemon=daemon, step=step)
    process = subprocess.Popen(
        [sys.executable, "-c", program, command, "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        while process.stdout.readline() != "waits\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "ended_before_it_had_stopped" in said
