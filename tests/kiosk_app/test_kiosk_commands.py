"""The commands of the application as staff meet them, with the child process that measures."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import cv2
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner

from hardware.board import BOARDS
from hardware.capture import Capture, Frame
from hardware.host import sqlite
from hardware.simulated.close_up import draw_skin
from kiosk_app import serve_cli
from kiosk_app.demo.supervisor import Stopped, dermakiosk
from kiosk_app.kept import records_file
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.storage import StateRefused
from kiosk_app.kept.vault import new_key
from kiosk_app.scanning import analyst, engine_check
from kiosk_app.scanning.analyst import AnalysisFailed, Analyst
from models.analysis.words import Words
from models.networks.manifest import ModelsError
from tests.support.kiosk_bench import Bench, Clinic, picture
from tests.support.kiosk_daemons import small_board
from tests.support.scanning import consented, do, reading
from tests.support.waiting import wait_until

BOARD = BOARDS / "simulated.toml"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(dermakiosk(*arguments), capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def serving(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`dermakiosk serve` over `state`, with its address."""
    command = dermakiosk("serve", "--board", BOARD, "--state", state, "--port", 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            start = line.strip().removeprefix("kiosk=file://")
            address = re.search(r'url=([^"]+)"', Path(start).read_text())
            assert address is not None, line
            yield process, address[1]
        finally:
            process.kill()


@pytest.fixture
def state(tmp_path: Path, clinic: Clinic) -> Path:
    return clinic.enrol(tmp_path / "kiosk")


def test_serve_says_where_it_is_and_ends_at_sigterm(state: Path) -> None:
    with serving(state) as (process, address):
        with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
            assert json.load(answer)["ok"] is True
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address, timeout=60) as answer:
            assert b"SIMULATED" in answer.read()
        secret = (state / "run" / "screen" / "key").read_text().strip()
        assert secret in address
        assert (state / "run" / "screen" / "key").stat().st_mode & 0o777 == 0o600
        assert secret not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert secret not in said
        events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events[0] == "recovered"
    assert {"ready", "stopped"} <= set(events)


def test_serve_refuses_a_folder_that_is_no_enrolled_kiosk(tmp_path: Path) -> None:
    done = run("serve", "--board", BOARD, "--state", tmp_path, "--port", 0)
    assert done.returncode == 2
    assert "provision enrol" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_refuses_a_simulated_camera_on_a_board_that_does_not_say_so(
    state: Path, tmp_path: Path
) -> None:
    board = tmp_path / "board.toml"
    board.write_text(BOARD.read_text().replace("simulated = true", "simulated = false", 1))
    done = run("serve", "--board", board, "--state", state, "--port", 0)
    assert done.returncode == 2
    assert "not a usable board profile" in done.stderr
    assert "simulated" in done.stderr


def test_serve_refuses_a_key_store_that_it_cannot_keep_its_key_in(state: Path) -> None:
    result = run("serve", "--board", BOARDS / "raspberrypi5.toml", "--state", state, "--port", "0")
    assert result.returncode == 2
    assert "key_store = 'tpm2'" in result.stderr


def test_serve_refuses_networks_that_the_clinic_did_not_sign(state: Path) -> None:
    signature = state / "models.sig"
    signature.write_text("0" * 128)
    done = run("serve", "--board", BOARD, "--state", state, "--port", 0)
    assert done.returncode == 1
    assert "not the one that this kiosk's clinic signed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    signature.unlink()
    assert "dermakiosk models sign" in run("serve", "--board", BOARD, "--state", state, "--port", 0).stderr


def test_serve_refuses_an_engine_that_answers_the_known_picture_otherwise(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_child = engine_check.subprocess.run
    wrong = "import sys; sys.exit('The engine computes wrongly.')"
    monkeypatch.setattr(
        engine_check.subprocess, "run", lambda command, **k: run_child([command[0], "-c", wrong], **k)
    )
    monkeypatch.setattr(serve_cli, "keep_memory_to_ourselves", lambda: None)
    monkeypatch.setattr(serve_cli, "make_web_server", lambda *a, **k: pytest.fail("it serves all the same"))
    arguments = ["--board", str(BOARD), "--state", str(state), "--port", "0"]
    result = CliRunner().invoke(serve_cli.serve, arguments, obj={"debug": True})
    assert isinstance(result.exception, ModelsError)
    assert str(result.exception) == "No scan can be measured here. The engine computes wrongly."


def test_the_child_that_measures_is_told_whose_networks_it_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "child", f'echo "$@" > {tmp_path}/seen', monkeypatch)
    with pytest.raises(AnalysisFailed):
        Analyst("ai-edge-litert", tmp_path / "kiosk").measure(a_capture(picture(64, 48)), uuid4())
    assert f"--state {tmp_path}/kiosk" in (tmp_path / "seen").read_text()


