"""`dermakiosk scans` and `dermakiosk shred`: how staff find a scan and delete it."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from hardware.board import BOARDS
from hardware.host import sqlite
from kiosk_app import serve_cli
from kiosk_app.kept import records_file
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.storage import StateRefused
from kiosk_app.kept.vault import new_key
from tests.support.kiosk_bench import Bench, Clinic
from tests.support.kiosk_commands import BOARD, run, serving
from tests.support.scanning import consented, do, reading


@pytest.fixture
def state(tmp_path: Path, clinic: Clinic) -> Path:
    return clinic.enrol(tmp_path / "kiosk")


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
