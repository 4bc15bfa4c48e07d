"""The lines of the file of tombstones: cut short, written over, damaged, or of another version."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from sync.clinic.store import tombstones
from sync.clinic.store.tombstones import Tombstones, TombstonesUnusable
from tests.support.withdrawing import (
    a_stone,
)

CHECKOUT = Path(__file__).parents[3]


def test_a_line_that_the_power_cut_in_two_is_written_over(tmp_path: Path) -> None:
    stones, file = [a_stone() for _ in range(3)], Tombstones(tmp_path / "withdrawn.lines")
    for stone in stones[:2]:
        file.add(stone)
    whole = file.path.read_bytes()
    for torn in (whole[:-1], whole[:-40], whole + b"\0" * 50):
        file.path.write_bytes(torn)
        assert stones[:2][: torn.count(b"\n")] == file.read()
        file.add(stones[2])
        assert file.read()[-1] == stones[2]
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_takes_only_a_part_of_a_line_has_not_taken_it(tmp_path: Path) -> None:
    file, stones = Tombstones(tmp_path / "withdrawn.lines"), [a_stone() for _ in range(2)]
    file.add(stones[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 10, hard))
    try:
        with pytest.raises(TombstonesUnusable, match="cannot be written"):
            file.add(stones[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read() == stones[:1]
    file.add(stones[1])
    assert file.read() == stones


def test_a_line_is_written_over_only_by_the_same(tmp_path: Path) -> None:
    stones, file = [a_stone() for _ in range(3)], Tombstones(tmp_path / "withdrawn.lines")
    for stone in (*stones, stones[1], stones[0]):
        file.add(stone)
    assert file.read() == stones
    file.path.write_bytes(file.path.read_bytes() + b"half a li")
    file.add(stones[1])
    assert file.read() == stones


def test_a_file_that_somebody_holds_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, stones = Tombstones(tmp_path / "withdrawn.lines"), [a_stone() for _ in range(2)]
    file.add(stones[0])
    monkeypatch.setattr(tombstones, "LOCKED_S", 0.2)
    with file.path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TombstonesUnusable, match="end that process"):
            file.add(stones[1])
    file.add(stones[1])
    assert file.read() == stones


def test_the_lines_that_older_software_does_not_know_are_taken_out_and_put_back_as_the_release_notes_say(
    tmp_path: Path,
) -> None:
    """The file stays its owner's alone, who else could not read it then."""
    said = (CHECKOUT / "provisioning" / "docs" / "release.md").read_text()
    copy, take_out, put_back = re.findall(r"`([^`]* ?withdrawn\.lines[^`]*)`", said)[1:]
    path, stones = tmp_path / "withdrawn.lines", [a_stone() for _ in range(4)]
    for number, stone in enumerate(stones):
        Tombstones(path).add(stone.model_copy(update={"unseen": number % 2 == 1}))
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    before = path.stat()
    for command in (copy, take_out):
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert [stone.scan for stone in Tombstones(path).read()] == [stones[0].scan, stones[2].scan]
    later = a_stone()
    Tombstones(path).add(later)
    subprocess.run(put_back, shell=True, check=True, cwd=tmp_path)
    assert {stone.scan for stone in Tombstones(path).read()} == {stone.scan for stone in (*stones, later)}
    for name in ("withdrawn.lines", "withdrawn.lines.newer"):
        after = (tmp_path / name).stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def damaged(lines: bytes) -> Iterable[bytes]:
    yield lines.replace(b"staff", b"stuff", 1)
    yield b"\n" + lines
    yield lines[1:]


def test_a_damaged_line_stops_the_commands_with_the_line_and_the_file(tmp_path: Path) -> None:
    file = Tombstones(tmp_path / "withdrawn.lines")
    for _ in range(2):
        file.add(a_stone())
    for lines in damaged(file.path.read_bytes()):
        file.path.write_bytes(lines)
        with pytest.raises(TombstonesUnusable, match=r"Line 1 of .*withdrawn\.lines is damaged"):
            file.read()
