"""The files of what is withdrawn: theirs that are there go, and each withdrawal has one of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, update
from structlog.testing import capture_logs

from sync.clinic.receiving import erasing, unseen_withdrawals
from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.export_folder import OpenFolder
from sync.clinic.receiving.exports import Exports, ExportsUnusable
from sync.clinic.receiving.opener import Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Envelope, FindingRow, OwedFile, Scan
from sync.wire.keys import OpeningKey
from sync.wire.messages import Withdraw
from tests.support.clinic import MOMENT, SealingKiosk, registered
from tests.support.exporting import (
    ON_A_DISK,
    before_each_act,
    begun,
    files,
)
from tests.support.full_disk import on_a_small_disk
from tests.support.withdrawing import a_result, arrive, count, envelope, open_all, withdraw

# Two values each: PostgreSQL takes 65,535 of them at most.
MORE_THAN_A_STATEMENT_TAKES = 33_000


WITHDRAWN_WHILE = """
import subprocess
exported, early = uuid4(), uuid4()
carried = arrive(database, kiosk, kiosk.result(exported))
arrive(database, kiosk, kiosk.result())
opener = Opener(database, [opening], disk)
opener.begin()
while opener.open_next(10):
    pass
def take(away):
    if sys.argv[2] == "full":
        fill() if away else (disk / "filler").unlink()
    else:
        subprocess.run(["mount", "-o", "remount,ro" if away else "remount,rw", str(disk)], check=True)
take(True)
waiting = [arrive(database, kiosk, kiosk.result()), arrive(database, kiosk, kiosk.result(early))]
taken_back = [withdraw(exported, carried), withdraw(uuid4(), uuid4()), withdraw(early, waiting[1])]
words = [arrive(database, kiosk, message) for message in taken_back]
with capture_logs() as logged:
    opener.open_next(10)
print("|", *[envelope(database, word).state for word in (*words, *waiting)])
print("|", count(database, Scan), (disk / f"{kiosk.id}.{carried}.json").exists())
print("|", *sorted({each["event"] for each in logged if each["log_level"] == "error"}))
take(False)
while opener.open_next(10):
    pass
opener.open_next(10)
print("|", *[envelope(database, word).state for word in (*words, *waiting)])
left = {f"{kiosk.id}.{word}.json" for word in (*words, waiting[0])}
print("|", count(database, Scan), left <= files(disk), len(files(disk)))
"""


@pytest.mark.parametrize(
    ("how", "word", "left", "told"),
    [
        ("full", "opened", "1 False", "exports_unusable"),
        ("read-only", "stored", "2 True", "exports_unusable withdrawal_waits"),
    ],
)
def test_while_exports_cannot_be_written_only_the_withdrawal_of_what_has_a_file_that_stays_is_held(
    tmp_path: Path, how: str, word: str, left: str, told: str
) -> None:
    (disk := tmp_path / "disk").mkdir()
    said = on_a_small_disk(disk, ON_A_DISK + WITHDRAWN_WHILE, "1m", how).splitlines()
    during, there, events_, after, at_last = [line[2:] for line in said if line.startswith("| ")]
    assert during == f"{word} opened opened stored erased"
    assert (there, events_) == (left, told)
    assert after == "opened opened opened opened erased"
    assert at_last == "2 True 5"


def unusable(*_: object) -> None:
    raise ExportsUnusable("not now")


def test_the_file_of_what_no_more_than_its_withdrawal_is_known_of_holds_that_too(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an old copy of the database was brought back."""
    (out := tmp_path / "out").mkdir()
    forgotten = uuid4()
    (file := out / f"{kiosk.id}.{forgotten}.json").write_text("{}")
    words = [arrive(database, kiosk, withdraw(uuid4(), named)) for named in (forgotten, uuid4())]
    opener = begun(database, kiosk.opening, out)
    with monkeypatch.context() as patch:
        patch.setattr(Exports, "write", unusable)
        patch.setattr(OpenFolder, "takes_writing", lambda _: False)
        while opener.open_next(5):
            pass
    assert [envelope(database, word).state for word in words] == ["stored", "opened"]
    assert file.exists()
    opener._write_from = 0.0
    while opener.open_next(5):
        pass
    assert envelope(database, words[0]).state == "opened"
    assert not file.exists()


