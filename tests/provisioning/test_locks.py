"""The locks name what an installation gets: all that setup.cfg asks for, on every Python, and no more."""

from __future__ import annotations

import ast
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.release.locks import (
    CHECKOUT,
    FOLDER,
    MACHINES,
    PYTHONS,
    Pin,
    asked_for,
    environment,
    extras,
    read_lock,
)

EXTRAS = sorted(extras())
PARTS = ("kiosk", "clinic", "demo", "test")
EVERYWHERE = [environment(python, machine) for python in PYTHONS for machine in MACHINES]
HERE = environment(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())
# Who runs which rooms: the code of an installation may import what its extra brings, and nothing else.
RUN_BY = {
    "kiosk": (
        "firmware",
        "hardware",
        "kiosk_app",
        "models",
        "provisioning",
        "sync/kiosk",
        "sync/web",
        "sync/wire",
    ),
    "clinic": ("provisioning", "sync/clinic", "sync/web", "sync/wire"),
}
# These are run where more than a kiosk's packages are.
ELSEWHERE = ("models/training", "kiosk_app/demo", "sync/clinic/work/machines.py")
# Debian's camera library for the Pi, the demo's default patient, a reference of the tests, types for mypy.
NOT_LOCKED = {"libcamera", "picamera2", "skimage", "onnxruntime", "_typeshed"}
# Brought on other processors and Pythons than these tests may run on.
NOT_HERE = {"lgpio", "gpiod", "tflite_runtime", "tomli", "tomllib"}


def lock(extra: str) -> list[Pin]:
    return read_lock(FOLDER / f"{extra}.txt")


def in_place(pins: Iterable[Pin], place: dict[str, str]) -> dict[str, str]:
    """By package the version that is installed in `place`; there is one."""
    chosen = [pin for pin in pins if pin.is_for(place)]
    versions = {pin.name: pin.version for pin in chosen}
    assert len(versions) == len(chosen)
    return versions


def test_every_extra_has_its_lock_and_no_lock_is_left_over() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{extra}.txt" for extra in EXTRAS]


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_lock_has_what_setup_cfg_asks_for_on_every_python_and_processor(extra: str) -> None:
    pins = lock(extra)
    for place in EVERYWHERE:
        versions = in_place(pins, place)
        for wanted in asked_for(extra):
            if wanted.marker is None or wanted.marker.evaluate(place):
                version = versions.get(canonicalize_name(wanted.name))
                assert version, f"{wanted} is not in the lock: make locks"
                assert wanted.specifier.contains(version), f"{wanted} is locked at {version}: make locks"


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_lock_has_what_those_packages_need_and_nothing_else(extra: str) -> None:
    """As the packages themselves say it, which this environment has."""
    needed, waiting = {"setuptools"}, list(asked_for(extra))
    seen = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, *sorted(wanted.extras)) in seen or not is_wanted(wanted, ""):
            continue
        seen.add((name, *sorted(wanted.extras)))
        needed.add(name)
        for line in metadata.requires(name) or ():
            inner = Requirement(line)
            if any(is_wanted(inner, brought) for brought in ("", *wanted.extras)):
                inner.marker = None
                waiting.append(inner)
    assert set(in_place(lock(extra), HERE)) == needed


def is_wanted(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(HERE | {"extra": extra})


def test_these_tests_run_on_what_the_lock_names() -> None:
    locked = in_place(lock("test"), HERE)
    here = {name_of(found): found.version for found in metadata.distributions()}
    assert {name: here.get(name) for name in locked} == locked, "make setup-test"


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_has_one_version_and_the_hashes_of_its_files(extra: str) -> None:
    pins = lock(extra)
    assert len(pins) > 20
    for pin in pins:
        assert re.fullmatch(r"==[\w.]+", str(pin.requirement.specifier))
        assert pin.hashes, pin.name


@pytest.mark.parametrize("extra", ["kiosk", "clinic", "demo", "machines"])
def test_what_is_installed_is_part_of_what_is_tested(extra: str) -> None:
    tested = lock("test")
    for place in EVERYWHERE:
        assert in_place(lock(extra), place).items() <= in_place(tested, place).items()


def test_a_kiosk_has_nothing_of_the_clinics_and_neither_has_what_tests() -> None:
    kiosk, clinic, demo, test = ({pin.name for pin in lock(name)} for name in PARTS)
    assert not {"sqlalchemy", "alembic", "psycopg", "argon2-cffi"} & kiosk
    assert not {"numpy", "opencv-python-headless", "ai-edge-litert", "tflite-runtime", "gpiozero"} & clinic
    assert {"pytest", "playwright", "mypy", "ruff", "uv"} <= test - demo


def test_no_lock_says_where_packages_come_from() -> None:
    for path in FOLDER.iterdir():
        assert not re.search(r"://|index-url|find-links|trusted-host", path.read_text())


@pytest.mark.parametrize("extra", RUN_BY)
def test_what_a_room_imports_is_brought_by_the_extra_that_runs_it(extra: str) -> None:
    brought = {pin.name for pin in lock(extra)}
    modules = {
        module
        for found in metadata.distributions()
        if name_of(found) in brought
        for module in modules_of(found)
    }
    rooms = {path.split("/")[0] for paths in RUN_BY.values() for path in paths}
    allowed = modules | rooms | sys.stdlib_module_names | NOT_LOCKED | NOT_HERE
    for path in python_files(RUN_BY[extra]):
        unknown = imported(path) - allowed
        assert not unknown, (
            f"{path.relative_to(CHECKOUT)} imports {unknown}, which dermakiosk[{extra}] has not"
        )


def name_of(distribution: metadata.Distribution) -> str:
    return canonicalize_name(distribution.name)


def modules_of(distribution: metadata.Distribution) -> set[str]:
    """What can be imported of it, by the files that it brought."""
    return {path.parts[0].partition(".")[0] for path in distribution.files or ()}


def python_files(folders: Iterable[str]) -> list[Path]:
    files = [path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")]
    return [path for path in files if not path.relative_to(CHECKOUT).as_posix().startswith(ELSEWHERE)]


def imported(path: Path) -> set[str]:
    """The packages that a file names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_make_sets_up_each_extra_and_nothing_else() -> None:
    recipes = (CHECKOUT / "Makefile").read_text()
    # "bench" is the tests' environment and what the clinic is measured beside.
    assert sorted(re.findall(r"provisioning/setup\.sh (.*)", recipes)) == sorted([*EXTRAS, "bench"])
    said = subprocess.run(
        [CHECKOUT / "provisioning" / "setup.sh", "everything"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr.startswith("Error: ") and "kiosk" in said.stderr


def test_the_locks_are_for_the_pythons_that_we_run_on() -> None:
    setup = ConfigParser(interpolation=None)
    setup.read(CHECKOUT / "setup.cfg")
    allowed = SpecifierSet(setup["options"]["python_requires"])
    around = ("3.9", *PYTHONS, "3.14")
    assert tuple(python for python in around if allowed.contains(f"{python}.0")) == PYTHONS
