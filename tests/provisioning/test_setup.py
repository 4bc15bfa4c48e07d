"""Set-up in shells as people have them: `setup.sh` itself, with the real venv and pip, for a tiny project."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "provisioning" / "setup.sh"
RECIPE = """\
[metadata]
name = dermakiosk
version = 0
[options]
py_modules = tiny
[options.extras_require]
demo =
test =
[options.entry_points]
console_scripts =
    dermakiosk = tiny:main
    pybabel = tiny:main
"""
# Beside umask 077 and a path with blanks and letters, which every test here has.
SHELLS = {
    "pip and Python set up for something else": {
        "PIP_USER": "1",
        "PIP_TARGET": "elsewhere",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PYTHONPATH": "elsewhere",
        "PYTHONHOME": "elsewhere",
        "CDPATH": "/:/tmp",
    },
    "a pip.conf that installs for the user, and an old terminal": {
        "PIP_CONFIG_FILE": "user.conf",
        "LANG": "C",
        "LC_ALL": "C",
        "TERM": "dumb",
    },
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with blanks and more in its path, that only its owner can read."""
    folder = tmp_path / "the clinic's 100 % ünïque #1 checkout"
    (folder / "provisioning").mkdir(parents=True, mode=0o700)
    shutil.copy(SETUP, folder / "provisioning")
    (folder / "setup.cfg").write_text(RECIPE)
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools>=68"]\n')
    (folder / "tiny.py").write_text("def main():\n    pass\n")
    return folder


def set_up(
    project: Path, environment: dict[str, str] | None = None, first: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the set-up with umask 077; programs in the folder `first` come before the system's."""
    path = f"{first}:{os.environ['PATH']}" if first else os.environ["PATH"]
    return subprocess.run(
        ["sh", "-c", 'umask 077; exec "$0" run', str(project / "provisioning" / "setup.sh")],
        env=os.environ | {"PATH": path} | (environment or {}),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def programs(folder: Path, **answers: str) -> Path:
    """A folder of programs that print these answers."""
    folder.mkdir(exist_ok=True)
    for name, answer in answers.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {answer}\n")
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_set_up_ends_in_the_checkouts_own_environment(project: Path, shell: str) -> None:
    (project / "user.conf").write_text("[install]\nuser = true\n")
    done = set_up(project, SHELLS[shell])
    assert done.returncode == 0, done.stderr
    assert "is ready" in done.stdout
    assert subprocess.run([project / ".venv/bin/dermakiosk"], check=False).returncode == 0
    assert not (project / "elsewhere").exists()


def test_an_environment_of_another_python_is_made_anew(project: Path) -> None:
    left = project / ".venv" / "lib" / "python3.13"
    left.mkdir(parents=True)
    programs(project / ".venv" / "bin", python="Python 3.13.1")
    works_after_set_up(project)
    assert not left.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(project: Path) -> None:
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    works_after_set_up(project)


def works_after_set_up(project: Path) -> None:
    done = set_up(project)
    assert done.returncode == 0, done.stderr
    asked = [str(project / ".venv/bin/python"), "-c", "import sys, tiny; print(sys.prefix)"]
    assert Path(subprocess.check_output(asked, text=True).strip()) == project / ".venv"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"getconf": "32"}, "64-bit image"),
        ({"getconf": "32", "uname": "armv7l"}, "64-bit image"),
        ({"uname": "riscv64"}, "riscv64"),
    ],
)
def test_a_machine_without_engines_hears_so_before_anything_is_installed(
    project: Path, answers: dict[str, str], said: str
) -> None:
    first = programs(project / "first", **answers)
    programs(first, **{"apt-get": "installed >&2"})
    done = set_up(project, first=first)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert said in line
    assert not (project / ".venv").exists()
