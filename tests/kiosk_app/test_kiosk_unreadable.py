"""A scan whose pictures cannot be read: nobody is promised a result, and staff see what became of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from kiosk_app.kept import keyring
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.states import ScanState
from kiosk_app.patient import sentences
from kiosk_app.scanning.analyst import AnalysisFailed
from kiosk_app.web.languages import LANGUAGES
from tests.support.kiosk_bench import Bench
from tests.support.kiosk_commands import run
from tests.support.scanning import consented, do, state_of
from tests.support.visitor import Visitor, the_scan, the_session
from tests.support.waiting import wait_until


def cut(bench: Bench, scan: UUID) -> None:
    frame = bench.kiosk.vault.folder / str(scan) / "frame.white.cob"
    frame.write_bytes(frame.read_bytes()[:100])


def lose_a_frame(bench: Bench, scan: UUID) -> None:
    (bench.kiosk.vault.folder / str(scan) / "frame.white.cob").unlink()


def lose_the_folder(bench: Bench, scan: UUID) -> None:
    shutil.rmtree(bench.kiosk.vault.folder / str(scan))


def lose_the_key(bench: Bench, scan: UUID) -> None:
    bench.kiosk.records.keyring.begin_generation()
    bench.kiosk.records.keyring.destroy_old()


BEFALLS = pytest.mark.parametrize("befalls", [cut, lose_a_frame, lose_the_folder, lose_the_key])
Befalls = Callable[[Bench, UUID], None]


def captured(bench: Bench) -> UUID:
    """A scan whose pictures are kept, and which could not be measured yet."""
    scan = consented(bench)
    bench.analyst.fail = AnalysisFailed("died")
    do(bench, scan)
    bench.analyst.fail = None
    assert state_of(bench, scan) == ScanState.CAPTURED
    return scan


@pytest.fixture
def kept_badly(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[Befalls], None]:
    def keep(befalls: Befalls) -> None:
        whole = bench.kiosk.vault.put_capture

        def put(scan: UUID, *rest: object) -> int:
            size: int = whole(scan, *rest)  # type: ignore[arg-type]
            befalls(bench, scan)
            return size

        monkeypatch.setattr(bench.kiosk.vault, "put_capture", put)

    return keep


@BEFALLS
def test_a_scan_that_cannot_be_read_is_not_tried_without_end(bench: Bench, befalls: Befalls) -> None:
    scan = captured(bench)
    befalls(bench, scan)
    bench.again().work.go_on()
    assert state_of(bench, scan) == ScanState.UNREADABLE
    assert bench.kiosk.work.go_on() == 0
    assert f"{scan} " in (listed := run("scans", "list", "--state", bench.state).stdout)
    assert listed.split()[-1] == "unreadable"
    assert bench.outbox.submitted == {}


@BEFALLS
def test_nothing_is_destroyed_of_a_scan_that_cannot_be_read_but_by_staff(
    bench: Bench, befalls: Befalls
) -> None:
    scan = captured(bench)
    befalls(bench, scan)
    items = bench.kiosk.vault.items(scan)
    for _ in range(2):
        kiosk = bench.again()
        kiosk.work.recover()
        kiosk.work.go_on()
        assert (state_of(bench, scan), kiosk.vault.items(scan)) == (ScanState.UNREADABLE, items)
    assert run("shred", scan, "--state", bench.state).returncode == 0
    assert (state_of(bench, scan), kiosk.vault.items(scan)) == (ScanState.SHREDDED, [])


def test_a_scan_that_can_be_read_again_has_its_result_after_the_next_start(
    bench: Bench, tmp_path: Path
) -> None:
    scan = captured(bench)
    shutil.move(bench.kiosk.vault.folder, tmp_path / "vault")
    bench.again().work.go_on()
    assert state_of(bench, scan) == ScanState.UNREADABLE
    shutil.copytree(tmp_path / "vault", bench.kiosk.vault.folder, dirs_exist_ok=True)
    kiosk = bench.again()
    kiosk.work.recover()
    kiosk.work.go_on()
    assert state_of(bench, scan) == ScanState.HANDED_OVER


def test_a_start_while_another_one_holds_the_keys_tries_it_once_more_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = captured(bench)
    lose_a_frame(bench, scan)
    bench.again().work.go_on()
    consented(bench)  # which the next start abandons: that takes the keys
    monkeypatch.setattr(keyring, "LOCKED_S", 0.1)
    kiosk = bench.again()
    with Keyring(kiosk.records.keyring.path).lock():
        kiosk.work.recover()
    assert state_of(bench, scan) == ScanState.CAPTURED


def test_findings_that_cannot_be_read_are_measured_anew_after_the_next_start(bench: Bench) -> None:
    scan = captured(bench)
    with bench.kiosk.records._file.transaction() as db:
        db.execute("UPDATE scans SET state = 'analysed', findings = zeroblob(200)")
    bench.again().work.go_on()
    assert state_of(bench, scan) == ScanState.UNREADABLE
    kiosk = bench.again()
    kiosk.work.recover()
    kiosk.work.go_on()
    assert state_of(bench, scan) == ScanState.HANDED_OVER


@pytest.mark.parametrize("befalls", [cut, lose_a_frame, lose_the_folder])
def test_a_patient_whose_pictures_cannot_be_read_is_promised_no_result(
    bench: Bench, visitor: Visitor, kept_badly: Callable[[Befalls], None], befalls: Befalls
) -> None:
    kept_badly(befalls)
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(lambda: visitor.progress()["state"] == "failed", "the scan failed")
    assert (visitor.progress()["reason"], the_scan(bench).state) == ("unreadable", ScanState.UNREADABLE)
    page = visitor.look(visitor.progress()["next"])
    assert str(sentences.TROUBLES["unreadable"].happened) in page.words
    assert "someone at the desk" in page.words
    assert "safe" not in page.words and "result once" not in page.words
    last = visitor.tap()
    assert last.name == "done"
    assert "take a seat" in last.words and "measurements" not in last.words.lower()
    assert visitor.client.get("/delivery").get_json() == {"delivery": None}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_a_patient_who_starts_over_from_there_is_told_of_no_measurements_and_may_delete_what_is_left(
    bench: Bench, visitor: Visitor, kept_badly: Callable[[Befalls], None], language: str
) -> None:
    kept_badly(cut)
    visitor.walk_to("eyes")
    visitor.tap("/eyes", eyes="open")
    wait_until(lambda: visitor.progress()["state"] == "failed", "the scan failed")
    visitor.look(visitor.progress()["next"])
    the_session(bench).language = language
    page = visitor.look("/scan")
    left = visitor.tap("/start-over")
    assert (page.html["lang"], left.name) == (language, "leave")
    in_title_and_bar = page.words.count(bench.kiosk.clinic)
    assert left.words.count(bench.kiosk.clinic) == in_title_and_bar  # nothing goes there
    assert language != "en" or "measurements" not in left.words
    assert visitor.tap("/delete").name == "deleted"
    assert the_scan(bench).state == ScanState.SHREDDED


def test_a_scan_that_is_deleted_while_it_is_read_is_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, read = consented(bench), bench.kiosk.vault.get_capture

    def deleted(*of: object) -> object:
        bench.kiosk.shred(scan)
        return read(*of)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.kiosk.vault, "get_capture", deleted)
    assert do(bench, scan).reason == "deleted"
    assert state_of(bench, scan) == ScanState.SHREDDED
