"""A kiosk that lost what it would keep a scan with rests, and says so before anyone has agreed."""

from __future__ import annotations

import errno
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from kiosk_app.kept import vault as vault_module
from kiosk_app.kept.states import ScanState
from kiosk_app.kept.storage import open_storage
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_commands import run, serving
from tests.support.scanning import consented, do, state_of
from tests.support.visitor import Visitor, the_scan, the_session


def lose(path: Path) -> None:
    path.rename(path.with_suffix(".aside"))


def damage(path: Path) -> None:
    lose(path)
    path.write_bytes(b"no key, and no records " * 300)


def block(path: Path) -> None:
    lose(path)
    os.mkfifo(path)


@pytest.mark.parametrize("befalls", [lose, damage, block])
def test_a_kiosk_that_lost_the_key_of_its_vault_rests_until_that_is_back(
    bench: Bench, visitor: Visitor, befalls: Callable[[Path], None]
) -> None:
    key = bench.state / "app" / "vault.key"
    assert visitor.page.name == "language"
    visitor.walk_to("consent")
    befalls(key)
    page = visitor.tap()
    assert (page.status, page.name, page.body["data-reason"]) == (503, "closed", "storage_lost")
    visitor.tap()
    page = visitor.look("/")
    assert (page.status, page.name, page.body["data-reason"]) == (200, "closed", "storage_lost")
    assert "cannot lock new pictures away" in page.words
    assert bench.kiosk.records.scans() == []
    key.with_suffix(".aside").replace(key)
    assert visitor.look("/").name == "language"


def test_a_kiosk_whose_records_are_damaged_rests(bench: Bench, visitor: Visitor) -> None:
    visitor.walk_to("consent")
    with bench.kiosk.records._file.connection() as db:
        db.execute("DROP TABLE messages")
        db.execute("DROP TABLE scans")
    page = visitor.tap()
    assert (page.status, page.name, page.body["data-reason"]) == (503, "closed", "storage_lost")
    visitor.tap()
    assert visitor.look("/").body["data-reason"] == "storage_lost"


def test_a_kiosk_whose_vault_is_gone_rests_until_that_is_back(bench: Bench, visitor: Visitor) -> None:
    vault = bench.kiosk.vault.folder
    vault.rename(vault.with_name("aside"))
    assert visitor.look("/").body["data-reason"] == "storage_lost"
    vault.with_name("aside").rename(vault)
    assert visitor.look("/").name == "language"


def test_a_kiosk_whose_disk_takes_nothing_any_more_rests_before_anyone_has_agreed(
    bench: Bench, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux mounts one after an error: what is on it can be read."""
    facts = os.statvfs(bench.kiosk.vault.folder)
    flag = 8  # the ninth of what os.statvfs gives
    read_only = os.statvfs_result((*facts[:flag], facts.f_flag | os.ST_RDONLY, *facts[flag + 1 :]))
    assert visitor.look("/").name == "language"
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _path: read_only)
        page = visitor.look("/")
        assert (page.name, page.body["data-reason"]) == ("closed", "storage_lost")
    assert visitor.look("/").name == "language"


def test_a_command_makes_no_vault_in_the_place_of_one_that_is_lost(bench: Bench) -> None:
    """It may be another user's, to which the application could not write; the lost one is to come back."""
    scan = consented(bench)
    do(bench, scan)
    vault = bench.kiosk.vault.folder
    vault.rename(vault.with_name("aside"))
    listed = run("scans", "list", "--state", bench.state, "--json")
    assert [json.loads(line)["scan"] for line in listed.stdout.splitlines()] == [str(scan)]
    done = run("shred", scan, "--state", bench.state)
    assert (done.returncode, done.stderr, state_of(bench, scan)) == (0, "", ScanState.SHREDDED)
    assert not vault.exists()
    vault.with_name("aside").rename(vault)
    bench.again().work.recover()
    assert list(vault.iterdir()) == []


def test_a_kiosk_that_lost_its_vault_rests_after_a_new_start_too(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    vault = bench.kiosk.vault.folder
    vault.rename(vault.with_name("aside"))
    with serving(bench.state) as (_process, address):
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address, timeout=60) as page:
            assert b'data-reason="storage_lost"' in page.read()
        assert not vault.exists()
        vault.with_name("aside").rename(vault)
        with browser.open(address, timeout=60) as page:
            assert b'data-page="language"' in page.read()


def test_no_vault_is_made_for_the_pictures_of_a_patient_who_sat_there_when_it_was_lost(bench: Bench) -> None:
    scan, vault = consented(bench), bench.kiosk.vault.folder
    vault.rename(vault.with_name("aside"))
    assert do(bench, scan).reason == "storage"
    assert not vault.exists()
    assert state_of(bench, scan) == ScanState.ABANDONED


def test_a_vault_that_nothing_is_lost_with_is_made_anew(bench: Bench) -> None:
    scan = consented(bench)
    do(bench, scan)
    bench.kiosk.shred(scan)
    bench.kiosk.vault.folder.rmdir()
    open_storage(bench.state / "app")
    assert bench.kiosk.vault.folder.is_dir()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO])
