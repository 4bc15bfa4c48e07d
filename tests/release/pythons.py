"""`make pythons`: a part of the tests and a whole scan, on each other Python of the locks that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from tests.release import locks

# Of every room what computes and what keeps; browsers and processes are the same on each Python.
TESTS = (
    "tests/hardware",
    "tests/firmware/test_lightd_core.py",
    "tests/kiosk_app/test_kiosk_consent.py",
    "tests/kiosk_app/test_kiosk_journey.py",
    "tests/kiosk_app/test_kiosk_sessions.py",
    "tests/kiosk_app/test_kiosk_trouble.py",
    "tests/kiosk_app/test_kiosk_records.py",
    "tests/kiosk_app/test_kiosk_shredding.py",
    "tests/kiosk_app/test_kiosk_vault.py",
    "tests/models/test_models_capture_folder.py",
    "tests/models/test_models_measures.py",
    "tests/models/test_models_networks.py",
    "tests/provisioning/test_formats.py",
    "tests/provisioning/test_locks.py",
    "tests/sync/clinic/test_clinic_database.py",
    "tests/sync/clinic/test_clinic_opener.py",
    "tests/sync/clinic/test_clinic_pages.py",
    "tests/sync/clinic/test_clinic_sign_in.py",
    "tests/sync/test_outbox.py",
    "tests/sync/test_outbox_any_order.py",
    "tests/sync/test_outbox_file.py",
    "tests/sync/test_wire_envelope.py",
    "tests/sync/test_wire_messages.py",
)
# Longer than the slowest of these ever took.
_INSTALL_S, _TESTS_S, _SCAN_S = 600.0, 900.0, 300.0


def interpreters() -> dict[str, Path]:
    """By version each of the locks' Pythons that is here, but the one that runs this."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {version: _interpreter(version) for version in locks.PYTHONS if version != own}
    return {version: path for version, path in found.items() if path}


def _interpreter(version: str) -> Path | None:
    """On the path, or one of pyenv's, whose own word on the path may stand for none."""
    pyenvs = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    candidates = [shutil.which(f"python{version}"), *map(str, pyenvs)]
    for path in filter(None, candidates):
        # A word on the path may be pyenv's, which ends with an error where this version is not chosen.
        if not subprocess.run(
            [path, "-c", "import venv"], capture_output=True, check=False, timeout=60
        ).returncode:
            return Path(path)
    return None


def environment(interpreter: Path, folder: Path) -> Path:
    """A new environment with what the lock of the tests names; its interpreter. Raises CalledProcessError."""
    subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True, timeout=_INSTALL_S)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    lock = ["--require-hashes", "--only-binary", ":all:", "--requirement", locks.FOLDER / "test.txt"]
    subprocess.run([*pip, *lock], check=True, timeout=_INSTALL_S)
    checkout = ["--no-deps", "--no-build-isolation", "--editable", locks.CHECKOUT]
    subprocess.run(
        [*pip, *checkout], check=True, timeout=_INSTALL_S, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    )
    return python


def holds(python: Path, out: Path) -> bool:
    """Whether the tests hold on `python`, and a scan comes to the clinic."""
    tests = [python, "-m", "pytest", "-p", "no:xdist", *TESTS]
    if subprocess.run(tests, cwd=locks.CHECKOUT, check=False, timeout=_TESTS_S).returncode:
        return False
    shutil.rmtree(out, ignore_errors=True)
    scan = [python.with_name("dermakiosk"), "demo", "--once", "--out", out]
    return not subprocess.run(scan, check=False, timeout=_SCAN_S).returncode


@click.command()
def main() -> None:
    """Exit status 1 where one of them fails."""
    os.environ.pop("PYTHONPATH", None)  # what is there would count as installed
    build = locks.CHECKOUT / "build" / "pythons"
    failed = []
    here = interpreters()
    for version in locks.PYTHONS:
        if version not in here:
            continue
        begun = time.monotonic()
        click.echo(f"Python {version}: {here[version]}")
        good = holds(environment(here[version], build / version), build / f"scan-{version}")
        click.echo(f"Python {version}: {'holds' if good else 'FAILED'} in {time.monotonic() - begun:.0f} s")
        failed += [] if good else [version]
    click.echo(f"{len(here) - len(failed)} passed, {len(failed)} failed")
    raise click.exceptions.Exit(bool(failed))


if __name__ == "__main__":
    main()
