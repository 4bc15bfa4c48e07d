"""The folder of the exports is known again whatever disk is mounted there, and is told of while it is not."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from sync.clinic.receiving.export_folder import MARK, OpenFolder
from sync.clinic.receiving.exports import ExportsUnusable
from sync.clinic.receiving.opener import LOOK_AGAIN_S, Opener
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Scan
from tests.support.clinic import SealingKiosk
from tests.support.clinic_commands import made, said
from tests.support.exporting import (
    ON_A_DISK,
    before_each_act,
    begun,
    events,
    files,
)
from tests.support.full_disk import on_a_small_disk
from tests.support.withdrawing import arrive, count, envelope, open_all, withdraw


@pytest.mark.parametrize("there", ["another folder", "the folder of other exports", "nothing"])
def test_what_is_at_the_place_of_the_exports_while_they_are_away_is_not_taken_for_them(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, soon: None, there: str
) -> None:
    """As where their disk is not mounted: the folder below it is empty, or has none."""
    out, away, scans = tmp_path / "mount" / "out", tmp_path / "away", (uuid4(), uuid4())
    exported, gone = (arrive(database, kiosk, kiosk.result(scan)) for scan in scans)
    opener = begun(database, kiosk.opening, out)
    while opener.open_next(10):
        pass
    out.rename(away)
    if there != "nothing":
        out.mkdir()
    if there == "the folder of other exports":
        (out / MARK).write_text(f"{uuid4().hex}\n")
    # Another opener, with another folder, has this one know of it by its daily look only.
    arrive(database, kiosk, withdraw(scans[1], gone))
    open_all(database, kiosk.opening, export=tmp_path / "another")
    new = arrive(database, kiosk, kiosk.result())
    words = [arrive(database, kiosk, each) for each in (withdraw(scans[0], exported), withdraw(uuid4()))]
    opener._looked_again = -LOOK_AGAIN_S
    with capture_logs() as logged:
        opener.open_next(10)
        opener._look_again()
        opener.open_next(10)
    assert [envelope(database, each).state for each in (new, *words)] == ["stored", "stored", "opened"]
    assert files(out) == set() and len(files(away)) == 2
    assert {"exports_unusable", "withdrawal_waits"} == events(logged, "error")
    shutil.rmtree(out, ignore_errors=True)
    away.rename(out)
    for _ in range(3):
        opener.open_next(10)
    assert [envelope(database, each).state for each in (new, *words)] == ["opened"] * 3
    assert files(out) == {f"{kiosk.id}.{each}.json" for each in (new, *words)}


MOUNTED_AGAIN = """
import shutil, subprocess
out, other, scan = disk / "out", disk.parent / "other", uuid4()
carried = arrive(database, kiosk, kiosk.result(scan))
opener = Opener(database, [opening], out)
opener.begin()
opener.open_next()
if sys.argv[2] == "its mark was deleted":
    (out / ".dermakiosk-exports").unlink(missing_ok=True)
    opener.open_next()
    arrive(database, kiosk, kiosk.result())
    opener.open_next()
other.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(other)], check=True)
shutil.copytree(out, other / "out")
subprocess.run(["umount", str(disk)], check=True)
waiting = [arrive(database, kiosk, each) for each in (withdraw(scan, carried), kiosk.result())]
for _ in range(3):
    opener.open_next(10)
print("|", *[envelope(database, each).state for each in waiting], *disk.iterdir())
subprocess.run(["mount", "--bind", str(other), str(disk)], check=True)
for _ in range(3):
    opener.open_next(10)
print("|", *[envelope(database, each).state for each in waiting], f"{kiosk.id}.{carried}.json" in files(out))
"""


@pytest.mark.parametrize("meanwhile", ["nothing happened", "its mark was deleted"])
def test_the_disk_of_the_exports_is_used_again_once_it_is_mounted_under_whatever_number(
    tmp_path: Path, meanwhile: str
) -> None:
    (disk := tmp_path / "disk").mkdir()
    said = on_a_small_disk(disk, ON_A_DISK + MOUNTED_AGAIN, "1m", meanwhile).splitlines()
    away, back = [line[2:] for line in said if line.startswith("| ")]
    assert away == "stored stored"
    assert back == "opened opened False"


@pytest.mark.parametrize("what", ["of other exports", "that is empty"])
def test_another_disk_that_gets_the_numbers_of_the_disk_of_the_exports_is_not_taken_for_it(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As a kernel gives them, the lowest that are free; a file system brings a number of its own."""
    out, message = tmp_path / "opened", arrive(database, kiosk, kiosk.result())
    opener = begun(database, kiosk.opening, out)
    with closing(OpenFolder(out)) as folder:
        disk, number, file_system = folder.numbers
    out.rename(tmp_path / "away")
    out.mkdir()
    if what == "of other exports":
        (out / MARK).write_text(f"{uuid4().hex}\n")
    else:
        file_system += 1
    monkeypatch.setattr(OpenFolder, "numbers", (disk, number, file_system))
    opener.open_next()
    assert (envelope(database, message).state, files(out)) == ("stored", set())


