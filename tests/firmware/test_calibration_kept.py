"""A calibration is kept in a file: read with care, and the newest that is good is used."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import weakref
import zipfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firmware.cameras import calibration as calibrations_module
from firmware.cameras.calibration import (
    Calibration,
    CalibrationError,
    Calibrations,
    newest_calibration,
    read_calibration,
    write_calibration,
)
from firmware.cameras.grey_card_check import GreyCardCheck, why_not_to_scan, write_check
from hardware.board import load_board
from tests.support.uncalibrated import small

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def made(**changes) -> Calibration:
    given = {
        "board": "simulated-uncalibrated",
        "made_at": NOW,
        "still": (384, 512),
        "black": np.full((4, 3, 3), 64, np.float32),
        "gains": {"white": np.full((4, 3, 3), 1 / 3300, np.float32)},
        "matrix": np.eye(3),
    }
    return Calibration(**(given | changes))


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    first = made(mm_per_px=0.7, lamps_mm={"dir0": (1.0, 2.0, 3.0)}, scores={"flat_residual": {"white": 0.01}})
    folder = write_calibration(tmp_path, first)
    again = read_calibration(folder)
    assert again.id == first.id == folder.name
    assert np.array_equal(again.gains["white"], first.gains["white"])
    assert (again.mm_per_px, again.lamps_mm, again.scores) == (first.mm_per_px, first.lamps_mm, first.scores)


def test_a_calibration_whose_maps_another_python_wrote_keeps_its_name(tmp_path: Path) -> None:
    """Python and numpy write the same maps as other bytes from version to version."""
    first = made()
    maps = first.contents()["maps.npz"]
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(maps)) as archive, zipfile.ZipFile(packed, "w") as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name), zipfile.ZIP_DEFLATED)
    header = first._header()
    digest = hashlib.sha256(packed.getvalue() + header.encode()).hexdigest()[:8]
    folder = tmp_path / "calibration" / f"{first.id[:-8]}{digest}"
    folder.mkdir(parents=True)
    (folder / "maps.npz").write_bytes(packed.getvalue())
    sum_of_it = hashlib.sha256(packed.getvalue()).hexdigest()
    (folder / "calibration.json").write_text(json.dumps(json.loads(header) | {"maps_sha256": sum_of_it}))
    again = read_calibration(folder)
    assert again.id == folder.name
    assert np.array_equal(again.gains["white"], first.gains["white"])


def test_the_newest_valid_calibration_is_used_and_no_other(tmp_path: Path) -> None:
    board = load_board(small(tmp_path))
    right = made(made_at=NOW - timedelta(days=2))
    for other in (
        right,
        made(made_at=NOW - timedelta(days=30)),
        made(made_at=NOW - timedelta(days=1), board="another"),
        made(made_at=NOW - timedelta(days=1), still=(10, 10)),
        made(made_at=NOW + timedelta(days=1)),
    ):
        write_calibration(tmp_path, other)
    damaged = write_calibration(tmp_path, made(made_at=NOW))
    (damaged / "maps.npz").write_bytes(b"torn")
    assert newest_calibration(tmp_path, board, NOW).id == right.id
    assert newest_calibration(tmp_path, board, NOW + timedelta(days=800)) is None
    with pytest.raises(CalibrationError, match="damaged"):
        read_calibration(damaged)


def test_a_calibration_is_good_by_the_clock_of_each_moment(tmp_path: Path) -> None:
    """The clock may be behind when the kiosk starts, and a calibration grows old while it runs."""
    kept = write_calibration(tmp_path, made(made_at=NOW))
    calibrations = Calibrations(tmp_path, load_board(small(tmp_path)))
    assert calibrations.newest(NOW - timedelta(days=2)) is None
    assert calibrations.newest(NOW + timedelta(seconds=5)).id == kept.name
    assert calibrations.newest(NOW + timedelta(days=400)) is None
    newer = write_calibration(tmp_path, made(made_at=NOW + timedelta(days=399)))
    assert calibrations.newest(NOW + timedelta(days=400)).id == newer.name
    shutil.rmtree(newer)
    assert calibrations.newest(NOW + timedelta(days=30)).id == kept.name


def test_of_many_calibrations_one_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in range(1, 6):
        write_calibration(tmp_path, made(made_at=NOW - timedelta(days=days)))
    read = []

    def noted(folder) -> Calibration:
        calibration = read_calibration(folder)
        read.append(weakref.ref(calibration))
        return calibration

    monkeypatch.setattr("firmware.cameras.calibration.read_calibration", noted)
    calibrations = Calibrations(tmp_path, load_board(small(tmp_path)))
    kept = calibrations.newest(NOW)
    assert [one() for one in read if one() is not None] == [kept]
    times = len(read)
    assert calibrations.newest(NOW) is kept
    assert len(read) == times


def test_a_calibration_that_is_damaged_while_the_kiosk_runs_is_read_once_and_so_is_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = write_calibration(tmp_path, made(made_at=NOW - timedelta(days=2)))
    newer = write_calibration(tmp_path, made(made_at=NOW))
    calibrations = Calibrations(tmp_path, load_board(small(tmp_path)))
    assert calibrations.newest(NOW - timedelta(days=1)).id == older.name
    (newer / "maps.npz").write_bytes(b"torn")
    read = []
    monkeypatch.setattr(
        "firmware.cameras.calibration.read_calibration",
        lambda folder: read.append(folder.name) or read_calibration(folder),
    )
    for _ in range(3):
        assert calibrations.newest(NOW).id == older.name
    assert read == [newer.name]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("known", [False, True])
def test_a_calibration_that_cannot_be_read_for_a_moment_is_used_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number, known
) -> None:
    older = write_calibration(tmp_path, made(made_at=NOW - timedelta(days=2)))
    newer = write_calibration(tmp_path, made(made_at=NOW))
    calibrations = Calibrations(tmp_path, load_board(small(tmp_path)))
    if known:
        assert calibrations.newest(NOW - timedelta(days=1)).id == older.name
    read, tried, clock = calibrations_module.read_regular_file, [], [1000.0]
    monkeypatch.setattr(calibrations_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def fails(path, *how) -> bytes:
        if newer in path.parents:
            tried.append(path)
            raise OSError(number, os.strerror(number))
        return read(path, *how)

    with monkeypatch.context() as patch:
        patch.setattr(calibrations_module, "read_regular_file", fails)
        for _ in range(3):
            assert calibrations.newest(NOW).id == older.name
    assert len(tried) == 1, "a disk takes seconds for what it cannot read"
    assert capsys.readouterr().out.count("cannot be read") == 1
    clock[0] += calibrations_module.UNREAD_S
    assert calibrations.newest(NOW).id == newer.name


@pytest.mark.parametrize("header", ["null", "3", '"x"', "[]", "{}", "[" * 100_000, " " * 2**20 + "{}"])
def test_a_calibration_file_of_anything_else_is_a_damaged_one(tmp_path: Path, header) -> None:
    folder = write_calibration(tmp_path, made())
    (folder / "calibration.json").write_text(header)
    with pytest.raises(CalibrationError, match="no calibration, or a damaged one"):
        read_calibration(folder)
    assert newest_calibration(tmp_path, load_board(small(tmp_path)), NOW) is None


@pytest.mark.parametrize(
    ("maps", "changes"),
    [
        (b"PK\x03\x04 and no archive", {}),
        (b"", {}),
        (None, {"made_at": "2026-06-01T00:00:00"}),
        (None, {"made_at": 3}),
        (None, {"schema": 1, "still": None}),
        (None, {"still": [float("inf"), 3]}),
        (None, {"matrix": [[10**400] * 3] * 3}),
    ],
)
def test_a_calibration_with_sums_that_fit_is_read_with_the_same_care(tmp_path: Path, maps, changes) -> None:
    contents = made().contents()
    maps = contents["maps.npz"] if maps is None else maps
    header = json.loads(contents["calibration.json"]) | {"maps_sha256": hashlib.sha256(maps).hexdigest()}
    folder = tmp_path / "calibration" / "c"
    folder.mkdir(parents=True)
    (folder / "maps.npz").write_bytes(maps)
    (folder / "calibration.json").write_text(json.dumps(header | changes))
    with pytest.raises(CalibrationError, match="no calibration, or a damaged one"):
        read_calibration(folder)


def test_a_kiosk_that_asks_for_a_daily_check_does_not_scan_without(tmp_path: Path) -> None:
    board = load_board(small(tmp_path)).model_copy(update={"grey_card_every_h": 24.0})
    calibration = made()
    assert "never calibrated" in why_not_to_scan(tmp_path, board, None, NOW)
    assert "in the last 24 h" in why_not_to_scan(tmp_path, board, calibration, NOW)
    check = GreyCardCheck(calibration.id, NOW, {"white": 0.01}, {"white": 0.01})
    write_check(tmp_path, check)
    assert why_not_to_scan(tmp_path, board, calibration, NOW + timedelta(hours=23)) is None
    assert "in the last 24 h" in why_not_to_scan(tmp_path, board, calibration, NOW + timedelta(hours=25))
    assert "in the last 24 h" in why_not_to_scan(tmp_path, board, made(mm_per_px=1.0), NOW)
    weekly = board.model_copy(update={"grey_card_every_h": 168.0})
    assert "in the last 168 h" in why_not_to_scan(tmp_path, weekly, calibration, NOW + timedelta(days=8))
    write_check(tmp_path, replace(check, level_off={"white": float("nan")}))
    assert "white" in why_not_to_scan(tmp_path, board, calibration, NOW)


def test_counts_become_reflectance_at_any_size_and_exposure() -> None:
    board = SimpleNamespace(lights={"white": SimpleNamespace(exposure_us=100, gain=1.0, white_counts=3300.0)})
    counts = np.full((40, 30, 3), 64 + 1650, np.uint16)
    half = made().apply(board, "white", counts, SimpleNamespace(exposure_us=100, gain=1.0))
    quarter = made().apply(board, "white", counts, SimpleNamespace(exposure_us=100, gain=2.0))
    assert half.shape == counts.shape
    assert half == pytest.approx(65_535 / 2, abs=2)
    assert quarter == pytest.approx(65_535 / 4, abs=2)
