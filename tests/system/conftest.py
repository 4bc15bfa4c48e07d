"""One finished scan, and one running system, shared by the tests that only look at them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import EVERY_LIGHT, QUICK, RunningSystem, running_system

DERMAKIOSK = str(Path(sys.executable).with_name("dermakiosk"))


def dermakiosk(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [DERMAKIOSK, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


@dataclass(frozen=True)
class FinishedScan:
    """What `demo --once` said and left."""

    folder: Path
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def finished_scan(tmp_path_factory: pytest.TempPathFactory) -> FinishedScan:
    folder = tmp_path_factory.mktemp("once") / "a 1%20#é?"  # what a path may hold
    done = dermakiosk("demo", "--once", "--out", folder)
    assert done.returncode == 0, done.stderr
    return FinishedScan(folder, json.loads(done.stdout.splitlines()[-1]))


# A short resend interval: these tests lose messages on purpose and wait for the second try.
OPTIONS = {"sync": ("--resend-first", "1.5")}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """The whole system, as the demo starts it."""
    with running_system(tmp_path_factory.mktemp("system"), extra=OPTIONS) as system:
        yield system


@pytest.fixture(scope="module")
def running_quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """The same with little work in each scan."""
    root = tmp_path_factory.mktemp("system")
    with running_system(root, extra=OPTIONS, replace={"app": QUICK}) as system:
        yield system


@pytest.fixture(scope="module")
def running_with_uv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """The whole system with a measure that reads every light, so that each visit has UV in it."""
    root = tmp_path_factory.mktemp("system")
    with running_system(root, extra=OPTIONS, replace={"app": EVERY_LIGHT}) as system:
        yield system
