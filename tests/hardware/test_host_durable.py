"""Files that matter: whole or as they were, wherever the process ends, and old secrets wiped."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hardware.host import durable
from hardware.host.durable import finish_wipe, folder_if_used, replace_secret, write_new, write_whole
from tests.support.killed_steps import killed_before_step
from tests.support.other_accounts import let_files_be_given_away

OLD, NEW = b"old secret " * 40, b"new secret " * 30


def test_a_file_is_the_old_one_or_the_new_one_wherever_the_process_is_killed(tmp_path: Path) -> None:
    path, step = tmp_path / "key", 1
    path.write_bytes(OLD)
    while killed_before_step(step, lambda: write_whole(path, NEW)):
        assert path.read_bytes() in (OLD, NEW)
        step += 1
    assert step > 4
    assert path.read_bytes() == NEW
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_comes_piece_by_piece_is_never_there_in_part(tmp_path: Path) -> None:
    path, seen = tmp_path / "item", []
    path.write_bytes(OLD)

    def pieces(broken: bool) -> Iterator[bytes]:
        for number in range(4):
            seen.append(path.read_bytes())
            yield bytes([number]) * 70_000
        if broken:
            raise ValueError("no more of it")

    with pytest.raises(ValueError, match="no more of it"):
        write_whole(path, pieces(broken=True))
    assert list(tmp_path.iterdir()) == [path]
    assert write_whole(path, pieces(broken=False)) == 4 * 70_000
    assert seen == [OLD] * 8
    assert path.read_bytes() == b"".join(bytes([number]) * 70_000 for number in range(4))


def test_a_new_file_takes_no_others_place_and_is_private_from_its_first_byte(tmp_path: Path) -> None:
    path, modes = tmp_path / "item", []

    def pieces() -> Iterator[bytes]:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        yield NEW

    before = os.umask(0)
    try:
        assert write_new(path, pieces()) == len(NEW)
    finally:
        os.umask(before)
    assert modes == [0o600]
    with pytest.raises(FileExistsError):
        write_new(path, OLD)
    assert path.read_bytes() == NEW


def test_a_replaced_secret_is_wiped_at_the_next_start_wherever_the_process_was_killed(tmp_path: Path) -> None:
    step, wiped_late = 1, 0
    while True:
        path = tmp_path / str(step) / "key"
        path.parent.mkdir()
        path.write_bytes(OLD)
        with path.open("rb") as old_blocks:
            killed = killed_before_step(step, lambda path=path: replace_secret(path, NEW))
            wiped_late += path.read_bytes() == NEW and any(old_blocks.read())
            finish_wipe(path)
            assert path.read_bytes() in (OLD, NEW)
            if path.read_bytes() == NEW:
                old_blocks.seek(0)
                assert not any(old_blocks.read()), f"killed before step {step}, the old secret is still there"
            assert [left.name for left in path.parent.iterdir()] == ["key"]
        if not killed:
            break
        step += 1
    assert wiped_late >= 1  # between rename and wipe a kill leaves the old secret


def test_nothing_is_wiped_before_the_new_ones_name_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut that takes the name back leaves zeros under it, and neither secret."""
    path, old = tmp_path / "key", tmp_path / ".key.old"
    path.write_bytes(NEW)
    old.write_bytes(OLD)  # as after a process that was killed when it had just put the new one there
    there: list[bytes] = []
    sync_folder = durable.sync_folder

    def watched(folder: Path, dir_fd: int | None = None) -> None:
        there.append(old.read_bytes() if old.exists() else b"")
        sync_folder(folder, dir_fd)

    monkeypatch.setattr(durable, "sync_folder", watched)
    finish_wipe(path)
    assert there == [OLD, b""]


def test_a_folder_that_takes_nothing_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "key"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, NEW)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == OLD
    assert [left.name for left in tmp_path.iterdir()] == ["key"]


def test_a_secret_stays_its_owners_whoever_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_files_be_given_away(monkeypatch)
    path = tmp_path / "key"
    replace_secret(path, b"old")
    os.chown(path, 12345, 23456)
    replace_secret(path, b"new")
    now = os.stat(path)
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode), path.read_bytes()) == (
        12345,
        23456,
        0o600,
        b"new",
    )


def test_a_secret_that_would_change_its_owner_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path = tmp_path / "key"
    replace_secret(path, b"old")
    monkeypatch.setattr(durable, "_keep_owner", refused)
    with pytest.raises(PermissionError):
        replace_secret(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["key", ".key.new", ".key.old"])
@pytest.mark.parametrize("how", ["link", "another name", "pipe"])
def test_a_wipe_overwrites_nothing_that_was_linked_into_the_place_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    """The folder belongs to an account that may put there what it likes, and root replaces the secret."""
    folder, theirs = tmp_path / "folder", tmp_path / "theirs"
    folder.mkdir()
    theirs.write_bytes(OLD)
    (folder / "key").write_bytes(OLD)
    (folder / name).unlink(missing_ok=True)
    if how == "link":
        (folder / name).symlink_to(theirs)
    elif how == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).hardlink_to(theirs)
        look = os.fstat

        def folders_are_anothers(handle: int) -> os.stat_result:
            found = look(handle)
            another = [*found[:4], found.st_uid + stat.S_ISDIR(found.st_mode), *found[5:]]
            return os.stat_result(another)

        monkeypatch.setattr(os, "fstat", folders_are_anothers)
    with pytest.raises(OSError, match="where a file has to be|another account's file"):
        replace_secret(folder / "key", NEW)
    assert theirs.read_bytes() == OLD
    assert (folder / "key").is_fifo() or (folder / "key").read_bytes() == OLD


def test_a_secret_is_wiped_under_each_name_that_its_owner_gave_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(OLD)
    (tmp_path / "copy").hardlink_to(path)
    replace_secret(path, NEW)
    assert path.read_bytes() == NEW
    assert not any((tmp_path / "copy").read_bytes())


def test_a_folder_that_cannot_be_made_leaves_none_of_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mkdir = tmp_path / "a" / "b", os.mkdir

    def full(path: Path, *how: int) -> None:
        if path == folder and folder.parent.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(path, *how)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(OSError, match="No space left"), folder_if_used(folder):
            raise AssertionError("there is no such folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("locked", [False, True])
def test_an_empty_folder_is_gone_after_its_use_unless_another_one_has_locked_it(
    tmp_path: Path, locked: bool
) -> None:
    folder = tmp_path / "a" / "b"
    with ExitStack() as other:
        with folder_if_used(folder):
            if locked:
                handle = os.open(folder, os.O_RDONLY)
                other.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
        assert folder.exists() == locked
    assert any(tmp_path.iterdir()) == locked


def test_a_folder_that_another_one_makes_at_the_same_moment_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mkdir = tmp_path / "a", Path.mkdir

    def made_meanwhile(path: Path, *how: int, **more: bool) -> None:
        os.makedirs(folder, exist_ok=True)
        mkdir(path, *how, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", made_meanwhile)
        with folder_if_used(folder):
            pass
    assert folder.exists()
