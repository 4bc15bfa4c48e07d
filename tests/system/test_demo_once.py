"""One headless scan through everything, by the command that scripts call."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import cv2
import pytest
import skimage.data

from hardware.simulated.pins import PinReader
from models.analysis.lights import lights_read
from models.networks.signature import check_signature
from tests.support.system import small_system_board
from tests.system.conftest import FinishedScan, dermakiosk


def test_the_summary_says_that_the_clinic_stored_the_scan(finished_scan: FinishedScan) -> None:
    summary = finished_scan.summary
    assert summary["receipt"] == "stored"
    assert summary["clinic_record"] == summary["scan"]
    assert summary["frames"] == 3
    assert summary["findings"] > 20
    assert {"capture", "vault", "analysis", "seal", "submit", "deliver"} <= set(summary["seconds"])
    assert summary["peak_rss_mb"] > 0


def test_the_kiosk_ran_networks_that_its_clinic_signed(finished_scan: FinishedScan) -> None:
    assert check_signature(finished_scan.folder / "kiosk") == "signed"


def test_the_clinic_read_exactly_what_the_kiosk_measured(finished_scan: FinishedScan) -> None:
    (opened,) = (finished_scan.folder / "opened").glob("*.json")
    message = json.loads(opened.read_text())
    assert message["scan"] == finished_scan.summary["scan"]
    findings = message["findings"]["findings"]
    assert len(findings) == finished_scan.summary["findings"]
    assert all(f["low"] <= f["value"] <= f["high"] and f["unit"] for f in findings)
    with closing(sqlite3.connect(finished_scan.folder / "clinic" / "clinic.sqlite")) as database:
        rows = database.execute("SELECT measure, zone, value FROM findings ORDER BY position").fetchall()
    assert rows == [(f["measure"], f["zone"], f["value"]) for f in findings]


def test_what_crossed_the_broker_is_one_sealed_result_of_the_size_that_the_summary_names(
    finished_scan: FinishedScan,
) -> None:
    results = list((finished_scan.folder / "wire").glob("*up.result.cose"))
    assert [path.stat().st_size for path in results] == [finished_scan.summary["sealed_bytes"]]
    assert list((finished_scan.folder / "wire").glob("*down.receipt.cose"))


def test_there_is_a_frame_for_each_light_that_a_measure_reads(finished_scan: FinishedScan) -> None:
    vault = finished_scan.folder / "kiosk" / "app" / "vault" / finished_scan.summary["scan"]
    lights = {path.name.removeprefix("frame.").removesuffix(".cob") for path in vault.glob("frame.*.cob")}
    assert lights == {"dark"} | lights_read() == {"dark", "white", "cross"}


def test_no_other_lamp_was_lit_and_no_dose_of_uv_is_in_the_ledger(finished_scan: FinishedScan) -> None:
    pins = PinReader(finished_scan.folder / "kiosk" / "run" / "pins.page")
    lit = {item.light for item in pins.history() if item.level > 0}
    pins.close()
    assert lit == lights_read()
    with closing(sqlite3.connect(finished_scan.folder / "kiosk" / "light" / "doses.sqlite")) as ledger:
        assert ledger.execute("SELECT count(*) FROM pulses").fetchone() == (0,)


def test_the_logs_of_a_simulated_kiosk_say_so(finished_scan: FinishedScan) -> None:
    for part in ("lightd", "captured", "app"):
        lines = (finished_scan.folder / "logs" / f"{part}.log").read_text().splitlines()
        (ready,) = [line for line in lines if '"event": "ready"' in line]
        assert json.loads(ready)["simulated"] is True, part


def _photograph(path: Path, name: str) -> Path:
    face = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    pictures = {
        "mirrored": lambda: face[:, ::-1],
        "close and dark": lambda: cv2.resize(face[20:260, 100:340] // 2, (900, 900)),
        "landscape": lambda: cv2.cvtColor(skimage.data.rocket(), cv2.COLOR_RGB2BGR),
        "two people": lambda: cv2.hconcat([face[:320, 60:380], face[:320, 60:380]]),
    }
    file = path / f"{name.replace(' ', '-')}.jpg"
    assert cv2.imwrite(str(file), pictures[name]())
    return file


@pytest.mark.parametrize("name", ["mirrored", "close and dark"])
def test_another_face_is_scanned_too(name: str, tmp_path: Path) -> None:
    board, portrait = small_system_board(tmp_path), _photograph(tmp_path, name)
    done = dermakiosk("demo", "--once", "--out", tmp_path / "out", "--board", board, "--portrait", portrait)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["receipt"] == "stored"


@pytest.mark.parametrize(("name", "said"), [("landscape", "no face"), ("two people", "one person at a time")])
def test_a_picture_without_one_face_exits_2_with_a_sentence(name: str, said: str, tmp_path: Path) -> None:
    out, board, portrait = tmp_path / "out", small_system_board(tmp_path), _photograph(tmp_path, name)
    done = dermakiosk("demo", "--once", "--out", out, "--board", board, "--portrait", portrait)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    with closing(sqlite3.connect(out / "clinic" / "clinic.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM scans").fetchone() == (0,)
    assert not list((out / "kiosk" / "app" / "vault").glob("*/*")), "refused pictures are deleted"


def test_a_portrait_that_is_no_picture_exits_2_before_anything_starts(tmp_path: Path) -> None:
    broken = tmp_path / "portrait.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 this was never a picture")
    done = dermakiosk("demo", "--once", "--out", tmp_path / "out", "--portrait", broken)
    assert done.returncode == 2
    assert "portrait.jpg" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
