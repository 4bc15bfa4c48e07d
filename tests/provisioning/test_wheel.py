"""The wheel holds all that runs: with its lock alone a kiosk verifies and scans, a clinic serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.sources import ROOMS, ROOT
from tests.support.waiting import wait_until

LOCKS = ROOT / "provisioning" / "locks"
# What nobody needs who runs it: pictures of the README, what sets a checkout up, how texts are found.
LEFT_OUT = {".png", ".sh", ".cfg", ".pyc"}
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SIMULATED = "from hardware.board import BOARDS; print(BOARDS / 'simulated.toml')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "wheels", source]
    subprocess.run(build, check=True, timeout=200)
    [built] = (folder / "wheels").iterdir()
    return built


def nothing_else_in_reach() -> dict[str, str]:
    """This process's variables, but where else packages may be: what is there would count as installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def installed(wheel: Path, folder: Path, extra: str) -> Path:
    """The programs of a new environment at `folder`, with what the lock of `extra` names and the wheel."""
    venv.create(folder, with_pip=False, symlinks=True)
    install = [*PIP, "--python", folder / "bin" / "python", "install", "--no-compile"]
    lock = ["--require-hashes", "--only-binary", ":all:", "--requirement", LOCKS / f"{extra}.txt"]
    subprocess.run([*install, *lock], check=True, timeout=280, env=nothing_else_in_reach())
    subprocess.run([*install, "--no-deps", wheel], check=True, timeout=100, env=nothing_else_in_reach())
    return folder / "bin"


@pytest.fixture(scope="module")
def kiosk(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kiosk")
    yield installed(wheel, folder, "kiosk")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def clinic(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clinic")
    yield installed(wheel, folder, "clinic")
    shutil.rmtree(folder)


def command(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, where nothing of the checkout is in reach."""
    return subprocess.run(
        [*map(str, words)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=folder,
        env=nothing_else_in_reach(),
    )


def run(folder: Path, *words: object) -> str:
    """What a command said that did what it was to do."""
    done = command(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(folder: Path, *words: object) -> Iterator[str]:
    """The address of the pages that a command serves in `folder`, as a process of its own."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*map(str, words)], stdout=file, stderr=file, cwd=folder, env=nothing_else_in_reach()
        )

    def port() -> str | None:
        assert process.poll() is None, log.read_text()
        said = re.search(r'"port": (\d+), "event": "ready"', log.read_text())
        return said and said[1]

    try:
        yield f"http://127.0.0.1:{wait_until(port, 'the pages are served')}"
    finally:
        process.kill()
        process.wait(60)


def got(address: str) -> bytes:
    """What stands at an address, as over any network."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        page: bytes = answer.read()
    return page


def test_every_file_that_runs_or_is_read_is_in_the_wheel(wheel: Path) -> None:
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    needed = (path for path in files if path.suffix not in LEFT_OUT and path.parent != LOCKS)
    wanted = {path.relative_to(ROOT).as_posix() for path in needed}
    assert len(wanted) > 400
    with ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert wanted - held == set()
    assert not [name for name in held if name.startswith(("tests/", "provisioning/locks/"))]


def test_no_room_reaches_into_another_by_a_link() -> None:
    assert [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_symlink()] == []


def test_a_kiosk_verifies_its_networks_and_its_board(kiosk: Path, tmp_path: Path) -> None:
    assert "verified" in run(tmp_path, kiosk / "dermakiosk", "models", "verify")
    board = run(tmp_path, kiosk / "python", "-c", SIMULATED).strip()
    assert Path(board).is_relative_to(kiosk.parent)
    assert "shroud" in run(tmp_path, kiosk / "dermakiosk", "board", "check", board)


def test_a_kiosk_makes_one_scan(kiosk: Path, tmp_path: Path) -> None:
    board = run(tmp_path, kiosk / "python", "-c", SIMULATED).strip()
    run(tmp_path, kiosk / "dermakiosk", "scan", "--board", board, "--out", "scan", "--phantom", 7)
    assert json.loads((tmp_path / "scan" / "findings.json").read_text())["findings"]


def test_a_clinic_serves_its_pages_and_makes_its_authority(clinic: Path, tmp_path: Path) -> None:
    state = ("--state", tmp_path / "clinic")
    run(tmp_path, clinic / "dermakiosk", "clinic", "migrate", *state)
    with serving(tmp_path, clinic / "dermakiosk", "clinic", "serve", "--port", 0, *state) as pages:
        assert b"<form" in got(f"{pages}/login")
        assert b"--paper" in got(f"{pages}/static/shared/look.css")
    run(tmp_path, clinic / "dermakiosk", "provision", "authority", "--state", tmp_path / "authority")
    assert run(tmp_path, clinic / "dermakiosk", "clinic", "status", *state)


@pytest.mark.parametrize(
    ("end", "words", "lacks"), [("kiosk", ("clinic", "status"), "sqlalchemy"), ("clinic", ("scan",), "numpy")]
)
def test_what_an_installation_is_not_for_is_one_sentence(
    request: pytest.FixtureRequest, tmp_path: Path, end: str, words: tuple[str, ...], lacks: str
) -> None:
    done = command(tmp_path, request.getfixturevalue(end) / "dermakiosk", *words)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Error: The Python package '{lacks}' is not installed here")
