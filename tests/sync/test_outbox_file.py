"""The file of the outbox: damaged, lost, of another version, and what stays in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from firmware.lights.doses import DoseLedger
from hardware.host.errors import PlainError
from kiosk_app.kept.keyring import Keyring
from kiosk_app.kept.records import Records
from sync.kiosk import outbox_file
from sync.kiosk.outbox import Outbox, OutboxError
from tests.support.outbox import put
from tests.support.wire import Party

PARTY = Party()


def test_only_its_owner_can_read_the_file(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


STORES: dict[str, Callable[[Path], object]] = {
    "outbox": Outbox,
    "records": lambda path: Records(path, Keyring(path.with_name("vault.key"))),
    "doses": lambda path: DoseLedger(path).renewed_at("uv365"),
}


NO_FILES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("/dev/full"),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("what", NO_FILES)
def test_a_store_that_is_no_file_is_told_for_what_it_is(tmp_path: Path, what: str, store: str) -> None:
    path = tmp_path / "store.sqlite"
    NO_FILES[what](path)
    with pytest.raises(Exception, match=f"it is a .*{what}.*, where a file has to be") as failed:
        STORES[store](path)
    assert isinstance(failed.value, PlainError)


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0" + b"\xff" * 5000, b"no database" * 1000])
def test_a_damaged_file_is_left_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(damage)
    if not damage:
        Outbox(path).close()
        return
    with pytest.raises(OutboxError, match="move it aside.* a new outbox is given it"):
        Outbox(path)
    assert path.read_bytes() == damage


def test_an_outbox_with_a_time_that_is_none_is_told_as_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    message, envelope = put(outbox)
    outbox.accept_receipt(PARTY.receipt(message, envelope))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE history SET at = replace(at, '20', '2\x10')")
    with pytest.raises(OutboxError, match="the file is damaged: move it aside"):
        outbox.counts()
    outbox.close()


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "emptied"])
def test_a_file_that_is_lost_without_what_stands_beside_it_is_begun_anew(
    tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    outbox = Outbox(tmp_path / "outbox.sqlite")
    message, envelope = put(outbox)
    for file in tmp_path.glob("outbox.sqlite*"):
        shutil.copy(file, killed)
    outbox.close()
    assert (killed / "outbox.sqlite-wal").stat().st_size
    lose(killed / "outbox.sqlite")
    anew = Outbox(killed / "outbox.sqlite")
    assert anew.state(message) == "unknown"
    anew.put(message, "result", envelope, may_have_left=True)
    assert (anew.state(message), anew.unreceipted()) == ("sent", [message])
    assert anew.discard(message) == "sent"
    anew.close()


def test_an_outbox_of_newer_software_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    Outbox(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="schema is 99"):
        Outbox(path)


def test_an_outbox_of_an_early_version_knows_how_full_it_is(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    kept = Outbox(path)
    message, _ = put(kept, bytes(700))
    put(kept, bytes(300))
    kept.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE used")
        db.execute("DROP TABLE places")
        db.execute("DROP TABLE unvouched")
        db.execute("DROP INDEX envelopes_by_state")
        db.execute("PRAGMA user_version = 2")
    again = Outbox(path, capacity=1000)
    assert again.counts().bytes == 1000
    with pytest.raises(OutboxError, match="full"):
        put(again, b"x")
    again.discard(message)
    assert again.counts().bytes == 300
    again.close()


def test_whoever_reads_the_outbox_keeps_what_is_discarded_in_the_files_and_holds_up_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_file, "LOCKED_S", 1000.0)  # a wait for it would end the test
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    given = [put(outbox) for _ in range(5)]
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelopes").fetchone()
        assert [outbox.discard(message) for message, _ in given] == ["waiting"] * 5
        assert outbox.unreceipted() == []
        assert not outbox.empty_log()
    assert outbox.empty_log()
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert [envelope for _, envelope in given if envelope in files] == []
    outbox.close()


def test_what_a_process_that_was_killed_had_left_in_the_files_the_next_one_takes_out(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    message, envelope = put(outbox)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelopes").fetchone()
        outbox.discard(message)
        again = Outbox(path)
    assert again.empty_log()
    assert envelope not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
    again.close()
    outbox.close()
