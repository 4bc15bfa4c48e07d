"""Records, keys and vault that do not belong together: nothing is destroyed that another part may know."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from kiosk_app import serve_cli
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from kiosk_app.kept.records_file import RecordsUnusable
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.storage import AlreadyServed, RecordsLost, StateRefused, only_server, open_storage
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_commands import BOARD, run, serving
from tests.support.scanning import consented, do, reading, state_of


@pytest.fixture
def scan(bench: Bench) -> UUID:
    """A scan that is kept, in records that still have their log beside them, as after a crash."""
    scan = consented(bench)
    do(bench, scan)
    assert bench.kiosk.records.path.with_name("records.sqlite-wal").stat().st_size > 0
    return scan


@pytest.fixture
def app(bench: Bench, scan: UUID) -> Path:
    return bench.state / "app"


def put_aside(app: Path) -> None:
    for file in app.glob("records.sqlite*"):
        shutil.move(file, app.parent)


def put_aside_without_their_log(app: Path) -> None:
    shutil.move(app / "records.sqlite", app.parent)


def empty(app: Path) -> None:
    shutil.copy(app / "records.sqlite", app.parent)
    (app / "records.sqlite").write_bytes(b"")


def put_back(app: Path) -> None:
    for file in app.parent.glob("records.sqlite*"):
        shutil.move(file, app / file.name)


def know_no_scan(app: Path) -> None:
    put_aside(app)
    Records(app / "records.sqlite", Keyring(app / "vault.key"))


def files(app: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in app.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lose", [put_aside, put_aside_without_their_log, empty])
def test_serve_deletes_nothing_and_says_what_to_do_where_the_records_of_the_vault_are_lost(
    app: Path, scan: UUID, lose: Callable[[Path], None]
) -> None:
    lose(app)
    pictures = files(app / "vault")
    done = run("serve", "--board", BOARD, "--state", app.parent, "--port", 0)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"{app / 'records.sqlite'} are" in done.stderr and "its vault holds 1 scan:" in done.stderr
    assert "Put the records back, or give the kiosk a new state folder and enrol it there: " in done.stderr
    assert files(app / "vault") == pictures != {}
    # SQLite would take the log of the ones for that of the others.
    assert ("Their log records.sqlite-wal would ruin a copy" in done.stderr) == (lose is not put_aside)
    put_back(app)
    records, vault = open_storage(app)
    assert vault.get_capture(scan, records.dek(scan)).frames


@pytest.mark.parametrize("lose", [put_aside, put_aside_without_their_log, empty, know_no_scan])
@pytest.mark.parametrize("as_it_is", [False, True], ids=["serve", "a command"])
def test_nothing_is_made_beside_a_vault_whose_records_are_lost(
    app: Path, lose: Callable[[Path], None], as_it_is: bool
) -> None:
    lose(app)
    if as_it_is and lose is know_no_scan:
        open_storage(app, as_it_is=True)  # it lists what they do not know
        return
    before = files(app)
    with pytest.raises(RecordsLost, match="nothing was deleted"):
        open_storage(app, as_it_is=as_it_is)
    after = files(app)
    assert lose is know_no_scan or after == before
    assert {name for name in before if "vault/" in name} == {name for name in after if "vault/" in name}


def test_a_vault_that_staff_moved_aside_is_in_nobodys_way(app: Path) -> None:
    put_aside(app)
    (app / "vault").rename(app / "vault.aside")
    records, vault = open_storage(app)
    assert (records.scans(), vault.scans()) == ([], [])
    assert list((app / "vault.aside").iterdir()) != []


def test_records_that_are_damaged_lead_to_no_loss_of_pictures(app: Path) -> None:
    for file in app.glob("records.sqlite-*"):
        file.unlink()
    (app / "records.sqlite").write_bytes(b"damaged" * 1000)
    with pytest.raises(
        RecordsUnusable,
        match=r"move it aside\. Then put a copy of it there, if there is one, and move its log"
        r" \(records\.sqlite-wal\) aside too, which would ruin the copy",
    ):
        open_storage(app)


@pytest.fixture
def copied(bench: Bench, tmp_path: Path) -> tuple[UUID, UUID]:
    """Two scans, and the records are a copy of before the second."""
    known, unknown = consented(bench), UUID(int=0)
    do(bench, known)
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        with closing(sqlite3.connect(bench.kiosk.records.path)) as now:
            now.backup(copy)
        unknown = consented(bench)
        do(bench, unknown)
        with closing(sqlite3.connect(bench.kiosk.records.path)) as now:
            copy.backup(now)
    return known, unknown


def test_scans_that_an_older_copy_of_the_records_does_not_know_stay_and_are_named(
    bench: Bench, copied: tuple[UUID, UUID]
) -> None:
    known, unknown = copied
    kiosk = bench.again()
    items = kiosk.vault.items(unknown)
    with capture_logs() as said:
        kiosk.work.recover()
        kiosk.work.go_on()
    assert {"event": "scans_unknown", "log_level": "warning", "scans": [str(unknown)]} in said
    assert kiosk.vault.items(unknown) == items != []
    listed = run("scans", "list", "--state", bench.state, "--json").stdout.splitlines()
    assert [json.loads(line)["scan"] for line in listed] == [str(known), str(unknown)]
    assert json.loads(listed[1]) == {
        "scan": str(unknown),
        "at": None,
        "bytes": kiosk.vault.size(unknown),
        "state": "unknown",
    }
    *_, line, advice = run("scans", "list", "--state", bench.state).stdout.splitlines()
    assert line.split()[::3] == [str(unknown), "unknown"]
    assert "put back the records that do, or destroy it with 'dermakiosk shred'" in advice


def test_pictures_of_a_scan_that_an_older_copy_of_the_records_knows_without_any_stay_and_are_named(
    bench: Bench, tmp_path: Path
) -> None:
    scan = consented(bench)
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        with closing(sqlite3.connect(bench.kiosk.records.path)) as now:
            now.backup(copy)
        do(bench, scan)
        with closing(sqlite3.connect(bench.kiosk.records.path)) as now:
            copy.backup(now)
    items = bench.kiosk.vault.items(scan)
    kiosk = bench.again()
    with capture_logs() as said:
        kiosk.work.recover()
        kiosk.work.go_on()
    assert {"event": "scans_unknown", "log_level": "warning", "scans": [str(scan)]} in said
    assert kiosk.vault.items(scan) == items != []
    listed = run("scans", "list", "--state", bench.state, "--json").stdout.splitlines()
    assert [json.loads(line)["state"] for line in listed] == ["unknown"]
    assert run("shred", scan, "--state", bench.state).returncode == 0
    bench.again().work.recover()
    assert (kiosk.vault.scans(), state_of(bench, scan)) == ([], ScanState.SHREDDED)


def test_staff_destroy_a_scan_that_the_records_do_not_know(bench: Bench, copied: tuple[UUID, UUID]) -> None:
    known, unknown = copied
    items = bench.kiosk.vault.items(known)
    done = run("shred", unknown, "--state", bench.state)
    assert (done.returncode, done.stderr) == (0, "")
    assert "which these records do not know" in done.stdout and "encrypted items" in done.stdout
    assert (bench.kiosk.vault.scans(), bench.kiosk.vault.items(known)) == ([known], items)
    assert "may have been sent" in done.stdout and "destroy those too" in done.stdout
    again = run("shred", unknown, "--state", bench.state)
    assert again.returncode == 0 and f"Scan {unknown} was deleted before" in again.stdout
    assert "destroyed key" not in again.stdout and "destroy those too" in again.stdout


def test_records_that_know_no_scan_are_refused_also_after_staff_destroyed_one_of_those_in_the_vault(
    bench: Bench, tmp_path: Path
) -> None:
    """They would use numbers again, whichever of the scans are left."""
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        with closing(sqlite3.connect(bench.kiosk.records.path)) as now:
            now.backup(copy)
        scans = [consented(bench) for _ in range(2)]
        for scan in scans:
            do(bench, scan)
        with closing(sqlite3.connect(bench.kiosk.records.path)) as now:
            copy.backup(now)
    for left in (2, 1):
        with pytest.raises(RecordsLost, match=f"know no scan, but its vault holds {left} scan"):
            open_storage(bench.state / "app")
        assert run("shred", scans.pop(), "--state", bench.state).returncode == 0
    open_storage(bench.state / "app")


def test_of_a_key_that_is_elsewhere_staff_are_told_that_and_not_what_keeps_another_one(
    bench: Bench, copied: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiosk_app.scanning.shred.USED_S", 0.0)
    known, unknown = copied
    with reading(bench):
        for scan in (known, unknown, unknown):
            arguments = [str(scan), "--state", str(bench.state)]
            said = CliRunner().invoke(serve_cli.shred, arguments, obj={"debug": True}).output
            left, elsewhere = "Its old key is not destroyed yet", "Its key stands in the records that know it"
            assert [left in said, elsewhere in said] == [scan == known, scan == unknown]


def test_pictures_of_a_capture_that_a_crash_ended_fill_no_disk(bench: Bench) -> None:
    """Half-written or whole, also where its records were put aside meanwhile."""
    half, whole, stranger = consented(bench), consented(bench), UUID(int=7)
    for scan in (half, stranger):
        (bench.kiosk.vault.folder / f".{scan}.partial").mkdir()
    bench.kiosk.vault.put_all(whole, bench.kiosk.records.dek(whole), {"frame.white": b"picture"})
    bench.again().work.recover()
    assert list(bench.kiosk.vault.folder.iterdir()) == []
    assert [state_of(bench, scan) for scan in (half, whole)] == [ScanState.ABANDONED] * 2


def test_a_second_serve_leaves_the_scan_under_way_to_the_first(bench: Bench) -> None:
    with serving(bench.state):
        scan = consented(bench)  # as the first one does, whose patient is still there
        second = run("serve", "--board", BOARD, "--state", bench.state, "--port", 0)
        assert (second.returncode, len(second.stderr.splitlines())) == (1, 1)
        assert f"Another 'dermakiosk serve' runs on {bench.state / 'app'}: stop it first." in second.stderr
        assert state_of(bench, scan) == ScanState.CONSENTED
        assert str(scan) in run("scans", "list", "--state", bench.state).stdout
        assert run("shred", scan, "--state", bench.state).returncode == 0


def test_a_folder_is_one_servers_for_as_long_as_it_serves(tmp_path: Path) -> None:
    with only_server(tmp_path), pytest.raises(AlreadyServed), only_server(tmp_path):
        pass
    with only_server(tmp_path):
        pass


def test_what_is_no_file_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "serve.lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(StateRefused, match=r"serve\.lock cannot be used .*: it has to be a file"),
        only_server(tmp_path),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_no_folder_is_made_for_a_server_that_has_none(tmp_path: Path) -> None:
    with only_server(tmp_path / "app"):
        assert not (tmp_path / "app").exists()
