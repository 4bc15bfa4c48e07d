"""A daemon of the clinic that is told to stop ends, whatever the step at hand waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ingesting import Clinic
from tests.support.waiting import wait_until

# One step waits as for a server that hangs, or as for a disk: that lets nobody back into the interpreter.
HANGING = """
import ctypes, os, sys, time
from pathlib import Path
import structlog
from sync.clinic import cli
from {module} import {owner}
cli.STOP_S = 0.1

def a_wait():
    time.sleep(3600)

def a_wait_inside_c():
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def a_log_that_nobody_takes():
    while True:
        structlog.get_logger().info("said", what="x" * 4096)

def hang(*_, **__):
    Path(sys.argv.pop()).touch()
    {how}()

if {how} is not a_log_that_nobody_takes:
    cli._LAST_WORD_S = 60.0
{owner}.{step} = hang
cli.clinic(sys.argv[1:-1])
"""
STEPS = {
    "ingest": ("sync.clinic.receiving.ingest", "IngestWorker", "_next_batch"),
    "open": ("sync.clinic.receiving.opener", "Opener", "open_next"),
    "serve": ("sync.clinic", "server", "make_app"),
    "work": ("sync.clinic.work.worker", "Worker", "look_at_the_clock"),
}


@pytest.mark.parametrize("how", ["a_wait", "a_wait_inside_c", "a_log_that_nobody_takes"])
@pytest.mark.parametrize("command", STEPS)
def test_a_daemon_whose_step_hangs_ends_all_the_same(
    clinic: Clinic, tmp_path: Path, command: str, how: str
) -> None:
    module, owner, step = STEPS[command]
    program = HANGING.format(module=module, owner=owner, step=step, how=how)
    hangs, (taken, log) = tmp_path / "hangs", os.pipe()
    arguments = [command, "--state", str(clinic.state), *(["--port", "0"] if command == "serve" else [])]
    argv = [sys.executable, "-c", program, *arguments, str(hangs)]
    process = subprocess.Popen(argv, stderr=log, stdout=log)
    os.close(log)
    try:
        wait_until(lambda: hangs.exists() or process.poll() is not None, "a step that hangs")
        assert hangs.exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        with os.fdopen(taken, "rb") as file:
            said = file.read().decode()
    assert "ended_before_it_had_stopped" in said or how == "a_log_that_nobody_takes"