def test_a_port_that_is_taken_is_said_plainly(state: Path, tmp_path: Path, clinic: Clinic) -> None:
    another = clinic.enrol(tmp_path / "another")
    with serving(state) as (_process, address):
        port = urlsplit(address).port
        done = run("serve", "--board", BOARD, "--state", another, "--port", str(port))
    assert done.returncode == 1
    assert "--port" in done.stderr


def test_a_restart_after_kill_9_abandons_what_had_no_pictures(bench: Bench) -> None:
    with serving(bench.state) as (process, _address):
        scan = bench.kiosk.records.create({"text_version": "1", "language": "en", "at": "2026-01-01"}, None)
        (bench.kiosk.vault.folder / f".{scan}.partial").mkdir()
        process.kill()
        process.wait(60)
    with serving(bench.state):
        assert bench.kiosk.records.scan(scan).state == "abandoned"
        assert list(bench.kiosk.vault.folder.iterdir()) == []


def test_staff_find_the_id_of_a_scan_that_is_kept_in_a_list_without_names(bench: Bench) -> None:
    records, vault = bench.kiosk.records, bench.kiosk.vault
    kept, gone = (
        records.create({"text_version": "1", "language": "en", "at": "2026-01-01"}, "patient-7")
        for _ in range(2)
    )
    for scan in (kept, gone):
        vault.put_all(scan, records.dek(scan), {"frame.white": b"picture"})
    assert run("shred", gone, "--state", bench.state).returncode == 0
    listed = run("scans", "list", "--state", bench.state, "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    entry = json.loads(listed.stdout)
    assert entry == {
        "scan": str(kept),
        "at": records.scan(kept).created.isoformat(timespec="seconds"),
        "bytes": vault.size(kept),
        "state": "consented",
    }
    assert entry["bytes"] > len(b"picture")
    _, line = run("scans", "list", "--state", bench.state).stdout.splitlines()
    assert line.split() == [str(value) for value in entry.values()]
    assert "patient-7" not in listed.stdout + line
    assert run("shred", line.split()[0], "--state", bench.state).returncode == 0
    assert run("scans", "list", "--state", bench.state, "--json").stdout == ""


def test_shred_says_what_is_gone_while_the_pages_are_served(bench: Bench) -> None:
    records, vault = bench.kiosk.records, bench.kiosk.vault
    with serving(bench.state):
        scan = records.create({"text_version": "1", "language": "en", "at": "2026-01-01"}, None)
        vault.put_all(scan, records.dek(scan), {"frame.white": b"picture", "frame.cross": b"picture"})
        done = run("shred", scan, "--state", bench.state)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2 encrypted items" in done.stdout
    # It runs no outbox that could be asked, and the records may be an older copy.
    assert "Its result may have been sent, and the clinic could not be told yet" in done.stdout
    assert vault.items(scan) == []
    assert records.keyring.generations() == [2]
    again = run("shred", scan, "--state", bench.state)
    assert again.returncode == 0, again.stderr
    assert f"Scan {scan} was deleted before; no item of it was left here." in again.stdout
    assert again.stderr.count("event") == 0


def test_a_deletion_by_command_while_somebody_reads_does_all_but_the_end_of_the_old_key_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiosk_app.scanning.shred.USED_S", 0.1)
    scan, records = consented(bench), bench.kiosk.records
    do(bench, scan)
    arguments = ["shred", str(scan), "--state", str(bench.state)]
    items = len(bench.kiosk.vault.items(scan))
    with reading(bench):
        done = CliRunner().invoke(serve_cli.shred, arguments[1:], obj={"debug": True})
        assert done.exit_code == 0, done.output
        assert f"Scan {scan}: it is deleted; gone with it: {items} encrypted items" in done.output
        assert "Its old key is not destroyed yet" in done.output and "run this again" in done.output
        assert "the clinic" in done.output
        assert (records.scan(scan).state, bench.kiosk.vault.items(scan)) == ("shredded", [])
        again = CliRunner().invoke(serve_cli.shred, arguments[1:], obj={"debug": True}).output
        assert f"Scan {scan} was deleted before" in again and "Its old key is not destroyed yet" in again
        assert "destroyed before" not in again and "nothing of it" not in again
    again = run(*arguments).stdout
    assert f"Scan {scan} was deleted before" in again and "without the destroyed key" in again
    assert len(records.keyring.generations()) == 1


@pytest.mark.parametrize("unusable", ["clinic-keys.cose", "app/result.key"])
def test_a_scan_is_deleted_though_the_clinic_cannot_be_told(bench: Bench, unusable: str) -> None:
    scan = consented(bench)
    do(bench, scan)
    (bench.state / unusable).write_bytes(b"x")
    done = run("shred", scan, "--state", bench.state)
    assert done.returncode == 0, done.stderr
    assert bench.kiosk.records.scan(scan).state == "shredded"
    assert bench.kiosk.vault.items(scan) == []
    assert "the clinic could not be told yet to erase it" in done.stdout


def test_the_pages_are_served_though_nothing_can_be_sealed_for_the_clinic(bench: Bench) -> None:
    (bench.state / "clinic-keys.cose").write_bytes(b"x")
    with serving(bench.state) as (process, _address):
        assert process.poll() is None


@pytest.mark.parametrize("port", [99999, -1])
def test_a_port_that_is_none_is_refused(state: Path, port: int) -> None:
    done = run("serve", "--board", BOARD, "--state", state, "--port", port)
    assert done.returncode == 2
    assert "65535" in done.stderr


def test_serve_refuses_to_go_on_without_the_key_of_its_records(bench: Bench) -> None:
    (bench.state / "app" / "vault.key").unlink()
    done = run("serve", "--board", BOARD, "--state", bench.state, "--port", 0)
    assert done.returncode == 1
    assert "vault.key is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_says_which_folder_it_cannot_use(state: Path) -> None:
    (state / "app" / "vault").write_text("in the way")
    done = run("serve", "--board", BOARD, "--state", state, "--port", 0)
    assert done.returncode == 2
    assert f"{state / 'app'} cannot be used (File exists)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_serve_refuses_a_folder_whose_path_has_no_room_for_sockets(clinic: Clinic, tmp_path: Path) -> None:
    state = clinic.enrol(tmp_path / ("k" * 100))
    done = run("serve", "--board", BOARD, "--state", state, "--port", 0)
    assert done.returncode == 2
    assert "too long for the sockets" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (state / "app" / "vault.key").exists()


@pytest.mark.parametrize("scan", ["7a9a587a-ed8d-4971-abd2-5c490d67a391", "not-an-id"])
def test_shredding_what_is_not_there_is_the_callers_mistake(state: Path, scan: str) -> None:
    done = run("shred", scan, "--state", state)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


COMMANDS = pytest.mark.parametrize(
    "command", [["scans", "list"], ["shred", str(uuid4())]], ids=["list", "shred"]
)


@COMMANDS
def test_a_command_makes_nothing_for_a_kiosk_that_never_ran(state: Path, command: list[str]) -> None:
    before = sorted(state.rglob("*"))
    done = run(*command, "--state", state)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "keeps no scan" in done.stderr
    assert sorted(state.rglob("*")) == before


@COMMANDS
def test_a_command_leaves_records_of_an_earlier_version_to_the_application(
    bench: Bench, command: list[str]
) -> None:
    """An older application may be running over them."""
    with closing(sqlite3.connect(bench.kiosk.records.path)) as db:
        db.execute("PRAGMA user_version = 1")
        done = run(*command, "--state", bench.state)
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "its schema is 1" in done.stderr and "Start 'dermakiosk serve' of this version" in done.stderr


def kept_by_an_earlier_version(state: Path) -> UUID:
    """A scan in records of the version before this one."""
    scan, app = uuid4(), state / "app"
    wrapped = Keyring(app / "vault.key").wrap(new_key())
    with closing(sqlite3.connect(app / "records.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        sqlite.bring_up(db, records_file._STEPS[:-1])
        row = (str(scan), "2026-01-01T00:00:00.000+00:00", wrapped)
        db.execute("INSERT INTO scans (id, state, created, wrapped_dek) VALUES (?, 'captured', ?, ?)", row)
    return scan


@pytest.mark.parametrize("lacks", ["the clinic's signature", "an enrolment", "a driver", "a board"])
def test_after_an_update_staff_delete_scans_also_where_the_kiosk_may_not_serve(
    state: Path, tmp_path: Path, lacks: str
) -> None:
    scan, board = kept_by_an_earlier_version(state), BOARD
    if lacks == "a board":
        board = tmp_path / "board.toml"
        board.write_text("of an earlier version")
    elif lacks == "a driver":
        board = BOARDS / "raspberrypi5.toml"
    else:
        (state / ("models.sig" if lacks == "the clinic's signature" else "identity.json")).unlink()
    assert run("serve", "--board", board, "--state", state, "--port", 0).returncode in (1, 2)
    done = run("shred", scan, "--state", state)
    assert f"Scan {scan}: its key is destroyed" in done.stdout, done.stderr


@COMMANDS
def test_a_command_says_which_folder_its_user_may_not_enter(
    state: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, stat = state / "app", Path.stat

    def denied(path: Path, **how: bool) -> os.stat_result:
        if path.is_relative_to(app):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", denied)
    entry = {"scans": serve_cli.scans, "shred": serve_cli.shred}[command[0]]
    with pytest.raises(StateRefused, match=f"{app} cannot be used .*: make it a folder"):
        entry.main([*command[1:], "--state", str(state)], obj={"debug": True}, standalone_mode=False)


def a_capture(pixels: np.ndarray) -> Capture:
    frame = Frame("white", pixels.astype(np.uint16) * 257, 8000, 1.0, timestamp_ns=0)
    return Capture("test", (frame,), simulated=True)


def stand_in(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))


def test_the_child_that_measures_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMAKIOSK_STATE", "/somewhere/secret")
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    script = f"env > {tmp_path}/seen; ls -l /proc/self/fd > {tmp_path}/files"
    stand_in(tmp_path / "child", script, monkeypatch)
    with (tmp_path / "vault.key").open("w"), pytest.raises(AnalysisFailed, match="not understood"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())
    assert "secret" not in (tmp_path / "seen").read_text()
    assert "vault.key" not in (tmp_path / "files").read_text()
    assert (tmp_path / "files").read_text().count("memfd:") == 3


def test_nothing_of_a_scan_can_be_read_of_the_child_in_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line and an environment are for every user of the computer to read."""
    shown = "/proc/self/cmdline /proc/self/environ"
    stand_in(
        tmp_path / "child",
        f"cat {shown} > {tmp_path}/seen; ls -l /proc/self/fd >> {tmp_path}/seen",
        monkeypatch,
    )
    scan, words = uuid4(), Words(areas_title="Wo wir gemessen haben")
    with pytest.raises(AnalysisFailed):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), scan, words)
    with pytest.raises(AnalysisFailed):
        Analyst("ai-edge-litert").refuses(a_capture(picture(64, 48)), scan)
    seen = (tmp_path / "seen").read_bytes()
    assert b"memfd:request" in seen
    assert str(scan).encode() not in seen and b"gemessen" not in seen


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "child", f"echo $$ > {tmp_path}/pid; exec sleep 60", monkeypatch)
    began = time.monotonic()
    with pytest.raises(AnalysisFailed, match="not done within 1 s"):
        Analyst("ai-edge-litert", deadline_s=1.0).measure(a_capture(picture(64, 48)), uuid4())
    assert time.monotonic() - began < 55
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_child_that_does_nothing_is_ended_long_before_one_that_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst, "STILL_S", 1.0)
    stand_in(tmp_path / "child", f"echo $$ > {tmp_path}/pid; kill -STOP $$", monkeypatch)
    with pytest.raises(AnalysisFailed, match="did nothing for 1 s"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    stand_in(tmp_path / "child", "while :; do :; done", monkeypatch)
    with pytest.raises(AnalysisFailed, match="not done within 2 s"):
        Analyst("ai-edge-litert", deadline_s=2.0).measure(a_capture(picture(64, 48)), uuid4())


def test_a_patient_does_not_wait_for_pictures_of_others_until_a_close_up_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analyst, "CHECK_TURN_S", 0.2)
    measuring = Analyst("ai-edge-litert")
    with measuring._turn, pytest.raises(AnalysisFailed, match="other pictures for more than 0.2 s"):
        measuring.refuses(a_capture(picture(64, 48)), uuid4())


def test_a_check_of_a_close_up_has_less_time_than_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "child", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(analyst, "CHECK_S", 0.5)
    with pytest.raises(AnalysisFailed, match="not done within 0.5 s"):
        Analyst("ai-edge-litert").refuses(a_capture(picture(64, 48)), uuid4())


def test_a_command_told_to_stop_does_not_wait_for_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_stop(*_args: object) -> int:
        monkeypatch.undo()
        raise Stopped(signal.SIGTERM)

    stand_in(tmp_path / "child", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(subprocess.Popen, "wait", told_to_stop)
    began = time.monotonic()
    with pytest.raises(Stopped):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())
    assert time.monotonic() - began < 55


def test_a_child_that_dies_is_a_failure_that_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "child", "kill -9 $$", monkeypatch)
    with pytest.raises(AnalysisFailed, match="status -9"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())


@pytest.mark.parametrize(("owner", "name"), [(os, "memfd_create"), (analyst.subprocess, "Popen")])
def test_without_memory_for_the_child_the_analysis_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    def exhausted(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(owner, name, exhausted)
    with pytest.raises(AnalysisFailed, match="Cannot allocate memory"):
        Analyst("ai-edge-litert").measure(a_capture(picture(64, 48)), uuid4())


def test_a_picture_without_a_face_is_refused_with_a_reason() -> None:
    flat = np.full((480, 360, 3), 180, np.uint8)
    outcome = Analyst("ai-edge-litert").measure(a_capture(flat), uuid4())
    assert (outcome.findings, outcome.refused) == (None, "no_face")
    assert outcome.sentence
    assert outcome.peak_rss_mb > 0


def test_scan_writes_pictures_findings_and_overlays(tmp_path: Path) -> None:
    done = run("scan", "--board", BOARD, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found["schema"] == 1
    assert len(found["findings"]) > 20
    frames = json.loads((tmp_path / "capture" / "capture.json").read_text())["frames"]
    assert [frame["light"] for frame in frames] == ["dark", "white", "cross"]
    assert cv2.imread(str(tmp_path / "capture" / "white.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert list((tmp_path / "overlays").glob("*.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"capture", "findings.json", "overlays"}
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_dir()} == {0o700}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = run("scan", "--board", BOARD, "--out", tmp_path, "--seed", 2)
    assert again.returncode == 2
    assert "holds a scan already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_scan_asks_no_locale_how_text_is_written(tmp_path: Path) -> None:
    portrait = tmp_path / "Gesicht ü.png"
    cv2.imencode(".png", cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR))[1].tofile(portrait)
    command = dermakiosk(
        "scan", "--board", small_board(tmp_path), "--out", tmp_path / "out", "--portrait", portrait
    )
    told = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=told, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8"))
    assert {finding["unit"] for finding in found["findings"]} >= {"deg", "%"}


def test_scan_takes_the_lights_that_it_is_told_to(tmp_path: Path) -> None:
    board, named = small_board(tmp_path), "uv365, dir0,white"
    done = run("scan", "--board", board, "--out", tmp_path / "out", "--lights", named, "--phantom", 3)
    assert done.returncode == 0, done.stderr
    frames = json.loads((tmp_path / "out" / "capture" / "capture.json").read_text())["frames"]
    assert [frame["light"] for frame in frames] == ["dark", "white", "dir0", "uv365"]


def test_scan_says_which_lights_a_board_has(tmp_path: Path) -> None:
    done = run("scan", "--board", BOARD, "--out", tmp_path / "out", "--lights", "white,infrared")
    assert done.returncode == 2
    assert "'simulated' has no light infrared: it has white, parallel, cross" in done.stderr
    assert not (tmp_path / "out").exists()


def test_scan_of_a_landscape_says_why_and_exits_2(tmp_path: Path) -> None:
    sky = np.tile(np.linspace(80, 220, 400, dtype=np.uint8)[:, None, None], (1, 600, 3))
    cv2.imwrite(str(tmp_path / "landscape.png"), sky)
    (tmp_path / "mine").mkdir()
    out = tmp_path / "mine" / "scans" / "1"
    done = run("scan", "--board", BOARD, "--out", out, "--portrait", tmp_path / "landscape.png")
    assert done.returncode == 2
    assert f"Error: {tmp_path}/landscape.png: No face" in done.stderr
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    "command", [("scan", "--board", BOARD), ("demo", "--once")], ids=lambda each: each[0]
)
def test_a_picture_that_cannot_be_measured_is_refused_before_anything_is_made(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((3000, 3000, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    for option in ("--portrait", "--close-up"):
        done = run(*command, "--out", tmp_path / "out", option, black)
        assert done.returncode == 2
        assert str(black) in done.stderr and "too dark" in done.stderr and "lamp" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", [("scan", "--board", BOARD), ("demo", "--once")], ids=lambda each: each[0]
)
def test_a_close_up_of_no_spot_is_refused_rather_than_left_out(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    file = tmp_path / "mole.png"
    cv2.imwrite(str(file), draw_skin(600, 450, 3).picture[..., ::-1])
    done = run(*command, "--out", tmp_path / "out", "--close-up", file)
    assert done.returncode == 2
    assert "--spot" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_close_up_that_is_out_of_focus_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    sharp = draw_skin(600, 450, 3).picture
    file = tmp_path / "mole.png"
    cv2.imwrite(str(file), cv2.GaussianBlur(sharp, (0, 0), 12)[..., ::-1])
    board = small_board(tmp_path)
    done = run("scan", "--board", board, "--out", tmp_path / "out", "--spot", "nose", "--close-up", file)
    assert done.returncode == 2
    assert f"Error: {file}: " in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_camera_whose_close_up_is_dark_is_named_by_the_spot(tmp_path: Path) -> None:
    board = small_board(tmp_path, '[simulation]\nclose_up_fault = "dark"\n')
    done = run("scan", "--board", board, "--out", tmp_path / "out", "--spot", "left_cheek")
    assert done.returncode == 2
    assert "Error: Close-up (left_cheek): The picture is too dark" in done.stderr


def test_pictures_that_the_patient_spoilt_are_refused(tmp_path: Path) -> None:
    board = small_board(tmp_path, '[simulation]\npatient_opens_shroud_at = { light = "cross" }\n')
    done = run("scan", "--board", board, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "The shroud was open in several pictures: please close it and try again." in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_lamp_that_is_dead_is_still_to_blame(tmp_path: Path) -> None:
    board = small_board(tmp_path, '[simulation]\ndead_lamps = ["white"]\n')
    done = run("scan", "--board", board, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "the lamp or the camera needs a look by staff" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"my face\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"])
def test_scan_reads_the_portrait_before_anything_is_made(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "face.png").write_bytes(content)
    done = run("scan", "--board", BOARD, "--out", tmp_path / "out", "--portrait", tmp_path / "face.png")
    assert done.returncode == 2
    assert "face.png" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_scan_told_to_stop_leaves_no_picture(tmp_path: Path) -> None:
    command = dermakiosk("scan", "--board", BOARD, "--out", tmp_path)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / ".run" / "logs" / "captured.log"
        try:
            wait_until(lambda: log.exists() and "ready" in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read() == "Stopped; nothing of this scan was kept.\n"
    assert list(tmp_path.iterdir()) == []


def test_scan_says_that_it_cannot_write_into_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("scan", "--board", BOARD, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot be written (Not a directory)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_scan_refuses_a_folder_whose_path_has_no_room_for_sockets(tmp_path: Path) -> None:
    out = tmp_path / ("o" * 100)
    done = run("scan", "--board", BOARD, "--out", out)
    assert done.returncode == 2
    assert "too long for the sockets" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()