WITHOUT_ROOM = """
fill()
word = arrive(database, kiosk, withdraw(uuid4()))
openers = [Opener(database, [opening], disk) for _ in range(2)]
for opener in openers:
    opener.begin()
openers[0].open_next()
print("|", envelope(database, word).state, files(disk))
(disk / "filler").unlink()
for opener in openers:
    arrive(database, kiosk, kiosk.result())
    opener.open_next()
    print("|", len(files(disk)), (disk / ".dermakiosk-exports").stat().st_size)
"""


def test_an_opener_begins_though_there_is_no_room_for_the_mark_of_its_exports(tmp_path: Path) -> None:
    """What a patient took back goes all the same."""
    (disk := tmp_path / "disk").mkdir()
    said = on_a_small_disk(disk, ON_A_DISK + WITHOUT_ROOM).splitlines()
    full, *later = [line[2:] for line in said if line.startswith("| ")]
    assert full == "opened {'filler'}"
    assert later == ["2 33", "3 33"]


def test_openers_with_one_folder_know_it_by_one_mark_in_which_there_is_nothing_but_a_number(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, marked, other = tmp_path / "opened", OpenFolder.mark, list[Opener]()

    def another_begins(folder: OpenFolder) -> bytes | None:
        found = marked(folder)
        if not other:
            other.append(Opener(database, [kiosk.opening], out))
            other[0].begin()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenFolder, "mark", another_begins)
        first = begun(database, kiosk.opening, out)
    mark = (out / MARK).read_bytes()
    assert len(mark) == 33 and int(mark, 16)
    assert {path.name for path in out.iterdir()} == {MARK}
    # Its number is another one then.
    shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(out)
    (tmp_path / "copy").rename(out)
    for number, opener in enumerate((first, *other, begun(database, kiosk.opening, out)), 1):
        arrive(database, kiosk, kiosk.result())
        assert opener.open_next()
        assert len(files(out)) == number