def test_of_any_number_of_withdrawals_that_wait_for_the_exports_one_line_tells_at_a_time(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [arrive(database, kiosk, withdraw(uuid4(), uuid4())) for _ in range(5)]
    opener = Opener(database, [kiosk.opening], tmp_path / "out")
    monkeypatch.setattr(Exports, "write", unusable)
    monkeypatch.setattr(Exports, "require_deletable", unusable)
    with capture_logs() as logged:
        for tries in range(1, 4):
            opener._write_from = 0.0
            while opener.open_next(2):
                pass
            assert [each["event"] for each in logged].count("withdrawal_waits") == tries
    assert {envelope(database, word).state for word in words} == {"stored"}


def test_the_file_of_a_withdrawal_acted_on_while_there_could_be_none_comes_after_a_start(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    carried = arrive(database, kiosk, a_result(kiosk, scan))
    open_all(database, kiosk.opening, export=out)
    words = [arrive(database, kiosk, withdraw(*named)) for named in ((scan, carried), (uuid4(), uuid4()))]
    stopped = begun(database, kiosk.opening, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exports, "write", unusable)
        while stopped.open_next(5):
            pass
    assert [envelope(database, word).state for word in words] == ["opened", "opened"]
    assert files(out) == set()
    open_all(database, kiosk.opening, export=out)
    assert files(out) == {f"{kiosk.id}.{word}.json" for word in words}
    told = [json.loads((out / f"{kiosk.id}.{word}.json").read_text()) for word in words]
    assert (told[0]["scan"], told[0]["messages"]) == (str(scan), [str(carried)])


def withdrawn_while_unusable(database: Database, kiosk: SealingKiosk, out: Path | None, scan: UUID) -> UUID:
    """Have an opener that can write no file in `out` act on a withdrawal, and be killed."""
    word, killed = arrive(database, kiosk, withdraw(scan)), Opener(database, [kiosk.opening], out)
    killed.begin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exports, "write", unusable if out else Exports.write)
        while killed.open_next(5):
            pass
    assert envelope(database, word).state == "opened"
    return word


def test_the_file_of_a_withdrawal_that_only_repeats_another_comes_after_a_start_too(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    words = [withdrawn_while_unusable(database, kiosk, out, scan) for _ in range(2)]
    assert count(database, OwedFile) == 2
    open_all(database, kiosk.opening, export=out)
    assert files(out) == {f"{kiosk.id}.{word}.json" for word in words}
    assert count(database, OwedFile) == 0


@pytest.mark.parametrize("was", ["written when it came", "owed"])
def test_a_withdrawal_whose_file_an_importer_took_away_is_not_written_again(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, was: str
) -> None:
    out = tmp_path / "opened"
    if was == "owed":
        withdrawn_while_unusable(database, kiosk, out, uuid4())
    else:
        arrive(database, kiosk, withdraw(uuid4()))
    open_all(database, kiosk.opening, export=out)
    for path in out.glob("*.json"):
        path.unlink()
    open_all(database, kiosk.opening, export=out)
    open_all(database, kiosk.opening, export=tmp_path / "another")
    assert not any((*out.glob("*.json"), *(tmp_path / "another").glob("*.json")))


def test_what_an_opener_owes_that_was_killed_another_one_writes_that_runs(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    running = begun(database, kiosk.opening, tmp_path / "another")
    word = withdrawn_while_unusable(database, kiosk, tmp_path / "opened", uuid4())
    running.open_next()
    assert (tmp_path / "another" / f"{kiosk.id}.{word}.json").exists()
    open_all(database, kiosk.opening, export=tmp_path / "opened")
    assert not any((tmp_path / "opened").glob("*.json"))


def test_an_opener_that_writes_no_files_owes_none(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    withdrawn_while_unusable(database, kiosk, None, uuid4())
    open_all(database, kiosk.opening, export=tmp_path / "opened")
    assert not any((tmp_path / "opened").glob("*.json"))


def test_what_is_owed_and_cannot_be_opened_any_more_is_told_once_and_keeps_no_other_from_its_file(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out = tmp_path / "opened"
    spoilt, word = (withdrawn_while_unusable(database, kiosk, out, uuid4()) for _ in range(2))
    with database.writing() as session:
        session.execute(update(OwedFile).where(OwedFile.message_id == spoilt).values(data=b"spoilt"))
    with capture_logs() as logged:
        for _ in range(2):
            open_all(database, kiosk.opening, export=out)
    assert [each["message"] for each in logged if each["event"] == "file_not_written"] == [str(spoilt)]
    assert (out / f"{kiosk.id}.{word}.json").exists()


@pytest.mark.parametrize("waits", [False, True])
def test_what_comes_of_a_scan_that_was_withdrawn_before_is_never_written(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Its withdrawal may wait in quarantine, as one that is one too many."""
    out, scan, acts = tmp_path / "opened", uuid4(), list[str]()
    word = arrive(database, kiosk, withdraw(scan))
    with monkeypatch.context() as patch:
        if waits:
            patch.setattr(unseen_withdrawals, "MOST_UNSEEN", 0)
        open_all(database, kiosk.opening, export=out)
    assert (envelope(database, word).state == "quarantined") is waits
    late = arrive(database, kiosk, a_result(kiosk, scan))
    opener = begun(database, kiosk.opening, out)
    with pytest.MonkeyPatch.context() as patch:
        before_each_act(patch, out, acts.append)
        assert opener.open_next(100)
    assert {name for name in acts if str(late) in name} <= {f"{late}.json", f"{late}.part"} | {
        f"{kiosk.id}.{late}.{suffix}" for suffix in ("json", "part")
    }
    assert envelope(database, late).state == "erased"
    open_all(database, kiosk.opening, export=out)
    assert files(out) == {f"{kiosk.id}.{word}.json"}


def test_a_withdrawal_deletes_files_of_what_came_after_the_copy_that_the_database_was_brought_back_from(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, scans = tmp_path / "opened", [uuid4(), uuid4()]
    results = [arrive(database, kiosk, a_result(kiosk, scan)) for scan in scans]
    open_all(database, kiosk.opening, export=out)
    with database.writing() as session:
        for table in (FindingRow, Scan, Envelope):
            session.execute(delete(table))
    opener = begun(database, kiosk.opening, out)
    words = [arrive(database, kiosk, withdraw(scans[0], results[0]))]
    assert opener.open_next()
    assert files(out) == {f"{kiosk.id}.{message}.json" for message in (words[0], results[1])}
    words.append(arrive(database, kiosk, withdraw(scans[1], results[1])))
    # Another opener, which writes no files, is told of it.
    open_all(database, kiosk.opening)
    open_all(database, kiosk.opening, export=out)
    assert files(out) == {f"{kiosk.id}.{words[0]}.json"}


def test_what_an_opener_with_another_folder_has_erased_goes_within_a_day(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    result, stays = arrive(database, kiosk, a_result(kiosk, scan)), arrive(database, kiosk, kiosk.result())
    running = begun(database, kiosk.opening, out)
    assert running.open_next(2)
    arrive(database, kiosk, withdraw(scan, result))
    open_all(database, kiosk.opening, export=tmp_path / "another")
    assert files(out) == {f"{kiosk.id}.{message}.json" for message in (result, stays)}
    monkeypatch.setattr(opener_module, "LOOK_AGAIN_S", 0.0)
    running._look_again()
    assert files(out) == {f"{kiosk.id}.{stays}.json"}


@pytest.mark.parametrize("when", ["its withdrawal is acted on", "a day has passed"])
def test_what_a_killed_opener_had_half_written_of_a_withdrawn_scan_goes_while_another_one_runs(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    running = begun(database, kiosk.opening, out)
    running.begin()
    result = arrive(database, kiosk, a_result(kiosk, scan))
    half, others = out / f".{kiosk.id}.{result}.part.x1y2z3_0", {f".{kiosk.id}.{uuid4()}.part.x1y2z3_0"}
    for path in (half, *(out / name for name in others)):
        path.write_text("half of it")
    half_of_it = half.rename(tmp_path / "half") if when == "a day has passed" else half
    word = arrive(database, kiosk, withdraw(scan, result))
    while running.open_next():
        pass
    if when == "a day has passed":
        half_of_it.rename(half)
        monkeypatch.setattr(opener_module, "LOOK_AGAIN_S", 0.0)
        running._look_again()
    assert files(out) == {f"{kiosk.id}.{word}.json"} | others


def test_the_files_of_a_scan_of_which_a_kiosk_sent_more_messages_than_one_statement_takes_go(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    arrive(database, kiosk, kiosk.result(scan))
    open_all(database, kiosk.opening, export=out)
    word = arrive(database, kiosk, withdraw(scan))
    erase = erasing.erase

    def erase_many(*given: Any) -> Any:
        return [*erase(*given), *(uuid4() for _ in range(MORE_THAN_A_STATEMENT_TAKES))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasing, "erase", erase_many)
        open_all(database, kiosk.opening, export=out)
    assert files(out) == {f"{kiosk.id}.{word}.json"}


@pytest.mark.parametrize("again", [False, True])
def test_what_an_earlier_version_exported_is_deleted_by_a_withdrawal_and_at_each_start(
    sqlite: Database, opening_key: OpeningKey, tmp_path: Path, again: bool
) -> None:
    """Under the name that it had then."""
    kiosk, out = registered(sqlite, SealingKiosk(opening_key), tmp_path), tmp_path / "opened"
    scan = uuid4()
    result, other = (arrive(sqlite, kiosk, message) for message in (kiosk.result(scan), kiosk.result()))
    open_all(sqlite, opening_key, export=out)
    for message in (result, other):
        (out / f"{kiosk.id}.{message}.json").rename(out / f"{message}.json")
    (out / f"{result}.part").write_text("half of it")
    old = (out / f"{result}.json").read_text()
    word = arrive(sqlite, kiosk, Withdraw(scan=scan, at=MOMENT, reason="patient"))
    open_all(sqlite, opening_key, export=out)
    if again:
        (out / f"{result}.json").write_text(old)  # as a restored backup of the folder brings it back
        open_all(sqlite, opening_key, export=out)
    assert files(out) == {f"{other}.json", f"{kiosk.id}.{word}.json"}
