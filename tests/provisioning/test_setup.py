"""Set-up in shells as people have them: `setup.sh` itself, with the real venv and pip, for a tiny project.

What is not about how an environment comes about gets its pip as a copy: to install it is most of the work.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.release.programs import SETUP, debian_packages

TEST_LOCK = SETUP.parent / "locks" / "test.txt"
RECIPE = """\
[metadata]
name = dermakiosk
version = 0
[options]
py_modules = tiny
[options.entry_points]
console_scripts =
    dermakiosk = tiny:main
    pybabel = tiny:main
"""
# `python -m venv` of the system's Python, with the pip of another environment; all else is that Python's.
QUICK = """\
#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec "{python}" "$@"
"{python}" "$@" --without-pip || exit
for made; do :; done
cp -r --preserve=timestamps "{packages}"/* "$made"/lib/python3*/site-packages
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


# What the tiny project needs: to be installed itself.
LOCK = next(entry for entry in TEST_LOCK.read_text().split("\n    # via") if "setuptools==" in entry)
LOCK = "setuptools==" + LOCK.partition("setuptools==")[2] + "\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with blanks and more in its path, that only its owner can read."""
    folder = tmp_path / "the clinic's 100 % ünïque #1 checkout"
    (folder / "provisioning" / "locks").mkdir(parents=True, mode=0o700)
    shutil.copy(SETUP, folder / "provisioning")
    (folder / "setup.cfg").write_text(RECIPE)
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools>=68"]\n')
    (folder / "provisioning" / "locks" / "demo.txt").write_text(LOCK)
    (folder / "tiny.py").write_text("def main():\n    pass\n")
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Python that makes environments quickly."""
    name = next(name for name in ("python3.11", "python3") if shutil.which(name))
    python, folder = shutil.which(name), tmp_path_factory.mktemp("quick")
    subprocess.run([str(python), "-m", "venv", folder / "made"], check=True, umask=0o022)
    [packages] = (folder / "made" / "lib").glob("python3*/site-packages")
    (folder / "bin").mkdir()
    (folder / "bin" / name).write_text(QUICK.format(python=python, packages=packages))
    (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


@pytest.fixture
def quickly(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(quick), prepend=os.pathsep)


def set_up(
    project: Path, environment: dict[str, str] | None = None, first: Path | None = None, what: str = "demo"
) -> subprocess.CompletedProcess[str]:
    """Run the set-up with umask 077; programs in the folder `first` come before the system's."""
    path = f"{first}:{os.environ['PATH']}" if first else os.environ["PATH"]
    return subprocess.run(
        ["sh", "-c", 'umask 077; exec "$0" "$1"', str(project / "provisioning" / "setup.sh"), what],
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


@pytest.mark.usefixtures("quickly")
def test_an_environment_of_another_python_is_made_anew(project: Path) -> None:
    left = project / ".venv" / "lib" / "python3.13"
    left.mkdir(parents=True)
    programs(project / ".venv" / "bin", python="Python 3.13.1")
    works_after_set_up(project)
    assert not left.exists()


@pytest.mark.usefixtures("quickly")
def test_an_environment_whose_python_is_gone_is_made_anew(project: Path) -> None:
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    works_after_set_up(project)


def works_after_set_up(project: Path) -> None:
    done = set_up(project)
    assert done.returncode == 0, done.stderr
    asked = [str(project / ".venv/bin/python"), "-c", "import sys, tiny; print(sys.prefix)"]
    assert Path(subprocess.check_output(asked, text=True).strip()) == project / ".venv"


@pytest.mark.usefixtures("quickly")
def test_a_package_of_another_hash_is_not_installed_and_the_lock_once_mended_is(project: Path) -> None:
    lock = project / "provisioning" / "locks" / "demo.txt"
    lock.write_text(re.sub("[0-9a-f]{64}", "0" * 64, LOCK))
    done = set_up(project)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: pip could not install the Python packages")
    assert not (project / ".venv" / "bin" / "dermakiosk").exists()
    lock.write_text(LOCK)
    works_after_set_up(project)
    assert "Making" not in set_up(project).stdout, "a second set-up asks pip for nothing"


@pytest.mark.usefixtures("quickly")
def test_a_kiosk_or_server_that_cannot_be_updated_keeps_what_it_has(project: Path) -> None:
    """A lock whose packages cannot be had is what an update without a network is to pip."""
    lock = project / "provisioning" / "locks" / "clinic.txt"
    lock.write_text(LOCK)
    assert set_up(project, what="clinic").returncode == 0
    lock.write_text(re.sub("[0-9a-f]{64}", "0" * 64, LOCK))
    for _ in range(2):
        done = set_up(project, what="clinic")
        assert (done.returncode, done.stdout.count("Making")) == (1, 1)
        assert subprocess.run([project / ".venv/bin/dermakiosk"], check=False).returncode == 0
    lock.write_text(LOCK + "\n")
    assert set_up(project, what="clinic").returncode == 0
    works_after_set_up(project)
    assert [path.name for path in project.glob(".venv*")] == [".venv"]
    assert not [path for path in (project / ".venv/bin").iterdir() if b".venv.new" in path.read_bytes()]


def test_an_environment_that_a_cut_set_up_had_put_aside_is_there_again_though_the_next_one_fails(
    project: Path,
) -> None:
    (project / ".venv.old").mkdir()
    (project / ".venv.old" / "kept").touch()
    assert set_up(project, first=programs(project / "first", getconf="32")).returncode == 1
    assert (project / ".venv" / "kept").exists() and not (project / ".venv.old").exists()


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("left", [".venv", ".venv.old"])
def test_an_environment_of_which_a_cut_set_up_had_deleted_the_half_is_never_put_back(
    project: Path, left: str
) -> None:
    (project / ".venv").mkdir()
    (project / left / "half").mkdir(parents=True)
    first = project / "first"
    first.mkdir()
    (first / "rm").write_text(
        "#!/bin/sh\n"
        "for last; do :; done\n"
        '[ -e "$last/half" ] || exec /bin/rm "$@"\n'
        '/bin/rmdir "$last/half" && touch "$last/rest" && kill -9 $PPID\n'
    )
    (first / "rm").chmod(0o755)
    assert set_up(project, first=first).returncode == -9
    shutil.rmtree(project / ".venv")
    assert set_up(project, first=programs(project / "other", getconf="32")).returncode == 1
    assert list(project.glob(".venv*/rest")) == []


@pytest.mark.parametrize("what", ["kiosk", "clinic", "machines"])
def test_whoever_runs_a_kiosk_or_server_can_read_what_another_user_installed(
    project: Path, what: str, request: pytest.FixtureRequest
) -> None:
    if what != "kiosk":
        request.getfixturevalue("quickly")
    (project / "provisioning" / "locks" / f"{what}.txt").write_text(LOCK)
    first = programs(project / "first", **{"apt-get": "", "sudo": ""})
    done = set_up(project, first=first, what=what)
    assert done.returncode == 0, done.stderr
    installed = [path for path in (project / ".venv").rglob("*") if not path.is_symlink()]
    assert len(installed) > 100
    for path in (project / ".venv", *installed):
        needed = 0o055 if path.is_dir() else 0o044
        assert path.stat().st_mode & needed == needed, path


@pytest.mark.usefixtures("quickly")
def test_a_server_has_nothing_that_another_set_up_left_and_that_one_is_made_again_afterwards(
    project: Path,
) -> None:
    assert set_up(project).returncode == 0
    left = project / ".venv" / "bin" / "left"
    left.touch()
    (project / "provisioning" / "locks" / "clinic.txt").write_text(LOCK)
    for making in (True, False):
        done = set_up(project, what="clinic")
        assert (done.returncode, "Making" in done.stdout) == (0, making), done.stderr
        assert not left.exists()
    assert "Making" in set_up(project).stdout


def test_a_pi_whose_system_has_no_camera_library_hears_which_system_has(project: Path) -> None:
    first = programs(project / "first", **{"apt-get": "", "sudo": "", "tr": "Raspberry Pi 5 Model B"})
    (first / "apt-cache").write_text("#!/bin/sh\nexit 100\n")
    (first / "apt-cache").chmod(0o755)
    done = set_up(project, first=first, what="kiosk")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "python3-picamera2" in line and "64-bit image of Raspberry Pi OS" in line
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("what", ["kiosk", "clinic", "machines"])
def test_who_installs_the_wheel_is_told_all_that_set_up_would_install(what: str) -> None:
    text = (SETUP.parent / "docs" / "release.md").read_text()
    told = {
        lock: (block, set(re.findall(r"apt-get install --no-install-recommends (.*)", block)[0].split()))
        for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for lock in re.findall(r"-r (\w+)\.txt", block)
    }
    block, packages = told["clinic" if what == "machines" else what]
    assert packages == debian_packages(what) | {"python3-venv"}
    assert f"`{what}.txt`" in text or f"-r {what}.txt" in block
    assert ("--system-site-packages" in block) == ("python3-picamera2" in packages)
    assert block.startswith("umask 022")


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