def test_who_deletes_a_scan_whose_vault_fails_is_told_of_it_and_of_no_fault_of_the_pages(
    bench: Bench, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    visitor.walk_to("result")

    def fails(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(vault_module, "sync_folder", fails)
    visitor.look("/delete")
    page = visitor.tap("/delete")
    assert (page.status, page.name) == (200, "deleted")
    assert the_scan(bench).state == ScanState.SHREDDED


def test_a_try_that_cannot_be_kept_is_no_fault_of_the_pages(bench: Bench, visitor: Visitor) -> None:
    visitor.walk_to("position")
    bench.kiosk.work.see_to(UUID(str(the_session(bench).scan)))  # it had a try, so another scan is made
    lose(bench.state / "app" / "vault.key")
    page = visitor.tap()
    assert (page.status, page.name, page.body["data-reason"]) == (503, "closed", "storage_lost")


def no_row(bench: Bench) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute("DELETE FROM messages")
        db.execute("DELETE FROM scans")


def no_records(bench: Bench) -> None:
    for file in (bench.state / "app").glob("records.sqlite*"):
        lose(file)


def damaged_row(bench: Bench) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute("UPDATE scans SET figures = '[1'")


def another_versions_row(bench: Bench) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute("UPDATE scans SET state = 'measured twice'")


def damaged_findings(bench: Bench) -> None:
    with bench.kiosk.records._file.transaction() as db:
        db.execute("UPDATE scans SET findings = x'00'")


def no_key(bench: Bench) -> None:
    lose(bench.state / "app" / "vault.key")


@pytest.mark.parametrize("act", ["/result", "/delete", "/start-over"])
@pytest.mark.parametrize(
    "befalls", [no_row, no_records, damaged_row, another_versions_row, damaged_findings, no_key]
)
def test_a_page_of_a_scan_that_cannot_be_read_says_so_and_is_no_fault_of_the_pages(
    bench: Bench,
    visitor: Visitor,
    capsys: pytest.CaptureFixture[str],
    befalls: Callable[[Bench], None],
    act: str,
) -> None:
    page = visitor.walk_to("result")
    befalls(bench)
    for address in ("/result", "/leave", "/delivery", "/result/zones.png"):
        assert visitor.client.get(address, follow_redirects=True).status_code != 500
    shown = visitor.look("/result")
    assert (shown.status, shown.name, shown.way_on) == (503, "kiosk_busy", "/result")
    assert "cannot read what it keeps of your scan" in shown.words
    visitor.page = page if act != "/delete" else visitor.look("/delete")
    visitor.tap(act)
    for address in ("/", "/done", "/deleted", "/delivery"):
        assert visitor.look(address).status != 500
    said = capsys.readouterr()
    assert "page_failed" not in said.out + said.err
    assert "Traceback" not in said.out + said.err
