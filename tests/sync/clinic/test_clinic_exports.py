"""What is opened becomes files, each whole and once its message is opened, wherever the opener is killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from sync.clinic.receiving import opener as opener_module
from sync.clinic.receiving.export_folder import OpenFolder
from sync.clinic.receiving.opener import STRIKES
from sync.clinic.store.database import Database
from sync.clinic.store.tables import Kiosk, Scan
from tests.support.clinic import SealingKiosk
from tests.support.exporting import (
    Killed,
    before_each_act,
    begun,
    events,
    files,
    full,
    is_killed_at,
    of_every_kind,
)
from tests.support.waiting import wait_until
from tests.support.withdrawing import arrive, count, envelope, open_all, withdraw


def test_nobody_who_would_write_to_the_database_waits_for_the_disk_of_the_exports(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, acts = tmp_path / "opened", list[str]()

    def another_writes(name: str) -> None:
        acts.append(name)
        with database.writing() as session:
            session.execute(update(Kiosk).values(name=f"renamed {len(acts)}"))

    opened_before = arrive(database, kiosk, kiosk.result(scan := uuid4()))
    open_all(database, kiosk.opening, export=out)
    stay = {arrive(database, kiosk, withdraw(scan, opened_before))} | of_every_kind(database, kiosk)
    with pytest.MonkeyPatch.context() as patch:
        before_each_act(patch, out, another_writes)
        open_all(database, kiosk.opening, export=out)
    assert len(acts) > 3 * len(stay)
    assert f"{kiosk.id}.{opened_before}.json" in acts
    assert files(out) == {f"{kiosk.id}.{message}.json" for message in stay}


def test_wherever_the_opener_is_killed_every_opened_message_has_its_file_when_it_has_run_again(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, stay, rounds, killed = tmp_path / "opened", set[str](), 0, True
    while killed:
        rounds += 1
        # One is opened together with others, two alone.
        scan, plain = uuid4(), arrive(database, kiosk, kiosk.result())
        gone = arrive(database, kiosk, kiosk.result(scan))
        word = arrive(database, kiosk, withdraw(scan, gone))
        stay |= {f"{kiosk.id}.{message}.json" for message in (plain, word)}
        opener = begun(database, kiosk.opening, out)
        killed = is_killed_at(rounds, out, partial(opener.open_next, 3))
        assert all(json.loads(path.read_text())["kind"] for path in out.glob("*.json"))
        open_all(database, kiosk.opening, export=out)
        assert files(out) == stay
    assert rounds > 15


def test_what_a_killed_opener_had_not_opened_yet_has_no_file_until_it_is(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out, message = tmp_path / "opened", arrive(database, kiosk, kiosk.result())

    def kill(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sync.clinic.receiving.results.keep_results", kill)
        with pytest.raises(Killed):
            begun(database, kiosk.opening, out).open_next()
    opener = begun(database, kiosk.opening, out)
    assert [path for path in out.iterdir() if path.suffix == ".json"] == []
    assert opener.open_next()
    assert files(out) == {f"{kiosk.id}.{message}.json"}


def test_a_file_that_the_disk_does_not_let_be_named_is_named_as_soon_as_it_does(
    database: Database, kiosk: SealingKiosk, tmp_path: Path, soon: None
) -> None:
    out, messages = tmp_path / "opened", [arrive(database, kiosk, kiosk.result()) for _ in range(2)]
    opener = begun(database, kiosk.opening, out)
    with pytest.MonkeyPatch.context() as patch, capture_logs() as logged:
        patch.setattr(OpenFolder, "rename", full)
        for opened in (1, 2):
            assert opener.open_next()
            assert count(database, Scan) == opened
    assert events(logged, "error") == {"exports_unusable"}
    assert not opener.open_next()
    assert files(out) == {f"{kiosk.id}.{message}.json" for message in messages}


def a_file_in_its_place(out: Path) -> Callable[[], None]:
    """Let nothing be written to the folder `out`; what lets it."""
    moved = out.with_suffix(".moved")
    out.rename(moved)
    out.write_text("no folder")

    def back() -> None:
        out.unlink()
        moved.rename(out)

    return back


def a_full_disk(out: Path) -> Callable[[], None]:
    """The same."""
    patch = pytest.MonkeyPatch()
    patch.setattr("sync.clinic.receiving.export_folder.write_whole_in", full)
    return patch.undo


@pytest.mark.parametrize("fails", [a_file_in_its_place, a_full_disk])
@pytest.mark.parametrize("alone", [False, True])
def test_while_exports_cannot_be_written_that_is_told_and_nobody_else_is_blamed(
    database: Database,
    kiosk: SealingKiosk,
    tmp_path: Path,
    soon: None,
    fails: Callable[[Path], Callable[[], None]],
    alone: bool,
) -> None:
    out, scan = tmp_path / "opened", uuid4()
    opener = begun(database, kiosk.opening, out)
    # Two about one scan are opened alone.
    messages = [arrive(database, kiosk, kiosk.result(scan))]
    if alone:
        messages.append(arrive(database, kiosk, kiosk.result(scan, supersedes=messages[0])))
    mend, stop = fails(out), threading.Event()
    running = threading.Thread(target=opener.run, args=(stop,))
    with pytest.MonkeyPatch.context() as patch, capture_logs() as logged:
        patch.setattr(opener_module, "POLL_S", 0.0)
        turns = list[None]()
        patch.setattr(opener, "say_keys", lambda: turns.append(None))
        opener._say_from = 0.0
        running.start()
        try:
            wait_until(lambda: len(turns) > 3 * STRIKES, "the opener goes on with everything else")
        finally:
            stop.set()
            running.join(30)
    assert {envelope(database, message).state for message in messages} == {"stored"}
    assert events(logged, "error") == {"exports_unusable"} and events(logged, "warning") == set()
    assert all(str(out) in each["why"] for each in logged if each["event"] == "exports_unusable")
    mend()
    while opener.open_next(10):
        pass
    assert {envelope(database, message).state for message in messages} == {"opened"}
    assert files(out) == {f"{kiosk.id}.{message}.json" for message in messages}


def test_a_start_deletes_what_a_killed_opener_had_half_written_and_no_file_of_anybody_else(
    database: Database, kiosk: SealingKiosk, tmp_path: Path
) -> None:
    out = tmp_path / "opened"
    out.mkdir()
    half, others = f".{kiosk.id}.{uuid4()}.part.x1y2z3_0", {".video.part.1", "music.part", "notes.json"}
    for name in {half} | others:
        (out / name).write_text("half of it")
    begun(database, kiosk.opening, out)
    assert files(out) == others