def test_a_mark_is_made_on_a_disk_that_knows_no_links_and_over_what_is_none(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def knows_no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", knows_no_links)
    for before in (None, b"no mark"):
        (out := tmp_path / str(before)).mkdir()
        if before is not None:
            (out / MARK).write_bytes(before)
        opener = begun(database, kiosk.opening, out)
        arrive(database, kiosk, kiosk.result())
        assert opener.open_next()
        assert (out / MARK).stat().st_size == 33
        assert len(files(out)) == 1


def test_a_folder_that_cannot_be_opened_is_told_with_the_reason(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, soon: None
) -> None:
    """It is there: nobody is sent to mount what is mounted."""
    out, message = tmp_path / "opened", arrive(database, kiosk, kiosk.result())
    opener = begun(database, kiosk.opening, out)
    for reason in (errno.EACCES, errno.EIO):

        def fails(*_: object, reason: int = reason) -> None:
            raise OSError(reason, os.strerror(reason))

        for owner, name in ((OpenFolder, "__init__"), (os, "fstatvfs")):
            with pytest.MonkeyPatch.context() as patch, capture_logs() as logged:
                patch.setattr(owner, name, fails)
                opener.open_next()
            (told,) = (each["why"] for each in logged if each["log_level"] == "error")
            assert f"{out} of the exports cannot be opened ({os.strerror(reason)})" in told
    assert envelope(database, message).state == "stored"
    assert opener.open_next()
    assert files(out) == {f"{kiosk.id}.{message}.json"}


def test_a_folder_that_takes_no_mark_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = made(tmp_path / "clinic")["open"], tmp_path / "opened"
    (out / MARK).mkdir(parents=True)
    code, err = said(capsys, [*command, "--export", str(out)])
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{out / MARK}, by which" in err


def test_where_the_disk_of_the_exports_goes_while_they_are_written_nothing_is_written_below_it(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, soon: None
) -> None:
    out, away = tmp_path / "opened", tmp_path / "away"
    messages = [arrive(database, kiosk, kiosk.result()) for _ in range(3)]
    opener, seen = begun(database, kiosk.opening, out), list[str]()

    def go(name: str) -> None:
        seen.append(name)
        if len(seen) == 1:
            out.rename(away)
            out.mkdir()

    with pytest.MonkeyPatch.context() as patch:
        before_each_act(patch, out, go)
        opener.open_next(3)
    assert files(out) == set()
    out.rmdir()
    away.rename(out)
    while opener.open_next(3):
        pass
    assert {envelope(database, message).state for message in messages} == {"opened"}
    assert files(out) == {f"{kiosk.id}.{message}.json" for message in messages}


def test_a_folder_that_cannot_be_listed_is_told_and_seen_to_once_it_can(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, soon: None
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    carried = arrive(database, kiosk, kiosk.result(scan))
    opener = begun(database, kiosk.opening, out)
    opener.open_next()
    word = arrive(database, kiosk, withdraw(scan, carried))

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch, capture_logs() as logged:
        patch.setattr(os, "scandir", fails)
        opener.open_next()
        opener._looked_again = -LOOK_AGAIN_S
        opener._look_again()
        with pytest.raises(ExportsUnusable, match=str(out)):
            begun(database, kiosk.opening, out)
    assert events(logged, "error") == {"exports_unusable"}
    opener.open_next()
    assert files(out) == {f"{kiosk.id}.{word}.json"}


def test_one_file_that_cannot_be_named_or_deleted_keeps_no_other_from_it(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, soon: None
) -> None:
    out, scans = tmp_path / "opened", [uuid4() for _ in range(5)]
    results = [arrive(database, kiosk, kiosk.result(scan)) for scan in scans]
    open_all(database, kiosk.opening, export=out)
    stuck = out / f"{kiosk.id}.{results[2]}.json"
    stuck.unlink()
    stuck.mkdir()
    opener = begun(database, kiosk.opening, out)
    words = [arrive(database, kiosk, withdraw(scan)) for scan in scans]
    new = arrive(database, kiosk, kiosk.result())
    with capture_logs() as logged:
        while opener.open_next(10):
            pass
        # A start is not kept from it either.
        open_all(database, kiosk.opening, export=out)
    assert events(logged, "error") == {"exports_unusable"}
    assert str(stuck) in next(each["why"] for each in logged if each["event"] == "exports_unusable")
    stays = {f"{kiosk.id}.{message}.json" for message in (*words, new)}
    assert files(out) == stays | {stuck.name}
    stuck.rmdir()
    stuck.write_text("old")
    opener.open_next()
    assert files(out) == stays


@pytest.mark.parametrize("place", ["/proc/x", "/proc/1/x", "{tmp_path}/a-file/x", "/dev/fd/x"])
def test_a_place_where_no_file_can_be_made_is_told_before_the_opener_is_ready(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = made(tmp_path / "clinic")["open"]
    (tmp_path / "a-file").write_text("")
    place = place.format(tmp_path=tmp_path)
    code, err = said(capsys, [*command, "--export", place])
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{place}, which --export names" in err


def test_an_opener_that_begins_in_a_folder_names_what_another_one_there_has_just_opened(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, message = tmp_path / "opened", arrive(database, kiosk, kiosk.result())
    first, seen = begun(database, kiosk.opening, out), list[str]()

    def another_begins(name: str) -> None:
        if count(database, Scan) and not seen:
            seen.append(name)
            begun(database, kiosk.opening, out)

    with pytest.MonkeyPatch.context() as patch:
        before_each_act(patch, out, another_begins)
        assert first.open_next()
    assert seen == [f"{kiosk.id}.{message}.part"]
    assert files(out) == {f"{kiosk.id}.{message}.json"}


def test_an_opener_that_begins_in_a_folder_disturbs_nobody_who_writes_there(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, message = tmp_path / "opened", arrive(database, kiosk, kiosk.result())
    first, seen = begun(database, kiosk.opening, out), list[str]()

    def another_begins(name: str) -> None:
        if not seen:
            seen.append(name)
            begun(database, kiosk.opening, out)

    with pytest.MonkeyPatch.context() as patch, capture_logs() as log:
        before_each_act(patch, out, another_begins)
        assert first.open_next()
    assert seen[0].startswith(f".{kiosk.id}.{message}.part.")
    assert [line["event"] for line in log] == ["opened"]
    assert files(out) == {f"{kiosk.id}.{message}.json"}
